"""Kernels compiled by Numba, for machines without a C compiler.

The loops are those of csrc/, written in Python; Numba turns them into machine code for float32 and
float64 and keeps it on disk. No fastmath (it may reorder sums and assume that NaN does not occur) and
no reduction across threads: each row is summed by one thread, from left to right.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from minilm.kernels import reference, threads

Array = Any

# Numba is loaded when first used, which may be after the number of threads was chosen.
numba.set_num_threads(min(threads.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

_F32, _F64 = numba.float32, numba.float64


# Below this many elements waking the other threads takes longer than the work; on a busy machine far longer.
_WORTH_SHARING = 1 << 16


def _compiled(*signatures: Any) -> Callable[[Any], Any]:
    """Compile for exactly these signatures, twice: for all threads, and for one where the last array is small."""

    def decorate(function: Any) -> Any:
        shared, alone = (_on_disk(function, list(signatures), parallel) for parallel in (True, False))

        @functools.wraps(function)
        def run(*arrays: Array) -> None:
            (shared if arrays[-1].size > _WORTH_SHARING else alone)(*arrays)

        return run

    return decorate


def _on_disk(function: Any, signatures: list[Any], parallel: bool) -> Any:
    """Compiled, and kept on disk where a cache folder can be written."""
    # Numba keeps one file for each function's name and place: the two ways need names of their own.
    copy = types.FunctionType(function.__code__, function.__globals__, f"{function.__name__}_{parallel}")
    copy.__qualname__, copy.__module__ = copy.__name__, function.__module__
    try:
        return numba.njit(signatures, cache=True, parallel=parallel)(copy)
    except RuntimeError as error:
        if "cache" not in str(error):
            raise
        return numba.njit(signatures, parallel=parallel)(copy)


@_compiled(*(numba.void(t[:, :, ::1], t[:, :, ::1], t[:, :, ::1]) for t in (_F32, _F64)))
def _matmul(a: Array, b: Array, out: Array) -> None:
    """out (G, N, M) += a (G, N, K) times b (G, K, M).

    The order i, k, j makes the innermost loop walk along rows of b and out, neighbours in memory, so
    that the compiler can compute several j at once. Each thread takes whole rows of out.
    """
    groups, n, m = out.shape
    for row in numba.prange(groups * n):
        g, i = row // n, row % n
        for k in range(a.shape[2]):
            factor = a[g, i, k]
            for j in range(m):
                out[g, i, j] += factor * b[g, k, j]


@_compiled(*(numba.void(t[:, ::1], t[:, ::1]) for t in (_F32, _F64)))
def _softmax(x: Array, y: Array) -> None:
    rows, columns = x.shape
    for i in numba.prange(rows):
        largest = x[i, 0]
        for j in range(1, columns):
            # a NaN must win, as in NumPy's max: every comparison with it is false
            if not x[i, j] <= largest:
                largest = x[i, j]
        y[i, 0] = total = np.exp(x[i, 0] - largest)
        for j in range(1, columns):
            y[i, j] = np.exp(x[i, j] - largest)
            total += y[i, j]
        for j in range(columns):
            y[i, j] /= total


@_compiled(*(numba.void(t[:, ::1], t[:, ::1], t[:, ::1]) for t in (_F32, _F64)))
def _softmax_backward(dy: Array, y: Array, dx: Array) -> None:
    rows, columns = y.shape
    for i in numba.prange(rows):
        along = dy[i, 0] * y[i, 0]
        for j in range(1, columns):
            along += dy[i, j] * y[i, j]
        for j in range(columns):
            dx[i, j] = y[i, j] * (dy[i, j] - along)


def matmul_loops(a: Array, b: Array) -> Array:
    """a (..., N, K) times b (..., K, M) by the compiled loops above: the shortest matmul worth reading."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    product = np.zeros((*lead, a.shape[-2], b.shape[-1]), a.dtype)
    _matmul(_grouped(a, lead), _grouped(b, lead), product.reshape(-1, *product.shape[-2:]))
    return product


def matmul(a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
    """a (..., N, K) times b (..., K, M) by NumPy's `@`.

    Not by `matmul_loops`: OpenBLAS cuts the matrices into blocks that fit the caches and the registers,
    and was 2.2 times as fast even on 48 products of (64, 32) by (32, 64), where it does so least.
    """
    return reference.matmul(a, b, out, accumulate)


def softmax(x: Array) -> Array:
    """e^x / sum e^x over the last axis."""
    if x.size == 0:
        return x.copy()
    y = np.empty(x.shape, x.dtype)
    _softmax(_rows(x), y.reshape(-1, x.shape[-1]))
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """y (dy - sum dy y), row by row."""
    if y.size == 0:
        return y.copy()
    dx = np.empty(y.shape, y.dtype)
    _softmax_backward(_rows(dy), _rows(y), dx.reshape(-1, y.shape[-1]))
    return dx


def _rows(x: Array) -> Array:
    """x as a matrix of rows, elements side by side; writable only in name, for Numba's one signature."""
    return _owned(x).reshape(-1, x.shape[-1])


def _grouped(x: Array, lead: tuple[int, ...]) -> Array:
    """x broadcast to the leading axes, which become one."""
    return _owned(np.broadcast_to(x, (*lead, *x.shape[-2:]))).reshape(-1, *x.shape[-2:])


def _owned(x: Array) -> Array:
    """x itself where it is contiguous, aligned and writable (Numba's types tell these apart), else a copy."""
    return x if x.flags.carray else np.array(x, order="C", copy=True)
