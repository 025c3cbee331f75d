"""Losses as modules. Each takes reduction="mean", "sum" or "none"."""

from __future__ import annotations

from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn.module import Module
from minilm.tensor import Tensor


class _Loss(Module):
    """Base: knows how the losses of the elements become one."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ConfigError(f"{type(self).__name__}: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
        self.reduction = reduction


class CrossEntropyLoss(_Loss):
    """loss = -log softmax(x)[target]: x (B, V) or (B, V, ...) or (V), target of class numbers or of probabilities.

    Args:
        weight: (V), what each class counts.
        ignore_index: targets that count nothing.
        label_smoothing: the share of the target that is spread over all classes (Szegedy et al. 2016, section 7).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ConfigError(f"CrossEntropyLoss: label_smoothing must lie between 0 and 1, not {label_smoothing}")
        self.register_buffer("weight", weight)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.cross_entropy(
            x,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


class NLLLoss(_Loss):
    """loss = -x[target] where x holds logarithms of probabilities: shapes as in CrossEntropyLoss."""

    def __init__(self, weight: Tensor | None = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.ignore_index = ignore_index

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.nll_loss(x, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(_Loss):
    """loss = (x - target)^2: (...), (...) -> () or, without reduction, (...)."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.mse_loss(x, target, reduction=self.reduction)


class L1Loss(_Loss):
    """loss = |x - target|: (...), (...) -> () or, without reduction, (...)."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.l1_loss(x, target, reduction=self.reduction)


class SmoothL1Loss(_Loss):
    """loss = d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2: (...), (...) -> (). Girshick 2015."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        if not beta > 0:
            raise ConfigError(f"SmoothL1Loss: beta must be above 0, not {beta}")
        self.beta = beta

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.smooth_l1_loss(x, target, reduction=self.reduction, beta=self.beta)


class KLDivLoss(_Loss):
    """loss = target (log target - x) of logarithms x: (...), (...) -> (); see `ops.loss.KlDiv`.

    Args:
        reduction: "batchmean" too: the sum divided by the first axis's size, which is the divergence's mean.
        log_target: the target holds logarithms as well.
    """

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__("mean" if reduction == "batchmean" else reduction)
        self.reduction, self.log_target = reduction, log_target

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.kl_div(x, target, reduction=self.reduction, log_target=self.log_target)


class BCELoss(_Loss):
    """loss = -target log x - (1 - target) log(1 - x) of probabilities x: (...), (...) -> ().

    Args:
        weight: what each element counts; broadcast.
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.binary_cross_entropy(x, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
    """loss = -target log sigmoid(x) - (1 - target) log(1 - sigmoid(x)): (...), (...) -> ().

    Args:
        weight: what each element counts; broadcast.
        pos_weight: what the first of the two terms counts; broadcast.
    """

    def __init__(self, weight: Tensor | None = None, reduction: str = "mean", pos_weight: Tensor | None = None) -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """See the class."""
        return F.binary_cross_entropy_with_logits(
            x, target, weight=self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
