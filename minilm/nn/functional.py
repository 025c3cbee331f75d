"""Operations as plain functions, under PyTorch's names and with its argument orders.

Most are the operations themselves (minilm/ops), named again here; only what differs is written. The operations
that PyTorch has in `torch` rather than here (`F.exp`, `F.sum`, `F.reshape` ...) are found by their names too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm import ops
from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.modes import no_grad
from minilm.ops.activation import elu, gelu, logsigmoid, silu, softplus
from minilm.ops.arrange import pad
from minilm.ops.attention import packed_self_attention, scaled_dot_product_attention, self_attention
from minilm.ops.conv import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    conv1d,
    conv2d,
    fold,
    max_pool1d,
    max_pool2d,
    unfold,
)
from minilm.ops.derived import cosine_similarity, glu, normalize
from minilm.ops.embedding import embedding
from minilm.ops.indexing import one_hot
from minilm.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from minilm.ops.loss import linear_cross_entropy as _linear_cross_entropy
from minilm.ops.matmul import linear, linear_gelu, linear_relu
from minilm.ops.norm import add_layer_norm as _add_layer_norm
from minilm.ops.norm import add_rms_norm as _add_rms_norm
from minilm.ops.norm import batch_moments
from minilm.ops.norm import batch_norm as _batch_norm
from minilm.ops.norm import group_norm as _group_norm
from minilm.ops.norm import layer_norm as _layer_norm
from minilm.ops.norm import rms_norm as _rms_norm
from minilm.ops.pointwise import sigmoid, tanh
from minilm.ops.random import dropout
from minilm.ops.selection import leaky_relu, relu
from minilm.ops.softmax import log_softmax, softmax
from minilm.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "add_layer_norm",
    "add_rms_norm",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "conv1d",
    "conv2d",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "elu",
    "embedding",
    "fold",
    "gelu",
    "glu",
    "group_norm",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "linear",
    "linear_cross_entropy",
    "linear_gelu",
    "linear_relu",
    "log_softmax",
    "logsigmoid",
    "max_pool1d",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "packed_self_attention",
    "pad",
    "relu",
    "rms_norm",
    "scaled_dot_product_attention",
    "self_attention",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
    "unfold",
]


def __getattr__(name: str) -> Any:
    """Any other operation by its name, as `minilm.name` or as it stands in the register."""
    import minilm

    if name in minilm.__all__ and callable(found := getattr(minilm, name)):
        return found
    try:
        return ops.get(name).apply
    except KeyError:
        raise AttributeError(f"minilm.nn.functional has no {name!r}") from None


def layer_norm(
    x: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last axes: (..., *normalized_shape) -> the same.

    Errors: ShapeError where x does not end in `normalized_shape`.
    Source: Ba, Kiros & Hinton 2016, equations 3 and 4.
    """
    rows, weight, bias = _as_rows("layer_norm", x, normalized_shape, weight, bias)
    return _back(_layer_norm(rows, weight, bias, eps), x)


def add_layer_norm(
    x: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """`s = x + residual` and `layer_norm(s, ...)` in one pass: (s, y), both of x's shape.

    Errors: ShapeError where x does not end in `normalized_shape`, or the residual has another shape.
    """
    rows, weight, bias = _as_rows("add_layer_norm", x, normalized_shape, weight, bias)
    total, y = _add_layer_norm(rows, _like(rows, residual, x), weight, bias, eps)
    return _back(total, x), _back(y, x)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each channel: (B, C, ...) -> the same.

    In training mean and var are the batch's own, and the running ones move towards them in place, by the share
    `momentum`; else the running ones serve. Source: Ioffe & Szegedy 2015, algorithms 1 and 2.
    Errors: ShapeError for rows of another length than C, or a batch with one value a channel.
    """
    if not training:
        if running_mean is None or running_var is None:
            raise ShapeError("batch_norm: outside of training a running mean and variance are needed")
        return _batch_norm(input, weight, bias, eps, (running_mean, running_var))
    mean, var = batch_moments(input)
    y = _batch_norm(input, weight, bias, eps, (mean, var))
    if running_mean is not None and running_var is not None:
        count = input.numel() // input.shape[1]
        with no_grad():
            running_mean.copy_(running_mean * (1 - momentum) + mean * momentum)
            running_var.copy_(running_var * (1 - momentum) + var * (momentum * count / (count - 1)))
    return y


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Each group of channels of each example with mean 0 and variance 1, then scaled: (B, C, ...) -> the same.

    Source: Wu & He 2018. Errors: ShapeError for channels that cannot be dealt into the groups.
    """
    return _group_norm(input, weight, bias, num_groups, eps)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target, ...): (N, C), (V, C), classes (N) -> ().

    Without bias and weight the scores never exist whole (`ops.loss.LinearCrossEntropy`), and smoothing needs none
    either: it adds s (z_t - mean_c z_c) to a row's loss, z = W x, whose mean is that of W's rows, times x. Otherwise
    this is just a name for the two functions. Source of smoothing: Szegedy et al. 2016, section 7.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"linear_cross_entropy: label_smoothing must lie between 0 and 1, not {label_smoothing}")
    plain = linear_bias is None and weight is None and reduction != "none"
    if plain and input.ndim == 2 and target.ndim == 1:
        loss = _linear_cross_entropy(input, linear_weight, target, ignore_index, reduction)
        if not label_smoothing:
            return loss
        counted = np.flatnonzero(target.array != ignore_index)
        # (N, C), the rows of W that make the labels' scores, less those that make the mean of all
        rows = embedding(target[counted], linear_weight) - linear_weight.mean(0)
        spread = (input[counted] * rows).sum()
        return loss + spread * (label_smoothing / (max(len(counted), 1) if reduction == "mean" else 1))
    scores = linear(input, linear_weight, linear_bias)
    return cross_entropy(scores, target, weight, ignore_index, reduction, label_smoothing)


def rms_norm(
    x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last axes: (..., *normalized_shape) -> the same.

    Args:
        eps: None for the distance from 1 to the next number of x's type.
    Errors: ShapeError where x does not end in `normalized_shape`. Source: Zhang & Sennrich 2019, equation 4.
    """
    rows, weight, _ = _as_rows("rms_norm", x, normalized_shape, weight, None)
    epsilon = float(array_module(x.array).finfo(x.dtype).eps) if eps is None else eps
    return _back(_rms_norm(rows, weight, epsilon), x)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`s = x + residual` and `rms_norm(s, ...)` in one pass: (s, y), both of x's shape. Errors: as add_layer_norm."""
    rows, weight, _ = _as_rows("add_rms_norm", x, normalized_shape, weight, None)
    epsilon = float(array_module(x.array).finfo(x.dtype).eps) if eps is None else eps
    total, y = _add_rms_norm(rows, _like(rows, residual, x), weight, epsilon)
    return _back(total, x), _back(y, x)


def _like(rows: Tensor, residual: Tensor, x: Tensor) -> Tensor:
    """The residual, its last axes joined as x's were; one of another shape is left for the operation to refuse."""
    return residual if rows.shape == x.shape or residual.shape != x.shape else residual.reshape(rows.shape)


def _back(rows: Tensor, x: Tensor) -> Tensor:
    """What `_as_rows` did to x, undone; one axis stayed as it was."""
    return rows if rows.shape == x.shape else rows.reshape(x.shape)


def _as_rows(
    name: str, x: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None, bias: Tensor | None
) -> tuple[Any, Any, Any]:
    """x with its last axes as one; weight and bias likewise."""
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    lead = x.ndim - len(sizes)
    if not sizes or lead < 0 or x.shape[lead:] != sizes:
        raise ShapeError(f"{name}: x {x.shape} does not end in the normalized shape {sizes}")
    for label, row in (("weight", weight), ("bias", bias)):
        if row is not None and row.shape != sizes:
            raise ShapeError(f"{name}: {label} {row.shape} has not the normalized shape {sizes}")
    if len(sizes) == 1:
        return x, weight, bias
    C = math.prod(sizes)
    flat = [None if row is None else row.reshape(C) for row in (weight, bias)]
    return x.reshape(*x.shape[:lead], C), flat[0], flat[1]
