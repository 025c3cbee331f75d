"""Elementwise kernels by Numba: activations, random numbers, and the optimisers' passes over all parameters."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from minilm.kernels import reference
from minilm.kernels.jit_compiled import compiled, flat, owned
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_numbers import (
    LANES,
    TANH_CUBE,
    TANH_SCALE,
    keep_row,
    least_kept,
    normal_share,
    normal_share_by_tanh,
    philox_block,
    row_dot,
)
from minilm.kernels.jit_numbers import erf as erf_of_one
from minilm.kernels.jit_numbers import exp as exp_of_one
from minilm.kernels.jit_numbers import sigmoid as sigmoid_of_one

Array = Any

BLOCK = 8192  # elements of a task

# A kernel takes its part of each array as a slice: LLVM makes vector instructions where an index starts at 0, and
# else wonders whether it may be negative, which in Python counts from the end.

# tanh is left to the reference: NumPy has vector instructions for it.


@compiled(lambda t: (t[::1], t[::1]))
def _exp(first: int, end: int, x: Array, y: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    x, y = x[part], y[part]
    for i in range(x.size):
        y[i] = exp_of_one(x[i])


@compiled(lambda t: (t[::1], t[::1]))
def _sigmoid(first: int, end: int, x: Array, y: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    x, y = x[part], y[part]
    for i in range(x.size):
        y[i] = sigmoid_of_one(x[i])


@compiled(lambda t: (t[::1], t[::1]))
def _erf(first: int, end: int, x: Array, y: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    x, y = x[part], y[part]
    for i in range(x.size):
        y[i] = erf_of_one(x[i])


@compiled(lambda t: (t[::1], t[::1], t[::1]))
def _relu(first: int, end: int, y: Array, x: Array, z: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    y, x, z = y[part], x[part], z[part]
    for i in range(x.size):
        z[i] = x.dtype.type(0) if x[i] <= 0 else y[i]


@compiled(lambda t: (t[::1], t[::1]))
def _gelu(first: int, end: int, x: Array, y: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    x, y = x[part], y[part]
    for i in range(x.size):
        y[i] = x[i] * normal_share(x[i], x.dtype.type)


@compiled(lambda t: (t[::1], t[::1]))
def _gelu_by_tanh(first: int, end: int, x: Array, y: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    x, y = x[part], y[part]
    for i in range(x.size):
        y[i] = x[i] * normal_share_by_tanh(x[i], x.dtype.type)


@compiled(lambda t: (t[::1], t[::1], t[::1]))
def _gelu_backward(first: int, end: int, dy: Array, x: Array, dx: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    dy, x, dx = dy[part], x[part], dx[part]
    real = x.dtype.type
    for i in range(x.size):
        slope = exp_of_one(x[i] * x[i] * real(-0.5)) * real(1 / math.sqrt(2 * math.pi))  # the normal density
        dx[i] = dy[i] * (x[i] * slope + normal_share(x[i], real))


@compiled(lambda t: (t[::1], t[::1], t[::1]))
def _gelu_by_tanh_backward(first: int, end: int, dy: Array, x: Array, dx: Array) -> None:
    part = slice(first * BLOCK, end * BLOCK)
    dy, x, dx = dy[part], x[part], dx[part]
    real = x.dtype.type
    for i in range(x.size):
        share = normal_share_by_tanh(x[i], real)
        slope = (x[i] * x[i] * real(3 * TANH_CUBE) + real(1)) * real(2 * TANH_SCALE) * share * (real(1) - share)
        dx[i] = dy[i] * (x[i] * slope + share)


@compiled(lambda t: (t[:, ::1], t[::1], t[:, ::1]))
def _add_bias_gelu(first: int, end: int, z: Array, bias: Array, y: Array) -> None:
    for i in range(first, end):
        row, out = z[i], y[i]
        for j in range(bias.size):
            x = row[j] + bias[j]
            row[j] = x
            out[j] = x * normal_share(x, z.dtype.type)


@compiled(lambda t: (t[:, ::1], t[::1], t[:, ::1]))
def _add_bias_gelu_by_tanh(first: int, end: int, z: Array, bias: Array, y: Array) -> None:
    for i in range(first, end):
        row, out = z[i], y[i]
        for j in range(bias.size):
            x = row[j] + bias[j]
            row[j] = x
            out[j] = x * normal_share_by_tanh(x, z.dtype.type)


def exp(x: Array) -> Array:
    """e^x."""
    return _by_blocks(_exp, x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), from e^-|x| so that nothing overflows."""
    return _by_blocks(_sigmoid, x)


def erf(x: Array) -> Array:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    return _by_blocks(_erf, x)


def relu(x: Array) -> Array:
    """0 where x <= 0, else x, also NaN."""
    return _by_blocks(_relu, x, x)


def relu_backward(dy: Array, y: Array) -> Array:
    """dx = 0 where y <= 0, else dy."""
    return _by_blocks(_relu, dy, y)


def gelu(x: Array, approximate: str = "none") -> Array:
    """y = x P(x), as in the reference."""
    return _by_blocks(_gelu_by_tanh if approximate == "tanh" else _gelu, x)


def gelu_backward(dy: Array, x: Array, approximate: str = "none") -> Array:
    """dx = dy (P(x) + x P'(x))."""
    return _by_blocks(_gelu_by_tanh_backward if approximate == "tanh" else _gelu_backward, dy, x)


def linear_gelu(x: Array, weight: Array, bias: Array | None, approximate: str = "none") -> tuple[Array, Array]:
    """y = gelu(z) and z = x weight^T + bias: NumPy's `@`, then one pass over its result."""
    z = reference.matmul(x, weight.T)
    y = empty(z.shape, z.dtype)
    if z.size:
        added = np.zeros(z.shape[1], z.dtype) if bias is None else owned(bias)
        (_add_bias_gelu_by_tanh if approximate == "tanh" else _add_bias_gelu)(len(z), z.size, z, added, y)
    return y, z


def _by_blocks(kernel: Any, *arrays: Array) -> Array:
    """What an elementwise kernel makes of arrays of one shape."""
    result = empty(arrays[0].shape, arrays[0].dtype)
    if result.size:
        kernel(-(-result.size // BLOCK), result.size, *map(flat, arrays), result.reshape(-1))
    return result


# --- random numbers ----------------------------------------------------------------------------------


@compiled(lambda t: (t[::1], numba.uint64, numba.uint64, numba.uint64))
def _philox(first: int, end: int, numbers: Array, key: Any, stream: Any, start: Any) -> None:
    part, start = numbers[4 * first : 4 * end], start + np.uint64(first)
    for i in range(end - first):
        c0, c1, c2, c3 = philox_block(key, stream, start + np.uint64(i))
        part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3] = c0, c1, c2, c3


@compiled(lambda t: (t[:, ::1], numba.uint64, numba.int64, numba.uint64))
def _keep_rows(first: int, end: int, kept: Array, key: Any, row: Any, least: Any) -> None:
    for i in range(first, end):
        keep_row(kept[i], key, row + i, 0, least)


def philox(key: int, stream: int, start: int, count: int) -> Array:
    """`count` random uint32: those of the blocks start, start + 1, ... of four each."""
    blocks = -(-count // 4)
    numbers = np.empty(4 * blocks, np.uint32)
    _philox(blocks, count, numbers, *(np.uint64(n & (2**64 - 1)) for n in (key, stream, start)))
    return numbers[:count]


def keep_rows(key: int, first: int, rows: int, columns: int, p: float) -> Array:
    """Which elements dropout keeps, boolean (rows, columns)."""
    kept = np.empty((rows, columns), bool)
    _keep_rows(rows, kept.size, kept, np.uint64(key & (2**64 - 1)), first, least_kept(p))
    return kept


def drop_rows(x: Array, key: int, first: int, p: float, places: Array | None = None) -> Array:
    """Dropout of rows (N, C), each from a stream of its own, as in the reference."""
    keep = keep_rows(key, first, len(x) if places is None else int(max(places, default=-1)) + 1, x.shape[1], p)
    return x * (keep if places is None else keep[places]) * x.dtype.type(0 if p == 1 else 1 / (1 - p))


# --- optimisers --------------------------------------------------------------------------------------


@compiled(lambda t: (t[::1],) * 4 + (numba.float64,) * 6)
def _adamw(
    first: int,
    end: int,
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    rate: float,
    root: float,
) -> None:
    real = param.dtype.type
    kept, b1, new1, b2, new2 = real(decay), real(beta1), real(1 - beta1), real(beta2), real(1 - beta2)
    small, step, scale = real(eps), real(rate), real(1 / root)
    part = slice(first * BLOCK, end * BLOCK)
    w, g, m, v = param[part], grad[part], exp_avg[part], exp_avg_sq[part]
    for i in range(w.size):
        m[i] = b1 * m[i] + new1 * g[i]
        v[i] = b2 * v[i] + new2 * (g[i] * g[i])
        w[i] = kept * w[i] - step * (m[i] / (np.sqrt(v[i]) * scale + small))


@compiled(lambda t: (t[::1], numba.float64[::1]))
def _square_sum(first: int, end: int, x: Array, sums: Array) -> None:
    lanes = np.empty(LANES, np.float64)
    for block in range(first, end):
        part = x[block * BLOCK : (block + 1) * BLOCK]
        sums[block] = row_dot(part, part, lanes)


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
    """One step of AdamW, in one pass over each parameter."""
    settings = lr, beta1, beta2, eps, weight_decay, step
    rate, root = lr / (1 - beta1**step), math.sqrt(1 - beta2**step)
    for param, grad, exp_avg, exp_avg_sq in zip(params, grads, exp_avgs, exp_avg_sqs):
        changed = param, exp_avg, exp_avg_sq
        if not all(a.dtype == param.dtype and a.dtype.char in "fd" and a.flags.carray for a in changed):
            reference.adamw([param], [grad], [exp_avg], [exp_avg_sq], *settings)
        elif param.size:
            g = flat(grad if grad.dtype == param.dtype else grad.astype(param.dtype))
            flats = param.reshape(-1), g, exp_avg.reshape(-1), exp_avg_sq.reshape(-1)
            decay = 1.0 - lr * weight_decay
            blocks = -(-param.size // BLOCK)
            _adamw(blocks, 4 * param.size, *flats, decay, float(beta1), float(beta2), float(eps), rate, root)


def square_sum(arrays: list[Array]) -> float:
    """The sum of the squares of all elements, in float64."""
    total = 0.0
    for array in arrays:
        if array.dtype.char not in "fd":
            total += reference.square_sum([array])
        elif array.size:
            sums = np.empty(-(-array.size // BLOCK))
            _square_sum(len(sums), array.size, flat(array), sums)
            total += float(sums.sum())
    return total
