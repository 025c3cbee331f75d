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


# --- optimisers -----------------------------------------------------------------------------------


def adamw(
    param: Array,
    grad: Array,
    exp_avg: Array,
    exp_avg_sq: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of AdamW: `param`, `exp_avg` (m) and `exp_avg_sq` (v) are overwritten.

        m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
        w = (1 - lr weight_decay) w - lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)

    Shapes: all arrays (...). One temporary array of that size.
    """
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


def square_sum(x: Array) -> float:
    """The sum of the squares of all elements, in float64: squares of large float32 numbers do not overflow."""
    xp = array_module(x)
    flat = x.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, 16384):  # a part that stays in the cache while it is converted
        part = flat[start : start + 16384].astype(xp.float64)
        total += float(part @ part)
    return total
