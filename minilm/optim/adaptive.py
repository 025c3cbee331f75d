"""RMSprop, Adagrad and Adadelta: steps scaled by a memory of squared gradients, before Adam joined it with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from minilm.creation import full_like, zeros_like
from minilm.device import array_module
from minilm.optim.optimizer import Group, Optimizer, check_number
from minilm.tensor import Tensor


class _Adaptive(Optimizer):
    """Base: every setting is a number, and weight decay is part of the gradient."""

    shares: tuple[str, ...] = ()  # the settings that lie below 1 or at it

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ConfigError if a setting of the group is impossible."""
        for name in self.defaults:
            check_number(name, group[name], below=1 + 1e-9 if name in self.shares else float("inf"))

    def update(self, parameter: Tensor, gradient: Any, state: dict[str, Any], group: Group) -> None:
        """One step: see the class."""
        w = parameter.array
        state["step"] += 1
        g = gradient + group["weight_decay"] * w if group["weight_decay"] else gradient
        w -= self.change(g, state, group)

    def change(self, g: Any, state: dict[str, Any], group: Group) -> Any:
        """What is taken from the parameter, given the gradient g: see the class."""
        raise NotImplementedError(f"{type(self).__name__} has no change")


class RMSprop(_Adaptive):
    """Steps divided by the root of a running mean of squared gradients.

        v = alpha v + (1 - alpha) g^2
        b = momentum b + g / (sqrt(v) + eps)
        w = w - lr b

    Source: Tieleman & Hinton 2012, lecture 6.5.
    """

    shares = ("alpha",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(params, defaults)

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """The running mean and the momentum at zero, and the count of steps."""
        return {"step": 0, "square_avg": zeros_like(parameter), "momentum_buffer": zeros_like(parameter)}

    def change(self, g: Any, state: dict[str, Any], group: Group) -> Any:
        """See the class."""
        v, b = state["square_avg"].array, state["momentum_buffer"].array
        v *= group["alpha"]
        v += (1 - group["alpha"]) * g * g
        b *= group["momentum"]
        b += g / (array_module(v).sqrt(v) + group["eps"])
        return group["lr"] * b


class Adagrad(_Adaptive):
    """Steps divided by the root of the sum of all squared gradients so far.

        v = v + g^2
        w = w - lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)

    Source: Duchi, Hazan & Singer 2011, figure 1 with a diagonal matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        defaults = {"lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay}
        start = {"initial_accumulator_value": initial_accumulator_value, "eps": eps}
        super().__init__(params, {**defaults, **start})

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """The sum at its start, and the count of steps."""
        return {"step": 0, "sum": full_like(parameter, group["initial_accumulator_value"])}

    def change(self, g: Any, state: dict[str, Any], group: Group) -> Any:
        """See the class."""
        v = state["sum"].array
        v += g * g
        lr = group["lr"] / (1 + (state["step"] - 1) * group["lr_decay"])
        return lr * g / (array_module(v).sqrt(v) + group["eps"])


class Adadelta(_Adaptive):
    """Steps as large as earlier ones, in proportion to the gradient: no unit of lr is left.

        v = rho v + (1 - rho) g^2
        d = g sqrt(u + eps) / sqrt(v + eps)
        u = rho u + (1 - rho) d^2
        w = w - lr d

    Source: Zeiler 2012, algorithm 1.
    """

    shares = ("rho",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """The two running means at zero, and the count of steps."""
        return {"step": 0, "square_avg": zeros_like(parameter), "acc_delta": zeros_like(parameter)}

    def change(self, g: Any, state: dict[str, Any], group: Group) -> Any:
        """See the class."""
        v, u, rho = state["square_avg"].array, state["acc_delta"].array, group["rho"]
        sqrt = array_module(v).sqrt
        v *= rho
        v += (1 - rho) * g * g
        d = g * (sqrt(u + group["eps"]) / sqrt(v + group["eps"]))
        u *= rho
        u += (1 - rho) * d * d
        return group["lr"] * d
