"""Every kernel in NumPy: complete, and written to be read.

A kernel takes arrays and gives arrays. Gradients are `d` + name. `rows` below means: everything but
the last axis. Each backward is derived by hand; the tests hold it against the operation's definition.
"""

from __future__ import annotations

import math
from typing import Any

from minilm.device import array_module
from minilm.kernels.philox import keep_rows, philox
from minilm.kernels.reference_attention import (
    attention,
    attention_backward,
    cached_attention,
    packed_attention,
    packed_attention_backward,
)
from minilm.kernels.reference_recurrent import (
    gru_layer,
    gru_layer_backward,
    lstm_layer,
    lstm_layer_backward,
    rnn_layer,
    rnn_layer_backward,
)
from minilm.kernels.special import erf, sigmoid
from minilm.kernels.special import in_blocks as _in_blocks

Array = Any

__all__ = [
    "attention",
    "attention_backward",
    "cached_attention",
    "erf",
    "gru_layer",
    "gru_layer_backward",
    "keep_rows",
    "lstm_layer",
    "lstm_layer_backward",
    "packed_attention",
    "packed_attention_backward",
    "philox",
    "rnn_layer",
    "rnn_layer_backward",
    "sigmoid",
]  # kernels of this backend that have a file of their own


def matmul(a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
    """a (..., N, K) times b (..., K, M) is (..., N, M); the leading axes broadcast.

    Args:
        out: where the product goes.
        accumulate: add it to what is in `out` already.
    """
    xp = array_module(a)
    if out is None:
        return xp.matmul(a, b)
    if accumulate:
        out += xp.matmul(a, b)
        return out
    return xp.matmul(a, b, out=out)


def linear(x: Array, weight: Array, bias: Array | None, residual: Array | None = None) -> Array:
    """z = x weight^T + bias + residual: (N, I), (O, I), (O), (N, O) -> (N, O)."""
    z = matmul(x, weight.T)
    if bias is not None:
        z += bias
    if residual is not None:
        z += residual
    return z


def linear_gelu(x: Array, weight: Array, bias: Array | None, approximate: str = "none") -> tuple[Array, Array]:
    """y = gelu(z) and z = x weight^T + bias itself, which the backward needs: (N, I), (O, I), (O) -> (N, O), (N, O)."""
    z = linear(x, weight, bias)
    return gelu(z, approximate), z


def linear_relu(x: Array, weight: Array, bias: Array | None) -> Array:
    """y = relu(x weight^T + bias): (N, I), (O, I), (O) -> (N, O)."""
    return relu(linear(x, weight, bias))


def sum_rows(x: Array) -> Array:
    """The sum over rows: (..., C) -> (C)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).sum(0)


def softmax(x: Array) -> Array:
    """y_j = e^(x_j) / sum_k e^(x_k) over the last axis; the largest x is subtracted first, against overflow."""
    xp = array_module(x)
    if x.shape[-1] == 0:
        return x.copy()
    y = xp.exp(x - x.max(-1, keepdims=True))
    y /= y.sum(-1, keepdims=True)
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """dx_j = y_j (dy_j - sum_k dy_k y_k): the Jacobian diag(y) - y y^T times dy, row by row."""
    return y * (dy - (dy * y).sum(-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    """y_j = x_j - log sum_k e^(x_k) over the last axis."""
    xp = array_module(x)
    if x.shape[-1] == 0:
        return x.copy()
    y = x - x.max(-1, keepdims=True)
    y -= xp.log(xp.exp(y).sum(-1, keepdims=True))
    return y


def largest(x: Array, count: int) -> tuple[Array, Array]:
    """The `count` largest numbers of each row in falling order, of equal ones the first, and their columns (int64).

    Shapes: (..., C) -> (..., count) twice. NaN counts as the least, but for one of the first `count` columns may stay.
    Errors: ValueError for more than there are.
    """
    xp = array_module(x)
    if not 0 <= count <= x.shape[-1]:
        raise ValueError(f"largest: {count} numbers were asked for, a row of x {x.shape} has {x.shape[-1]}")
    places = xp.argsort(-x, -1, kind="stable")[..., :count]
    return xp.take_along_axis(x, places, -1), places


def log_softmax_backward(dy: Array, y: Array) -> Array:
    """dx_j = dy_j - e^(y_j) sum_k dy_k, row by row."""
    return dy - array_module(y).exp(y) * dy.sum(-1, keepdims=True)


# --- elementwise ----------------------------------------------------------------------------------


def exp(x: Array) -> Array:
    """e^x."""
    return array_module(x).exp(x)


def tanh(x: Array) -> Array:
    """(e^x - e^-x) / (e^x + e^-x)."""
    return array_module(x).tanh(x)


def relu(x: Array) -> Array:
    """y = 0 where x <= 0, else x, also NaN."""
    return array_module(x).maximum(x, x.dtype.type(0))


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = 0 where y <= 0, else dy."""
    return array_module(y).where(y <= 0, dy.dtype.type(0), dy)


def gelu(x: Array, approximate: str = "none") -> Array:
    """y = x P(x), P the share of the normal distribution below x: (...) -> (...).

    Args:
        approximate: "none" for P(x) = (1 + erf(x / sqrt 2)) / 2;
            "tanh" for P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """

    def block(x: Array) -> Array:
        y = _normal_share(x, approximate)
        y *= x
        return y

    return _in_blocks(block, x)


def gelu_backward(dy: Array, x: Array, approximate: str = "none") -> Array:
    """dx = dy (P(x) + x P'(x))."""
    return _in_blocks(lambda dy, x: _gelu_backward(dy, x, approximate), dy, x)


def _gelu_backward(dy: Array, x: Array, approximate: str) -> Array:
    share = _normal_share(x, approximate)
    if approximate == "tanh":
        # P' = (1 - tanh^2) u' / 2 with u' = sqrt(2 / pi) (1 + 3 0.044715 x^2); 1 - tanh^2 = 4 P (1 - P)
        slope = (x * x * (3 * _TANH_CUBE) + 1) * (2 * _TANH_SCALE)
        slope *= share
        slope *= 1 - share
    else:
        # P' is the normal density
        slope = array_module(x).exp(x * x * -0.5)
        slope *= 1 / math.sqrt(2 * math.pi)
    slope *= x
    slope += share
    slope *= dy
    return slope


_TANH_SCALE, _TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


def _normal_share(x: Array, approximate: str) -> Array:
    """P(x) of `gelu`, in an array of its own."""
    if approximate == "tanh":
        share = x * x
        share *= _TANH_CUBE
        share += 1
        share *= x
        share *= _TANH_SCALE
        share = array_module(x).tanh(share)
    else:
        share = erf(x * math.sqrt(0.5))
    share += 1
    share *= 0.5
    return share


# --- normalisation --------------------------------------------------------------------------------


def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """y = (x - mean) rstd weight + bias, mean and rstd = 1 / sqrt(var + eps) of each row.

    Shapes: x (..., C), weight (C), bias (C) -> y (..., C), mean (..., 1), rstd (..., 1).
    """
    xp = array_module(x)
    C = x.shape[-1]
    mean = x.sum(-1, keepdims=True) / max(C, 1)
    y = x - mean
    rstd = (y * y).sum(-1, keepdims=True)
    rstd /= max(C, 1)
    rstd += eps
    rstd = 1 / xp.sqrt(rstd)
    y *= rstd
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y, mean, rstd


def add_layer_norm(
    x: Array, residual: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, Array]:
    """The sum x + residual, which goes on beside its layer_norm: sum, y (..., C), mean, rstd (..., 1)."""
    total = x + residual
    return (total, *layer_norm(total, weight, bias, eps))


def layer_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, rstd: Array, dsum: Array | None = None
) -> tuple[Array, Array, Array]:
    """With the normalised row n = (x - mean) rstd and its gradient dn = dy weight:

    dx = (dn - mean(dn) - n mean(dn n)) rstd + dsum        the two means: through mean(x) and through rstd
    dweight = sum over rows of dy n                        dbias = sum over rows of dy
    dsum, if any: the gradient that x has on other ways
    """
    n = x - mean
    n *= rstd
    C = x.shape[-1]
    dweight = sum_rows(dy * n)
    dbias = sum_rows(dy)
    dn = dy.copy() if weight is None else dy * weight
    along = (dn * n).sum(-1, keepdims=True)
    along /= max(C, 1)
    dn -= dn.sum(-1, keepdims=True) / max(C, 1)
    n *= along
    dn -= n
    dn *= rstd
    return dn if dsum is None else dn + dsum, dweight, dbias


def rms_norm(x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """y = x rrms weight with rrms = 1 / sqrt(mean of x^2 + eps) of each row.

    Shapes: x (..., C), weight (C) -> y (..., C), rrms (..., 1).
    """
    rrms = (x * x).sum(-1, keepdims=True)
    rrms /= max(x.shape[-1], 1)
    rrms += eps
    rrms = 1 / array_module(x).sqrt(rrms)
    y = x * rrms
    if weight is not None:
        y *= weight
    return y, rrms


def add_rms_norm(x: Array, residual: Array, weight: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """The sum x + residual, which goes on beside its rms_norm: sum, y (..., C), rrms (..., 1)."""
    total = x + residual
    return (total, *rms_norm(total, weight, eps))


def rms_norm_backward(
    dy: Array, x: Array, weight: Array | None, rrms: Array, dsum: Array | None = None
) -> tuple[Array, Array]:
    """With n = x rrms and dn = dy weight:  dx = (dn - n mean(dn n)) rrms + dsum,  dweight = sum over rows of dy n."""
    n = x * rrms
    dweight = sum_rows(dy * n)
    dn = dy.copy() if weight is None else dy * weight
    n *= (dn * n).sum(-1, keepdims=True) / max(x.shape[-1], 1)
    dn -= n
    dn *= rrms
    return dn if dsum is None else dn + dsum, dweight


# --- losses ---------------------------------------------------------------------------------------


def cross_entropy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """The loss of each row, with log p = x - lse and lse = log sum e^x, t the row's target:

        loss = -(1 - s) weight_t log p_t - s / V sum_c weight_c log p_c,  s: label_smoothing

    Everything is measured from the row's largest x: a float32 of 10000 has three digits behind the point, its
    distance from the largest has them all. So lse is in float64.

    Shapes: x (N, V), target (N) of integers, weight (V) or None for ones -> losses (N), lse (N).
    A row whose target is `ignore_index` has loss 0.
    """
    xp = array_module(x)
    N, V = x.shape
    largest = x.max(-1, keepdims=True) if V else x.sum(-1, keepdims=True)
    below = x - largest
    log_sum = xp.log(xp.exp(below).sum(-1))
    lse = log_sum.astype(xp.float64) + largest[:, 0]
    ignored = target == ignore_index
    at = xp.where(ignored, 0, target)
    loss = log_sum - below[xp.arange(N), at]
    if weight is not None:
        loss *= weight[at]
    if label_smoothing:
        loss *= 1 - label_smoothing
        total = V if weight is None else weight.sum()
        mixed = below.sum(-1) if weight is None else below @ weight
        loss += (log_sum * total - mixed) * (label_smoothing / max(V, 1))
    loss[ignored] = 0
    return loss, lse


def cross_entropy_backward(
    dloss: Array, x: Array, target: Array, weight: Array | None, lse: Array, ignore_index: int, label_smoothing: float
) -> Array:
    """dx_c = dloss ((1 - s) weight_t (p_c - [c = t]) + s / V (p_c sum of weights - weight_c))."""
    xp = array_module(x)
    N, V = x.shape
    ignored = target == ignore_index
    at = xp.where(ignored, 0, target)
    of_target = dloss * (1 - label_smoothing)
    if weight is not None:
        of_target = of_target * weight[at]
    of_target = xp.where(ignored, 0, of_target).astype(x.dtype)
    of_all = xp.where(ignored, 0, dloss * (label_smoothing / max(V, 1))).astype(x.dtype)
    total = V if weight is None else weight.sum()
    high = lse.astype(x.dtype)  # lse is taken away in two steps: none of its digits is lost
    dx = x - high[:, None]
    dx -= (lse - high).astype(x.dtype)[:, None]
    xp.exp(dx, out=dx)
    dx *= (of_target + of_all * total)[:, None]
    dx[xp.arange(N), at] -= of_target
    if label_smoothing:
        dx -= of_all[:, None] * (1 if weight is None else weight)
    return dx


def linear_cross_entropy(
    x: Array, weight: Array, target: Array, ignore_index: int, scale: float | None
) -> tuple[Array, Array | None, Array | None]:
    """The losses of rows of scores x weight^T, which never exist whole, and what they add to the gradients.

        loss = lse - (x weight^T)_t,    d(x weight^T)_c = scale (p_c - [c = t])    for each row with target t

    A gradient needs the very probabilities that the loss is made of: both are computed from one block of rows
    before the next block's scores take its place.

    Shapes: x (N, C), weight (V, C), target (N) of integers -> losses (N), dx (N, C), dweight (V, C).
    A row whose target is `ignore_index` has loss 0 and adds nothing.

    Args:
        scale: what each row's loss is multiplied by in the sum that is differentiated; None: no gradients.
    """
    xp = array_module(x)
    N, V = x.shape[0], weight.shape[0]
    losses = xp.empty(N, x.dtype)
    dx = None if scale is None else xp.empty_like(x)
    dweight = None if scale is None else xp.zeros_like(weight)
    block = max(1, LOGITS // max(V, 1))
    for start in range(0, N, block):
        rows = slice(start, start + block)
        scores = matmul(x[rows], weight.T)
        losses[rows], lse = cross_entropy(scores, target[rows], None, ignore_index, 0.0)
        if dx is not None and dweight is not None:
            scales = xp.full(len(scores), scale, x.dtype)
            dscores = cross_entropy_backward(scales, scores, target[rows], None, lse, ignore_index, 0.0)
            matmul(dscores, weight, out=dx[rows])
            matmul(dscores.T, x[rows], out=dweight, accumulate=True)
    return losses, dx, dweight


LOGITS = 1 << 22  # scores that exist at a time: 16 MB in float32, so that they stay in the third-level cache


# --- rows picked by number ------------------------------------------------------------------------


def scatter_rows(rows: Array, index: Array, count: int, into: Array | None = None) -> Array:
    """z[index[i]] += rows[i] into `into` or zeros: (N, C), (N) -> (count, C). Equal indices are added in order of i.

    Sorting brings equal indices together, and `reduceat` adds up each run: many times faster than
    `np.add.at`, which adds one element at a time.
    """
    xp = array_module(rows)
    z = xp.zeros((count, *rows.shape[1:]), rows.dtype) if into is None else into
    if index.size and rows.size:
        order = xp.argsort(index, kind="stable")
        ordered = index[order]
        starts = xp.flatnonzero(xp.concatenate([xp.ones(1, bool), ordered[1:] != ordered[:-1]]))
        z[ordered[starts]] += xp.add.reduceat(rows[order], starts, axis=0)
    return z


def drop_rows(x: Array, key: int, first: int, p: float, places: Array | None = None) -> Array:
    """y = x / (1 - p) where it is kept, else 0: (N, C), (N) -> (N, C).

    Row i draws from the stream first + places[i], or first + i without `places`, as in `keep_rows`: a row drops the
    same whichever others are there.
    """
    rows = len(x) if places is None else int(max(places, default=-1)) + 1
    keep = keep_rows(key, first, rows, x.shape[1], p)
    return x * (keep if places is None else keep[places]) * x.dtype.type(0 if p == 1 else 1 / (1 - p))


# --- optimisers -----------------------------------------------------------------------------------


def adamw(
    params: list[Array],
    grads: list[Array],
    exp_avgs: list[Array],
    exp_avg_sqs: list[Array],
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of AdamW: `params`, `exp_avgs` (m) and `exp_avg_sqs` (v) are overwritten.

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
        w = (1 - lr weight_decay) w - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    Shapes: the i-th array of each list (...). One temporary array of the size of each.
    """
    for param, grad, exp_avg, exp_avg_sq in zip(params, grads, exp_avgs, exp_avg_sqs):
        xp = array_module(param)
        term = xp.empty_like(param)
        xp.multiply(grad, 1 - beta1, out=term)
        exp_avg *= beta1
        exp_avg += term
        xp.multiply(grad, grad, out=term)
        term *= 1 - beta2
        exp_avg_sq *= beta2
        exp_avg_sq += term
        xp.sqrt(exp_avg_sq, out=term)
        term /= (1 - beta2**step) ** 0.5
        term += eps
        xp.divide(exp_avg, term, out=term)
        term *= lr / (1 - beta1**step)
        param *= 1 - lr * weight_decay
        param -= term


def square_sum(arrays: list[Array]) -> float:
    """The sum of the squares of all elements, in float64: squares of large float32 numbers do not overflow."""
    total = 0.0
    for array in arrays:
        xp = array_module(array)
        flat = array.reshape(-1)
        # Parts that stay in the cache while they are converted, and too short for OpenBLAS to wake its threads.
        for start in range(0, flat.size, 8192):
            part = flat[start : start + 8192].astype(xp.float64)
            total += float(part @ part)
    return total
