"""The usual causes of a difference after steps of Adam: each a setting or a line of its formula.

    m = beta1 m + (1 - beta1) g,   v = beta2 v + (1 - beta2) g^2
    w = w - lr weight_decay w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

Computed in float64 from the parameters and gradients that were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minilm.pytorch import as_array
from minilm.testing.twins.calls import Array


@dataclass(frozen=True)
class Adam:
    """Adam and AdamW, with what implementations do differently.

    Attributes:
        decoupled: the decay is taken from w itself (AdamW); else weight_decay w is added to g (Adam with L2).
        corrected: m and v are divided by 1 - beta^t.
        inside: eps is added under the square root.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    decoupled: bool = True
    corrected: bool = True
    inside: bool = False

    def steps(self, w: Array, gradients: list[Array]) -> Array:
        """The parameter after a step with each of the gradients, from w; float64."""
        w = w.astype(np.float64)
        m, v = np.zeros_like(w), np.zeros_like(w)
        beta1, beta2 = self.betas
        for t, gradient in enumerate(gradients, 1):
            g = gradient.astype(np.float64)
            g = g if self.decoupled else g + self.weight_decay * w
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
            mean, square = (m / (1 - beta1**t), v / (1 - beta2**t)) if self.corrected else (m, v)
            if self.decoupled:
                w = w - self.lr * self.weight_decay * w
            w = w - self.lr * mean / (np.sqrt(square + self.eps) if self.inside else np.sqrt(square) + self.eps)
        return w


def adam_of(optimizer: Any, parameter: Any) -> Adam | None:
    """The settings of an optimiser of either library for one parameter; None if it is no Adam by its settings."""
    for group in optimizer.param_groups:
        if any(parameter is p for p in group["params"]) and {"lr", "betas", "eps", "weight_decay"} <= set(group):
            names = {kind.__name__ for kind in type(optimizer).__mro__}
            decoupled = group.get("decoupled_weight_decay", "Adam" not in names)
            betas = (float(group["betas"][0]), float(group["betas"][1]))
            lr = float(as_array(group["lr"]))
            return Adam(lr, betas, float(group["eps"]), float(group["weight_decay"]), bool(decoupled))
    return None


def variants(adam: Adam, other: Adam | None) -> Iterator[tuple[str, str, Adam]]:
    """Each usual cause: its name, "with ..." in words, and the optimiser with this one thing changed."""
    corrected = "the bias corrections" if not adam.corrected else "no bias correction of the means"
    yield "bias correction", corrected, replace(adam, corrected=not adam.corrected)
    if adam.weight_decay:
        form = (
            "weight decay as L2, added to the gradient (Adam)" if adam.decoupled else "decoupled weight decay (AdamW)"
        )
        yield "form of weight decay", form, replace(adam, decoupled=not adam.decoupled)
        yield "weight decay", "no weight decay", replace(adam, weight_decay=0.0)
    yield "epsilon's place", "eps inside of the square root", replace(adam, inside=True)
    for eps in (1e-5, 1e-6, 1e-8, 1e-12):
        if eps != adam.eps:
            yield "epsilon", f"eps {eps:g} instead of {adam.eps:g}", replace(adam, eps=eps)
    if other is None:
        return
    for setting in ("lr", "betas", "weight_decay"):
        here, there = getattr(adam, setting), getattr(other, setting)
        if here != there:
            yield setting, f"{setting} {there} instead of {here}", replace(adam, **{setting: there})
