"""Kernels compiled by Numba, for machines without a C compiler.

The loops are those of csrc/, written in Python; Numba turns them into machine code for float32 or float64
(jit_compiled.py says how and when). Products of matrices are NumPy's `@`, by OpenBLAS.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.kernels import reference
from minilm.kernels.jit_attention import (
    attention,
    attention_backward,
    packed_attention,
    packed_attention_backward,
)
from minilm.kernels.jit_compiled import compiled, owned, rows
from minilm.kernels.jit_loss import cross_entropy, cross_entropy_backward, linear_cross_entropy, scatter_rows
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_norm import (
    add_layer_norm,
    add_rms_norm,
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from minilm.kernels.jit_numbers import LANES, row_dot, row_max, row_sum, row_sum_exp
from minilm.kernels.jit_numbers import exp as exp_of_one
from minilm.kernels.jit_pointwise import (
    adamw,
    drop_rows,
    erf,
    exp,
    gelu,
    gelu_backward,
    keep_rows,
    linear_gelu,
    philox,
    relu,
    relu_backward,
    sigmoid,
    square_sum,
)
from minilm.kernels.jit_recurrent import gru_layer, gru_layer_backward, lstm_layer, lstm_layer_backward

Array = Any

__all__ = [
    "adamw",
    "add_layer_norm",
    "add_rms_norm",
    "attention",
    "attention_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "drop_rows",
    "erf",
    "exp",
    "gelu",
    "gelu_backward",
    "gru_layer",
    "gru_layer_backward",
    "keep_rows",
    "layer_norm",
    "layer_norm_backward",
    "linear_cross_entropy",
    "linear_gelu",
    "lstm_layer",
    "lstm_layer_backward",
    "packed_attention",
    "packed_attention_backward",
    "philox",
    "relu",
    "relu_backward",
    "rms_norm",
    "rms_norm_backward",
    "scatter_rows",
    "sigmoid",
    "square_sum",
]  # kernels that have a file of their own


# --- products of matrices ---------------------------------------------------------------------------


@compiled(lambda t: (t[:, :, ::1], t[:, :, ::1], t[:, :, ::1]))
def _matmul(first: int, end: int, a: Array, b: Array, out: Array) -> None:
    """out (G, N, M) += a (G, N, K) times b (G, K, M), for the rows first ... end - 1 of all G N.

    The order i, k, j makes the innermost loop walk along rows of b and out, neighbours in memory, so
    that the compiler can compute several j at once.
    """
    for row in range(first, end):
        g, i = row // out.shape[1], row % out.shape[1]
        for k in range(a.shape[2]):
            factor = a[g, i, k]
            for j in range(out.shape[2]):
                out[g, i, j] += factor * b[g, k, j]


def matmul_loops(a: Array, b: Array) -> Array:
    """a (..., N, K) times b (..., K, M) by the compiled loops above: the shortest matmul worth reading."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    product = np.zeros((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    out = product.reshape(-1, *product.shape[-2:])
    _matmul(out.shape[0] * out.shape[1], out.size * a.shape[-1], _grouped(a, lead), _grouped(b, lead), out)
    return product


def matmul(a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
    """a (..., N, K) times b (..., K, M) by NumPy's `@`.

    Not by `matmul_loops`: OpenBLAS cuts the matrices into blocks that fit the caches and the registers,
    and was 2.2 times as fast even on 48 products of (64, 32) by (32, 64), where it does so least.
    """
    return reference.matmul(a, b, out, accumulate)


def _grouped(x: Array, lead: tuple[int, ...]) -> Array:
    """x broadcast to the leading axes, which become one."""
    return owned(np.broadcast_to(x, (*lead, *x.shape[-2:]))).reshape(-1, *x.shape[-2:])


# --- softmax ----------------------------------------------------------------------------------------


@compiled(lambda t: (t[:, ::1], t[:, ::1]))
def _softmax(first: int, end: int, x: Array, y: Array) -> None:
    lanes = np.empty(LANES, x.dtype)
    for i in range(first, end):
        largest = row_max(x[i], lanes)
        for j in range(x.shape[1]):
            y[i, j] = exp_of_one(x[i, j] - largest)
        scale = x.dtype.type(1) / row_sum(y[i], lanes)
        for j in range(x.shape[1]):
            y[i, j] *= scale


@compiled(lambda t: (t[:, ::1], t[:, ::1], t[:, ::1]))
def _softmax_backward(first: int, end: int, dy: Array, y: Array, dx: Array) -> None:
    lanes = np.empty(LANES, y.dtype)
    for i in range(first, end):
        along = row_dot(dy[i], y[i], lanes)
        for j in range(y.shape[1]):
            dx[i, j] = y[i, j] * (dy[i, j] - along)


@compiled(lambda t: (t[:, ::1], t[:, ::1]))
def _log_softmax(first: int, end: int, x: Array, y: Array) -> None:
    lanes = np.empty(LANES, x.dtype)
    for i in range(first, end):
        largest = row_max(x[i], lanes)
        log_sum = np.log(row_sum_exp(x[i], largest, lanes))
        for j in range(x.shape[1]):
            y[i, j] = (x[i, j] - largest) - log_sum


@compiled(lambda t: (t[:, ::1], t[:, ::1], t[:, ::1]))
def _log_softmax_backward(first: int, end: int, dy: Array, y: Array, dx: Array) -> None:
    lanes = np.empty(LANES, y.dtype)
    for i in range(first, end):
        total = row_sum(dy[i], lanes)
        for j in range(y.shape[1]):
            dx[i, j] = dy[i, j] - exp_of_one(y[i, j]) * total


def softmax(x: Array) -> Array:
    """e^x / sum e^x over the last axis."""
    return _by_rows(_softmax, x)


def softmax_backward(dy: Array, y: Array) -> Array:
    """y (dy - sum dy y), row by row."""
    return _by_rows(_softmax_backward, dy, y)


def log_softmax(x: Array) -> Array:
    """x - log sum e^x over the last axis."""
    return _by_rows(_log_softmax, x)


def log_softmax_backward(dy: Array, y: Array) -> Array:
    """dy - e^y sum dy, row by row."""
    return _by_rows(_log_softmax_backward, dy, y)


def _by_rows(kernel: Any, *arrays: Array) -> Array:
    """What a kernel of rows makes of arrays of one shape."""
    result = empty(arrays[0].shape, arrays[0].dtype)
    if result.size:
        out = result.reshape(-1, result.shape[-1])
        kernel(len(out), out.size, *map(rows, arrays), out)
    return result
