"""AdamW and Adam: steps scaled by running means of the gradient and of its square."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm import kernels
from minilm.creation import zeros_like
from minilm.errors import ConfigError
from minilm.optim.optimizer import Group, Optimizer, check_number
from minilm.tensor import Tensor


class AdamW(Optimizer):
    """Adam with weight decay that is decoupled from the gradient.

        m = beta1 m + (1 - beta1) g                 a running mean of the gradient g
        v = beta2 v + (1 - beta2) g^2               a running mean of its square
        w = w - lr weight_decay w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    where t counts a parameter's steps from 1. As in PyTorch, the decay is multiplied by lr.

    Source: Loshchilov & Hutter 2019, algorithm 2; Kingma & Ba 2015 for the bias corrections.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ConfigError if a setting of the group is impossible."""
        for name in ("lr", "eps", "weight_decay"):
            check_number(name, group[name])
        if len(group["betas"]) != 2:
            raise ConfigError(f"betas are two numbers, not {group['betas']!r}")
        for name, beta in zip(("beta1", "beta2"), group["betas"]):
            check_number(name, beta, below=1.0)

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """The two running means at zero, and the count of steps."""
        return {"step": 0, "exp_avg": zeros_like(parameter), "exp_avg_sq": zeros_like(parameter)}

    def update_all(self, due: list[tuple[Tensor, Any, dict[str, Any]]], group: Group) -> None:
        """One step of every parameter that has a gradient, in one pass over all of them: see the class."""
        ages: dict[int, list[tuple[Any, Any, Any, Any]]] = {}  # parameters that got their first gradient together
        for parameter, gradient, state in due:
            state["step"] += 1
            arrays = parameter.array, gradient, state["exp_avg"].array, state["exp_avg_sq"].array
            ages.setdefault(state["step"], []).append(arrays)
        for step, together in ages.items():
            lists = map(list, zip(*together))
            kernels.adamw(*lists, group["lr"], *group["betas"], group["eps"], group["weight_decay"], step)


class Adam(AdamW):
    """AdamW with the decay as part of the gradient (g + weight_decay w): Kingma & Ba 2015, algorithm 1."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update_all(self, due: list[tuple[Tensor, Any, dict[str, Any]]], group: Group) -> None:
        """One step of every parameter that has a gradient: see the class."""
        if group["weight_decay"]:
            due = [(p, gradient + group["weight_decay"] * p.array, state) for p, gradient, state in due]
        super().update_all(due, {**group, "weight_decay": 0.0})


def decay_groups(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which matrices decay; biases and the scales of normalisation, which are vectors, do not."""
    found = list(parameters)
    groups = [
        {"params": [p for p in found if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in found if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
