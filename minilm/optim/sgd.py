"""SGD: steps against the gradient, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm.errors import ConfigError
from minilm.optim.optimizer import Group, Optimizer, check_number
from minilm.tensor import Tensor


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if wanted.

        g = g + weight_decay w
        b = momentum b + (1 - dampening) g          b = g at the first step
        w = w - lr (g + momentum b if nesterov else b)

    Without momentum w = w - lr g. Source: Sutskever, Martens, Dahl & Hinton 2013, but with lr outside
    of b, as in PyTorch: a changed lr acts at once.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "nesterov": nesterov})

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ConfigError if a setting of the group is impossible."""
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            check_number(name, group[name])
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ConfigError(
                "nesterov needs a momentum above 0 and no dampening, not "
                f"momentum {group['momentum']} and dampening {group['dampening']}"
            )

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """No momentum yet: the first gradient will be it."""
        return {"momentum_buffer": None}

    def update(self, parameter: Tensor, gradient: Any, state: dict[str, Any], group: Group) -> None:
        """One step: see the class."""
        w, momentum = parameter.array, group["momentum"]
        g = gradient + group["weight_decay"] * w if group["weight_decay"] else gradient
        if momentum:
            if state["momentum_buffer"] is None:
                b = g.copy()
                state["momentum_buffer"] = Tensor(b)
            else:
                b = state["momentum_buffer"].array
                b *= momentum
                b += (1 - group["dampening"]) * g
            g = g + momentum * b if group["nesterov"] else b
        w -= group["lr"] * g
