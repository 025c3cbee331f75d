"""Losses, and rows picked by number, by Numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from minilm.kernels import reference
from minilm.kernels.jit_compiled import compiled, owned, rows
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_numbers import LANES, exp, row_dot, row_max, row_sum, row_sum_exp

Array = Any

COLUMNS = 64  # of a task of scatter_rows


@compiled(lambda t: (t[:, ::1], numba.int64[::1], t[::1], numba.float64, numba.float64, t[::1], numba.float64[::1]))
def _cross_entropy(
    first: int,
    end: int,
    x: Array,
    target: Array,
    weight: Array,
    smoothing: float,
    total: float,
    loss: Array,
    lse: Array,
) -> None:
    """`target` is -1 where a row is ignored; `total` is the sum of the weights."""
    real = x.dtype.type
    lanes = np.empty(LANES, x.dtype)
    of_all = real(smoothing / x.shape[1])
    for i in range(first, end):
        largest = row_max(x[i], lanes)
        log_sum = np.log(row_sum_exp(x[i], largest, lanes))
        lse[i] = np.float64(log_sum) + largest
        t = target[i]
        if t < 0:
            loss[i] = 0
            continue
        loss[i] = (log_sum - (x[i, t] - largest)) * weight[t] * real(1 - smoothing)
        if smoothing:
            below = row_dot(x[i], weight, lanes) - largest * real(total)
            loss[i] += (log_sum * real(total) - below) * of_all


@compiled(
    lambda t: (
        *(t[:, ::1], t[::1], numba.int64[::1], t[::1]),
        *(numba.float64[::1], numba.float64, numba.float64, t[:, ::1]),
    )
)
def _cross_entropy_backward(
    first: int,
    end: int,
    x: Array,
    dloss: Array,
    target: Array,
    weight: Array,
    lse: Array,
    smoothing: float,
    total: float,
    dx: Array,
) -> None:
    real = x.dtype.type
    for i in range(first, end):
        t = target[i]
        of_target = of_all = real(0)
        if t >= 0:
            of_target = dloss[i] * real(1 - smoothing) * weight[t]
            of_all = dloss[i] * real(smoothing / x.shape[1])
        factor = of_target + of_all * real(total)
        high = real(lse[i])
        low = real(lse[i] - high)
        for j in range(x.shape[1]):
            dx[i, j] = exp((x[i, j] - high) - low) * factor
        dx[i, t if t >= 0 else 0] -= of_target
        if smoothing:
            for j in range(x.shape[1]):
                dx[i, j] -= of_all * weight[j]


@compiled(lambda t: (t[:, ::1], numba.int64[::1], numba.float64, t[::1]))
def _losses_and_gradients(first: int, end: int, x: Array, target: Array, scale: float, loss: Array) -> None:
    """The losses of rows of scores, over which their gradients are written."""
    real = x.dtype.type
    lanes = np.empty(LANES, x.dtype)
    for i in range(first, end):
        t = target[i]
        if t < 0:
            loss[i] = 0
            x[i] = 0
            continue
        largest, of_target = row_max(x[i], lanes), x[i, t]
        for j in range(x.shape[1]):
            x[i, j] = exp(x[i, j] - largest)
        total = row_sum(x[i], lanes)
        loss[i] = np.log(total) - (of_target - largest)
        factor = real(scale) / total
        for j in range(x.shape[1]):
            x[i, j] *= factor
        x[i, t] -= real(scale)


def cross_entropy(
    x: Array, target: Array, weight: Array | None, ignore_index: int, label_smoothing: float
) -> tuple[Array, Array]:
    """The loss of each row and its log sum of e^x, as in the reference."""
    if not x.size:
        return reference.cross_entropy(x, target, weight, ignore_index, label_smoothing)
    loss, lse = np.empty(len(x), x.dtype), np.empty(len(x), np.float64)
    at, weights, total = _classes(target, ignore_index, x.shape[1]), *_weights(weight, x)
    _cross_entropy(len(x), x.size, rows(x), at, weights, float(label_smoothing), total, loss, lse)
    return loss, lse


def cross_entropy_backward(
    dloss: Array, x: Array, target: Array, weight: Array | None, lse: Array, ignore_index: int, label_smoothing: float
) -> Array:
    """dx, as in the reference."""
    if not x.size:
        return reference.cross_entropy_backward(dloss, x, target, weight, lse, ignore_index, label_smoothing)
    dx = empty(x.shape, x.dtype)
    at, weights, total = _classes(target, ignore_index, x.shape[1]), *_weights(weight, x)
    per_row = owned(dloss.astype(x.dtype, copy=False)), at, weights, owned(lse.astype(np.float64, copy=False))
    _cross_entropy_backward(len(x), x.size, rows(x), *per_row, float(label_smoothing), total, dx)
    return dx


def linear_cross_entropy(
    x: Array, weight: Array, target: Array, ignore_index: int, scale: float | None
) -> tuple[Array, Array | None, Array | None]:
    """The losses of rows of scores x weight^T and, unless scale is None, dx and dweight: block by block.

    NumPy's `@` makes a block of scores, and one pass turns it into its gradients.
    """
    N, V = x.shape[0], weight.shape[0]
    if not N or not V:
        return reference.linear_cross_entropy(x, weight, target, ignore_index, scale)
    losses, at = np.empty(N, x.dtype), _classes(target, ignore_index, V)
    dx = None if scale is None else empty(x.shape, x.dtype)
    dweight = None if scale is None else np.zeros(weight.shape, weight.dtype)
    block = max(1, reference.LOGITS // V)
    for start in range(0, N, block):
        part = slice(start, start + block)
        scores = reference.matmul(x[part], weight.T)
        if dx is None:
            losses[part], _ = cross_entropy(scores, target[part], None, ignore_index, 0.0)
            continue
        _losses_and_gradients(len(scores), scores.size, scores, at[part], float(scale or 0), losses[part])
        reference.matmul(scores, weight, out=dx[part])
        reference.matmul(scores.T, x[part], out=dweight, accumulate=True)
    return losses, dx, dweight


def _classes(target: Array, ignore_index: int, V: int) -> Array:
    """The targets as Numba's kernels want them, -1 where a row is ignored. Errors: IndexError."""
    at = np.where(target == ignore_index, -1, target % V).astype(np.int64)
    wrong = (target != ignore_index) & ((target < -V) | (target >= V))
    if wrong.any():  # compiled code would read beyond the row
        raise IndexError(f"cross_entropy: class {target[wrong][0]} is out of bounds for {V} classes")
    return at


def _weights(weight: Array | None, x: Array) -> tuple[Array, float]:
    """What each class counts, and all together."""
    if weight is None:
        return np.ones(x.shape[1], x.dtype), float(x.shape[1])
    return owned(weight.astype(x.dtype, copy=False)), float(weight.sum())


# --- rows picked by number ---------------------------------------------------------------------------


@compiled(lambda t: (t[:, ::1], numba.int64[::1], t[:, ::1]))
def _scatter_rows(first: int, end: int, x: Array, index: Array, z: Array) -> None:
    """A task is `COLUMNS` columns of all rows: no two threads add to the same element."""
    columns = slice(first * COLUMNS, end * COLUMNS)
    for i in range(x.shape[0]):
        added, to = x[i, columns], z[index[i], columns]
        for j in range(added.size):
            to[j] += added[j]


def scatter_rows(rows: Array, index: Array, count: int, into: Array | None = None) -> Array:
    """z[index[i]] += rows[i] into `into` or zeros: (N, C), (N) -> (count, C). Equal indices are added in order of i."""
    ready = into is None or (into.flags.c_contiguous and into.dtype == rows.dtype)
    if not rows.size or index.min() < 0 or index.max() >= count or not ready:
        return reference.scatter_rows(rows, index, count, into)
    z = np.zeros((count, *rows.shape[1:]), rows.dtype) if into is None else into
    x, to = owned(rows).reshape(len(rows), -1), z.reshape(count, -1)
    _scatter_rows(-(-x.shape[1] // COLUMNS), x.size, x, owned(index.astype(np.int64, copy=False)), to)
    return z
