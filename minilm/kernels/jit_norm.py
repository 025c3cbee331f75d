"""Normalisation by Numba.

A gradient that is a sum over rows is made of the sums of blocks of `ROWS` rows, each by one thread, which are then
added in order. `sum_rows` itself is left to the reference: NumPy reads x at the speed of the memory.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from minilm.kernels import reference
from minilm.kernels.jit_compiled import compiled, owned, rows
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_numbers import LANES, row_dot, row_sum

Array = Any

ROWS = 64


@compiled(lambda t: (t[:, ::1], t[::1], t[::1], numba.float64, t[:, ::1], t[::1], t[::1]))
def _layer_norm(
    first: int, end: int, x: Array, weight: Array, bias: Array, eps: float, y: Array, mean: Array, rstd: Array
) -> None:
    real = x.dtype.type
    lanes = np.empty(LANES, x.dtype)
    C = real(x.shape[1])
    for i in range(first, end):
        m = row_sum(x[i], lanes) / C
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - m
        r = real(1) / np.sqrt(row_dot(y[i], y[i], lanes) / C + real(eps))
        for j in range(x.shape[1]):
            y[i, j] = y[i, j] * r * weight[j] + bias[j]
        mean[i], rstd[i] = m, r


@compiled(lambda t: (t[:, ::1], t[:, ::1], t[::1], t[::1], t[::1], t[:, ::1], t[:, ::1], t[:, ::1]))
def _layer_norm_backward(
    first: int,
    end: int,
    dy: Array,
    x: Array,
    weight: Array,
    mean: Array,
    rstd: Array,
    dx: Array,
    dweights: Array,
    dbiases: Array,
) -> None:
    columns = x.shape[1]
    lanes, n = np.empty(LANES, x.dtype), np.empty(columns, x.dtype)
    C = x.dtype.type(columns)
    for block in range(first, end):
        dweights[block], dbiases[block] = 0, 0
        for i in range(block * ROWS, min((block + 1) * ROWS, x.shape[0])):
            for j in range(columns):
                n[j] = (x[i, j] - mean[i]) * rstd[i]
                dx[i, j] = dy[i, j] * weight[j]  # dn
            for j in range(columns):
                dweights[block, j] += dy[i, j] * n[j]
                dbiases[block, j] += dy[i, j]
            along_one, along_n = row_sum(dx[i], lanes) / C, row_dot(dx[i], n, lanes) / C
            for j in range(columns):
                dx[i, j] = (dx[i, j] - along_one - n[j] * along_n) * rstd[i]


@compiled(lambda t: (t[:, ::1], t[::1], numba.float64, t[:, ::1], t[::1]))
def _rms_norm(first: int, end: int, x: Array, weight: Array, eps: float, y: Array, rrms: Array) -> None:
    real = x.dtype.type
    lanes = np.empty(LANES, x.dtype)
    for i in range(first, end):
        r = real(1) / np.sqrt(row_dot(x[i], x[i], lanes) / real(x.shape[1]) + real(eps))
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * r * weight[j]
        rrms[i] = r


@compiled(lambda t: (t[:, ::1], t[:, ::1], t[::1], t[::1], t[:, ::1], t[:, ::1]))
def _rms_norm_backward(
    first: int, end: int, dy: Array, x: Array, weight: Array, rrms: Array, dx: Array, dweights: Array
) -> None:
    columns = x.shape[1]
    lanes, n = np.empty(LANES, x.dtype), np.empty(columns, x.dtype)
    C = x.dtype.type(columns)
    for block in range(first, end):
        dweights[block] = 0
        for i in range(block * ROWS, min((block + 1) * ROWS, x.shape[0])):
            for j in range(columns):
                n[j] = x[i, j] * rrms[i]
                dx[i, j] = dy[i, j] * weight[j]  # dn
                dweights[block, j] += dy[i, j] * n[j]
            along = row_dot(dx[i], n, lanes) / C
            for j in range(columns):
                dx[i, j] = (dx[i, j] - n[j] * along) * rrms[i]


def layer_norm(x: Array, weight: Array | None, bias: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """y = (x - mean) rstd weight + bias, mean and rstd of each row."""
    if not x.size:
        return reference.layer_norm(x, weight, bias, eps)
    y, mean, rstd = empty(x.shape, x.dtype), *(np.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    scale, shift = _or(1, weight, x), _or(0, bias, x)
    out = y.reshape(-1, x.shape[-1])
    _layer_norm(len(out), x.size, rows(x), scale, shift, float(eps), out, mean.reshape(-1), rstd.reshape(-1))
    return y, mean, rstd


def add_layer_norm(
    x: Array, residual: Array, weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, Array, Array, Array]:
    """x + residual (NumPy's sum is as fast as the memory), and its layer_norm."""
    total = np.add(x, residual, out=empty(x.shape, x.dtype))
    return (total, *layer_norm(total, weight, bias, eps))


def layer_norm_backward(
    dy: Array, x: Array, weight: Array | None, mean: Array, rstd: Array, dsum: Array | None = None
) -> tuple[Array, Array, Array]:
    """dx, dweight, dbias, as in the reference."""
    if not x.size:
        return reference.layer_norm_backward(dy, x, weight, mean, rstd, dsum)
    dx, dweights, dbiases = empty(x.shape, x.dtype), _sums(x), _sums(x)
    per_row = owned(mean).reshape(-1), owned(rstd).reshape(-1)
    out = dx.reshape(-1, x.shape[-1])
    _layer_norm_backward(len(dweights), x.size, rows(dy), rows(x), _or(1, weight, x), *per_row, out, dweights, dbiases)
    return _and(dx, dsum), dweights.sum(0), dbiases.sum(0)


def rms_norm(x: Array, weight: Array | None, eps: float) -> tuple[Array, Array]:
    """y = x rrms weight, rrms of each row."""
    if not x.size:
        return reference.rms_norm(x, weight, eps)
    y, rrms = empty(x.shape, x.dtype), np.empty((*x.shape[:-1], 1), x.dtype)
    out = y.reshape(-1, x.shape[-1])
    _rms_norm(len(out), x.size, rows(x), _or(1, weight, x), float(eps), out, rrms.reshape(-1))
    return y, rrms


def add_rms_norm(x: Array, residual: Array, weight: Array | None, eps: float) -> tuple[Array, Array, Array]:
    """x + residual, and its rms_norm."""
    total = np.add(x, residual, out=empty(x.shape, x.dtype))
    return (total, *rms_norm(total, weight, eps))


def rms_norm_backward(
    dy: Array, x: Array, weight: Array | None, rrms: Array, dsum: Array | None = None
) -> tuple[Array, Array]:
    """dx, dweight, as in the reference."""
    if not x.size:
        return reference.rms_norm_backward(dy, x, weight, rrms, dsum)
    dx, dweights = empty(x.shape, x.dtype), _sums(x)
    per_row, out = owned(rrms).reshape(-1), dx.reshape(-1, x.shape[-1])
    _rms_norm_backward(len(dweights), x.size, rows(dy), rows(x), _or(1, weight, x), per_row, out, dweights)
    return _and(dx, dsum), dweights.sum(0)


def _and(dx: Array, dsum: Array | None) -> Array:
    """dx with another gradient added, in place."""
    if dsum is not None:
        dx += dsum
    return dx


def _or(number: int, channels: Array | None, x: Array) -> Array:
    """An array (C) that may be missing: then one number everywhere, which changes nothing."""
    return np.full(x.shape[-1], number, x.dtype) if channels is None else owned(channels)


def _sums(x: Array) -> Array:
    """Where the blocks of x's rows put their sums: (blocks, C)."""
    return np.empty((-(-(x.size // x.shape[-1]) // ROWS), x.shape[-1]), x.dtype)
