"""Losses: how far a prediction is from what was wanted, as one number to make small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm import kernels
from minilm.errors import AutogradError, DtypeError, ShapeError
from minilm.ops.activation import softplus
from minilm.ops.arrange import movedim, unsqueeze
from minilm.ops.indexing import take_along_dim
from minilm.ops.matmul import linear
from minilm.ops.pointwise import exp, log, square
from minilm.ops.reduction import mean, sum  # noqa: A004
from minilm.ops.registry import Composite, Fused, Primitive, options, sample
from minilm.ops.selection import abs, clamp, minimum, where  # noqa: A004
from minilm.ops.shape import reshape
from minilm.ops.softmax import log_softmax
from minilm.tensor import Tensor

# N rows of V scores each.

LEAST = math.exp(-100)  # what a logarithm sees of a probability 0
LEAST_SPREAD = float(np.float32(1e-12))  # of a probability, x (1 - x), in binary_entropy's slope; PyTorch's float


class CrossEntropyRows(
    Fused,
    shapes="(N, V), (N), (V) -> (N)",
    dtypes="float",
    constants=("target", "weight"),
    method=False,
    title="cross_entropy",
):
    """The loss of each row of scores x, given the number t of the class that was right.

        loss = -(1 - s) weight_t log p_t - s / V sum_c weight_c log p_c,    p = softmax(x), s = label_smoothing

    A row whose target is `ignore_index` has loss 0 and no gradient.

    Source: the cross-entropy of Shannon 1948 between the right class and p; label smoothing from
    Szegedy et al. 2016, section 7.
    """

    domain = ("normal", "index:7", "probability")
    samples = [
        *[sample((5, 7), (5,), None, label_smoothing=s) for s in (0.0, 0.1)],
        *[sample((5, 7), (5,), (7,), label_smoothing=s, ignore_index=3) for s in (0.0, 0.3)],
        sample((0, 7), (0,), None),
    ]

    def definition(x, target, weight=None, ignore_index=-100, label_smoothing=0.0):
        V = x.shape[-1]
        log_p = log_softmax(x, -1)
        ignored = target == ignore_index
        at = where(ignored, 0, target)
        weighted = log_p if weight is None else log_p * weight
        loss = -reshape(take_along_dim(weighted, unsqueeze(at, -1), -1), (-1,)) * (1 - label_smoothing)
        return where(ignored, 0.0, loss - sum(weighted, -1) * (label_smoothing / V))

    def forward(ctx, x, target, weight=None, ignore_index=-100, label_smoothing=0.0):
        losses, lse = kernels.cross_entropy(x, target, weight, ignore_index, label_smoothing)
        ctx.save(x, target, weight, lse)
        ctx.options = (ignore_index, label_smoothing)
        return losses

    def backward(ctx, dloss):
        x, target, weight, lse = ctx.saved
        return kernels.cross_entropy_backward(dloss, x, target, weight, lse, *ctx.options), None, None

    def torch(torch, x, target, weight=None, ignore_index=-100, label_smoothing=0.0):
        return torch.nn.functional.cross_entropy(
            x, target, weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction="none"
        )


cross_entropy_rows = CrossEntropyRows.apply


class CrossEntropy(Composite, shapes="(?), (?), (?) -> (?)", constants=("target", "weight"), method=False):
    """loss = -log softmax(x)[target], averaged: x (B, V), (B, V, ...) or (V), classes (B), (B, ...) or ().

    Args:
        target: class numbers, or probabilities of x's own shape.
        weight: (V), what each class counts.
        ignore_index: class numbers that count nothing.
        reduction: "mean" (divided by the sum of the targets' weights), "sum" or "none".
        label_smoothing: the share of the target that is spread over all classes.
    Errors: ShapeError for shapes that do not fit, IndexError for a class outside 0 ... V - 1.
    """

    domain = ("normal", "index:5", "probability")
    samples = [
        *[sample((3, 5), (3,), None, reduction=r) for r in ("mean", "sum", "none")],
        sample((3, 5), (3,), (5,), ignore_index=2, label_smoothing=0.1),
        sample((5,), (), None),
        sample((2, 5, 3, 7), (2, 3, 7), (5,), reduction="none"),
        sample((2, 5, 3), (2, 3), (5,), reduction="mean", label_smoothing=0.2),
        sample((3, 5), (3, 5), (5,), label_smoothing=0.1, domain=("normal", "probability", "probability")),
        sample((2, 5, 3), (2, 5, 3), None, reduction="none", domain=("normal", "probability", "probability")),
    ]

    def definition(x, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0):
        _check("cross_entropy", x, target, weight, reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"cross_entropy: label_smoothing must lie between 0 and 1, not {label_smoothing}")
        rows, target_shape = _class_axis_last(x)
        if target.dtype.kind == "f":
            return _of_probabilities(x, target, weight, reduction, label_smoothing)
        array = _classes("cross_entropy", target, target_shape, rows.shape[1], ignore_index)
        losses = cross_entropy_rows(rows, array, weight, ignore_index, label_smoothing)
        return _reduced(losses, array, target_shape, weight, ignore_index, reduction)

    def torch(torch, x, target, weight=None, **chosen):
        return torch.nn.functional.cross_entropy(x, target, weight, **chosen)


class LinearCrossEntropy(
    Fused, shapes="(N, C), (V, C), (N) -> ()", dtypes="float", constants=("target",), method=False, fresh=True
):
    """The cross-entropy of the scores x weight^T, which never exist whole: (N, C), (V, C), classes (N) -> ().

    With 50,000 classes the scores would be the largest array of a model, and be written and read six times. Here
    they are computed for some rows at a time; the gradients are made in the forward, while a block of them is
    there, and the backward only multiplies by what it is given.

    Args:
        ignore_index: class numbers that count nothing.
        reduction: "mean" or "sum" over the rows that count.
    Errors: IndexError for a class outside 0 ... V - 1.

    Source: the gradients in the forward are from Hsu et al. 2024, section 3.2 (Liger).
    """

    domain = ("normal", "normal", "index:7")
    samples = [
        *[sample((5, 3), (7, 3), (5,), reduction=r) for r in ("mean", "sum")],
        sample((5, 3), (7, 3), (5,), ignore_index=2),
        sample((0, 3), (7, 3), (0,), reduction="sum"),
    ]

    def definition(x, weight, target, ignore_index=-100, reduction="mean"):
        return cross_entropy(linear(x, weight), target, None, ignore_index, reduction)

    def forward(ctx, x, weight, target, ignore_index=-100, reduction="mean"):
        if reduction not in ("mean", "sum"):
            raise ValueError(f"linear_cross_entropy: reduction is 'mean' or 'sum', not {reduction!r}")
        _classes("linear_cross_entropy", target, (x.shape[0],), weight.shape[0], ignore_index)
        count = np.count_nonzero(target != ignore_index) if reduction == "mean" else 1
        scale = 1 / count if count else math.nan
        wanted = scale if ctx.needs[0] or ctx.needs[1] else None
        losses, ctx.dx, ctx.dweight = kernels.linear_cross_entropy(x, weight, target, ignore_index, wanted)
        ctx.save(x, weight, target)
        ctx.ignore_index, ctx.scale = ignore_index, scale
        return losses.sum() * x.dtype.type(scale)

    def backward(ctx, dloss):
        x, weight, target = ctx.saved
        if ctx.dx is None:  # a second walk: the first one's arrays have become somebody's gradients
            _, ctx.dx, ctx.dweight = kernels.linear_cross_entropy(x, weight, target, ctx.ignore_index, ctx.scale)
        dx, dweight, ctx.dx, ctx.dweight = ctx.dx, ctx.dweight, None, None
        if dloss != 1:
            dx *= dloss
            dweight *= dloss
        return dx, dweight, None

    def torch(torch, x, weight, target, ignore_index=-100, reduction="mean"):
        return torch.nn.functional.cross_entropy(x @ weight.T, target, ignore_index=ignore_index, reduction=reduction)


class NllLoss(Composite, shapes="(?), (?), (?) -> (?)", constants=("target", "weight"), method=False):
    """loss = -x[target] where x holds logarithms of probabilities; shapes and options as in cross_entropy."""

    domain = ("normal", "index:5", "probability")
    samples = [
        *[sample((3, 5), (3,), (5,), reduction=r) for r in ("mean", "sum", "none")],
        sample((3, 5), (3,), None, ignore_index=2),
        sample((5,), (), None),
        sample((2, 5, 3), (2, 3), (5,)),
    ]

    def definition(x, target, weight=None, ignore_index=-100, reduction="mean"):
        _check("nll_loss", x, target, weight, reduction)
        rows, target_shape = _class_axis_last(x)
        array = _classes("nll_loss", target, target_shape, rows.shape[1], ignore_index)
        ignored = array == ignore_index
        weighted = rows if weight is None else rows * weight
        picked = reshape(take_along_dim(weighted, np.where(ignored, 0, array)[:, None], -1), (-1,))
        losses = where(ignored, 0.0, -picked)
        return _reduced(losses, array, target_shape, weight, ignore_index, reduction)

    def torch(torch, x, target, weight=None, ignore_index=-100, reduction="mean"):
        return torch.nn.functional.nll_loss(x, target, weight, ignore_index=ignore_index, reduction=reduction)


class MseLoss(Composite, shapes="(...), (...) -> (?)", method=False):
    """loss = (x - target)^2, averaged, added ("sum") or as it is ("none")"""

    samples = options(reduction=["mean", "sum", "none"])

    def definition(x, target, reduction="mean"):
        return _as_wanted("mse_loss", square(x - target), reduction)

    def torch(torch, x, target, reduction="mean"):
        # PyTorch warns where the shapes broadcast, and is right: nobody means it
        return torch.nn.functional.mse_loss(*torch.broadcast_tensors(x, target), reduction=reduction)


class L1Loss(Composite, shapes="(...), (...) -> (?)", method=False, smooth=False):
    """loss = |x - target|, averaged, added ("sum") or as it is ("none")"""

    domain = "distinct"
    samples = options(reduction=["mean", "sum", "none"])

    def definition(x, target, reduction="mean"):
        return _as_wanted("l1_loss", abs(x - target), reduction)

    def torch(torch, x, target, reduction="mean"):
        return torch.nn.functional.l1_loss(*torch.broadcast_tensors(x, target), reduction=reduction)


class SmoothL1Loss(Composite, shapes="(...), (...) -> (?)", method=False, smooth=False):
    """loss = d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2

    Source: Girshick 2015, equation 3; with beta = 1 the loss of Huber 1964.
    """

    domain = "distinct"
    samples = [sample((2, 3, 5), (2, 3, 5), reduction=r, beta=b) for r, b in (("mean", 1.0), ("none", 0.7))]

    def definition(x, target, reduction="mean", beta=1.0):
        d = abs(x - target)
        if beta == 0:
            return _as_wanted("smooth_l1_loss", d, reduction)
        near = minimum(d, beta)  # so that no infinity is squared, whose slope would be lost
        return _as_wanted("smooth_l1_loss", square(near) / (2 * beta) + (d - near), reduction)

    def torch(torch, x, target, reduction="mean", beta=1.0):
        return torch.nn.functional.smooth_l1_loss(x, target, reduction=reduction, beta=beta)


class KlDiv(Composite, shapes="(...), (...) -> (?)", method=False):
    """loss = target (ln target - x), where x holds logarithms of probabilities; 0 where the target is 0

    The divergence of Kullback & Leibler 1951, equation 2.4, summed by "batchmean" and divided by the first axis's
    size; "mean" divides by the number of elements, "sum" and "none" by nothing. With `log_target` the target holds
    logarithms too.
    """

    domain = ("normal", "probability")
    samples = [
        *[sample((2, 3), (2, 3), reduction=r) for r in ("mean", "sum", "none", "batchmean")],
        sample((2, 3), (2, 3), reduction="none", log_target=True),
    ]

    def definition(x, target, reduction="mean", log_target=False):
        if log_target:
            loss = exp(target) * (target - x)
        else:
            nothing = target == 0
            loss = where(nothing, 0.0, target * (log(where(nothing, 1.0, target)) - x))
        return sum(loss) / x.shape[0] if reduction == "batchmean" else _as_wanted("kl_div", loss, reduction)

    def torch(torch, x, target, reduction="mean", log_target=False):
        import warnings

        with warnings.catch_warnings():  # PyTorch's advice to prefer "batchmean"
            warnings.simplefilter("ignore")
            return torch.nn.functional.kl_div(
                *torch.broadcast_tensors(x, target), reduction=reduction, log_target=log_target
            )


class BinaryEntropy(Primitive, shapes="(...), (...) -> (...)", method=False):
    """z = -target ln x - (1 - target) ln(1 - x) of probabilities x, where no logarithm is below -100

    dx = dz (x - target) / (x (1 - x)), whose denominator is at least 1e-12, as in PyTorch.
    """

    domain = "probability"

    def forward(ctx, x, target):
        ctx.save(x, target)
        sure, unsure = _bounded_logarithms(x)
        return -(target * sure + (1 - target) * unsure)

    def backward(ctx, dz):
        x, target = ctx.saved
        sure, unsure = _bounded_logarithms(x)
        return dz * (x - target) / clamp(x * (1 - x), LEAST_SPREAD), dz * (unsure - sure)

    def torch(torch, x, target):
        x, target = torch.broadcast_tensors(x, target)
        return torch.nn.functional.binary_cross_entropy(x, target, reduction="none")


def _bounded_logarithms(x: Any) -> tuple[Any, Any]:
    """ln x and ln(1 - x), neither below -100."""
    nothing, certain = x <= LEAST, 1 - x <= LEAST
    return where(nothing, -100.0, log(where(nothing, 1.0, x))), where(certain, -100.0, log(where(certain, 1.0, 1 - x)))


class BinaryCrossEntropy(Composite, shapes="(...), (...), (?) -> (?)", method=False, constants=("weight",)):
    """loss = -target ln x - (1 - target) ln(1 - x) of probabilities x, times `weight`; no logarithm is below -100"""

    domain = "probability"
    samples = [
        *[sample((2, 3), (2, 3), None, reduction=r) for r in ("mean", "sum", "none")],
        sample((2, 3), (2, 3), (3,)),
    ]

    def definition(x, target, weight=None, reduction="mean"):
        if tuple(x.shape) != tuple(target.shape):
            raise ShapeError(
                f"binary_cross_entropy: x {tuple(x.shape)} and target {tuple(target.shape)} differ in shape"
            )
        loss = BinaryEntropy.apply(x, target)
        return _as_wanted("binary_cross_entropy", loss if weight is None else loss * weight, reduction)

    def torch(torch, x, target, weight=None, reduction="mean"):
        return torch.nn.functional.binary_cross_entropy(x, target, weight, reduction=reduction)


class BinaryCrossEntropyWithLogits(
    Composite, shapes="(...), (...), (?), (?) -> (?)", method=False, constants=("weight", "pos_weight")
):
    """loss = -pos_weight target log s - (1 - target) log(1 - s) with s = sigmoid(x), times `weight`

    From the logits themselves: log s = -softplus(-x) and log(1 - s) = -x - softplus(-x) stay exact
    where s rounds to 0 or 1.
    """

    domain = ("normal", "probability", "probability", "probability")
    samples = [
        *[sample((2, 3), (2, 3), None, None, reduction=r) for r in ("mean", "sum", "none")],
        sample((2, 3), (2, 3), (2, 1), (3,)),
    ]

    def definition(x, target, weight=None, pos_weight=None, reduction="mean"):
        if tuple(x.shape) != tuple(target.shape):
            raise ShapeError(
                f"binary_cross_entropy_with_logits: x {tuple(x.shape)} and target {tuple(target.shape)} differ in shape"
            )
        positive = 1.0 if pos_weight is None else (pos_weight - 1) * target + 1
        loss = (1 - target) * x + softplus(-x, 1.0, math.inf) * positive
        loss = loss if weight is None else loss * weight
        return _as_wanted("binary_cross_entropy_with_logits", loss, reduction)

    def torch(torch, x, target, weight=None, pos_weight=None, reduction="mean"):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            x, target, weight, pos_weight=pos_weight, reduction=reduction
        )


cross_entropy, nll_loss, mse_loss = CrossEntropy.apply, NllLoss.apply, MseLoss.apply
l1_loss, smooth_l1_loss, kl_div, binary_cross_entropy = (
    L1Loss.apply, SmoothL1Loss.apply, KlDiv.apply, BinaryCrossEntropy.apply
)  # fmt: skip
linear_cross_entropy = LinearCrossEntropy.apply


def binary_cross_entropy_with_logits(
    x: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """loss = -pos_weight target log sigmoid(x) - (1 - target) log(1 - sigmoid(x)): (...), (...) -> ().

    Args:
        weight: what each element counts; broadcast.
        reduction: "mean", "sum" or "none".
        pos_weight: what the first of the two terms counts; broadcast.
    Errors: ShapeError unless x and target have one shape.
    """
    return BinaryCrossEntropyWithLogits.apply(x, target, weight, pos_weight, reduction)


def _check(name: str, x: Any, target: Any, weight: Any, reduction: str) -> None:
    for label, value in (("the scores", x), ("target", target), ("weight", weight)):
        if value is not None and not hasattr(value, "dtype"):
            raise DtypeError(f"{name}: {label} must be a tensor or an array, not {type(value).__name__}")
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise AutogradError(f"{name}: no gradient flows to weight, and it requires one; use weight.detach()")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    if not x.shape:
        raise ShapeError(f"{name}: the scores have no axis of classes: shape {tuple(x.shape)}")
    V = x.shape[min(len(x.shape), 2) - 1]
    if not V:
        raise ShapeError(f"{name}: scores of shape {tuple(x.shape)} have no classes")
    if weight is not None and tuple(weight.shape) != (V,):
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}, for {V} classes ({V},) is expected")


def _as_wanted(name: str, loss: Any, reduction: str) -> Any:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return mean(loss) if reduction == "mean" else sum(loss) if reduction == "sum" else loss


def _class_axis_last(x: Any) -> tuple[Any, tuple[int, ...]]:
    """Scores (B, V, ...) as rows (N, V), and the shape (B, ...) that the targets must have; (V) is one row."""
    shape = tuple(x.shape)
    if len(shape) == 1:
        return reshape(x, (1, -1)), ()
    last = x if len(shape) == 2 else movedim(x, 1, -1)
    outer = (shape[0], *shape[2:])
    return reshape(last, (math.prod(outer), shape[1])), outer


def _classes(name: str, target: Any, shape: tuple[int, ...], V: int, ignore_index: int) -> Any:
    """The targets as an array (N), checked."""
    array = target.array if isinstance(target, Tensor) else np.asarray(target)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"{name}: the targets must be integers, not {array.dtype}")
    if array.shape != shape:
        raise ShapeError(f"{name}: for these scores targets of shape {shape} are expected, not {array.shape}")
    wrong = (array != ignore_index) & ((array < 0) | (array >= V))
    if wrong.any():
        raise IndexError(f"{name}: the class {array[wrong].flat[0]} is not among the {V} classes 0 ... {V - 1}")
    return array.reshape(-1)


def _reduced(losses: Any, target: Any, shape: Any, weight: Any, ignore_index: int, reduction: str) -> Any:
    """The losses (N) of classes as one number, or in the targets' shape."""
    if reduction == "none":
        return reshape(losses, shape)
    total = sum(losses)
    if reduction == "sum":
        return total
    counted = target[target != ignore_index]
    array = weight.array if isinstance(weight, Tensor) else weight
    count = counted.size if weight is None else float(array[counted].sum())
    return total / count if count else total * math.nan  # the mean of nothing, as in PyTorch


def _of_probabilities(x: Any, target: Any, weight: Any, reduction: str, label_smoothing: float) -> Any:
    """The cross-entropy with probabilities as targets: -sum_c target_c weight_c log p_c, averaged over rows."""
    axis = 0 if len(x.shape) == 1 else 1
    if tuple(target.shape) != tuple(x.shape):
        raise ShapeError(
            f"cross_entropy: probabilities must have the scores' shape {tuple(x.shape)}, not {tuple(target.shape)}"
        )
    V = x.shape[axis]
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / V
    log_p = log_softmax(x, axis)
    if weight is not None:
        log_p = log_p * reshape(weight, (-1,) + (1,) * (len(x.shape) - 1 - axis))
    losses = -sum(log_p * target, axis)
    if reduction == "none":
        return losses
    return sum(losses) / math.prod(losses.shape) if reduction == "mean" else sum(losses)
