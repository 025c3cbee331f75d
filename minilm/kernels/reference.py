"""Every kernel in NumPy: complete, and written to be read.

A kernel takes arrays and gives arrays. Gradients are `d` + name. `rows` below means: everything but
the last axis. Each backward is derived by hand; the tests hold it against the operation's definition.
"""

from __future__ import annotations

from typing import Any

from minilm.device import array_module

Array = Any


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
