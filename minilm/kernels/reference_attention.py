"""Attention in NumPy, with the whole matrix of scores: the kernels of `reference` that are longest."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm.device import array_module
from minilm.kernels.packing import packed_backward_by, packed_by
from minilm.kernels.philox import keep_rows

Array = Any


def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    mask: Array | None,
    causal: bool,
    scale: float,
    p: float = 0.0,
    key: int = 0,
    row: int = 0,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """y = dropout(softmax(scale q k^T + bias)) v, row by row, and each row's log sum of e^scores.

    Shapes: q (..., T, D), k (..., S, D), v (..., S, E), bias and mask broadcast to (..., T, S)
    -> y (..., T, E), lse (..., T). Leading axes broadcast.

    Args:
        mask: boolean, False where a query must not look.
        causal: query t sees keys 0 ... t only.
        p, key, row: dropout; the weight of row r (counting all rows of all leading axes, from `row` on) and key s is
            kept where `keep_rows` says so.
        out: where y goes; it may have any strides, but does not overlap the inputs.

    A query that may look nowhere gets zeros, and minus infinity as its lse.
    """
    xp = array_module(q)
    scores, _ = _scores(q, k, bias, mask, causal, scale)
    lead = np.broadcast_shapes(scores.shape[:-2], v.shape[:-2])
    largest = scores.max(-1, keepdims=True, initial=-math.inf)
    largest = xp.where(largest == -math.inf, scores.dtype.type(0), largest)
    e = xp.exp(scores - largest)
    total = e.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):  # a row that sees nothing: the logarithm of 0
        lse = (xp.log(total) + largest)[..., 0]
    weights = e / xp.where(total == 0, total.dtype.type(1), total)
    kept = _kept(weights, lead, p, key, row)
    if kept is not None:
        weights = weights * kept
    y = xp.matmul(weights, v)
    lse = xp.broadcast_to(lse, (*lead, q.shape[-2])).copy()
    if out is None:
        return y, lse
    out[...] = y
    return out, lse


def cached_attention(q: Array, k: Array, v: Array, places: Array, bias: Array | None, scale: float) -> Array:
    """y = softmax(scale q k^T + bias) v for rows of one query each, with keys and values where others left them.

    Row n looks at position s of row places[n, s] of k and v, and at nothing there where that is negative: what goes on
    from another row, as in beam search, finds the keys of its past without a copy of them.

    Shapes: q (N, H, D), k (R, S, H, D), v (R, S, H, E), places (N, S') of S' <= S, bias (H, S') -> y (N, H, E).
    A query that may look nowhere gets zeros.
    """
    xp = array_module(q)
    positions = xp.arange(places.shape[1])
    rows = xp.maximum(places, 0)
    keys, values = k[rows, positions].transpose(0, 2, 1, 3), v[rows, positions].transpose(0, 2, 1, 3)  # (N, H, S', ...)
    added = None if bias is None else bias[None, :, None]
    y, _ = attention(q[:, :, None], keys, values, added, (places >= 0)[:, None, None], False, scale)
    return y[:, :, 0]


def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    bias: Array | None,
    mask: Array | None,
    causal: bool,
    scale: float,
    p: float = 0.0,
    key: int = 0,
    row: int = 0,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """dq, dk, dv, dbias (None without a bias), from what went in, y and lse.

    With the weights w = e^(scores - lse), o what dropout multiplies them by, and for each row the number
    a = sum_e dy_e y_e, which is sum_s (o w)_s d(o w)_s:

        dv = (o w)^T dy           dw = o (dy v^T)           dscores = w (dw - a)
        dq = scale dscores k      dk = scale dscores^T q    dbias = dscores

    Args:
        out: where dq, dk, dv go; they have the inputs' shapes and any strides.
    """
    xp = array_module(q)
    scores, blind = _scores(q, k, bias, mask, causal, scale)
    seen = xp.where(lse == -math.inf, lse.dtype.type(0), lse)[..., None]
    weights = xp.exp(scores - seen)
    if blind is not None:
        weights = xp.where(blind, weights.dtype.type(0), weights)
    lead = dy.shape[:-2]
    kept = _kept(weights, lead, p, key, row)
    seen_weights = weights if kept is None else weights * kept
    dv = _summed_to(
        xp.matmul(xp.broadcast_to(seen_weights, (*lead, *seen_weights.shape[-2:])).swapaxes(-1, -2), dy), v.shape
    )
    dweights = xp.matmul(dy, v.swapaxes(-1, -2))
    if kept is not None:
        dweights = dweights * kept
    dscores = weights * (dweights - (dy * y).sum(-1, keepdims=True))
    dbias = None if bias is None else _summed_to(dscores, bias.shape)
    dscores = dscores * q.dtype.type(scale)
    dq = _summed_to(xp.matmul(dscores, k), q.shape)
    dk = _summed_to(xp.matmul(dscores.swapaxes(-1, -2), q), k.shape)
    if out is not None:
        for to, gradient in zip(out, (dq, dk, dv)):
            to[...] = gradient
        dq, dk, dv = out
    return dq, dk, dv, dbias


def packed_attention(
    q: Array,
    k: Array,
    v: Array,
    starts: Array,
    longest: int,
    causal: bool,
    scale: float,
    p: float = 0.0,
    key: int = 0,
    row: int = 0,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """`attention` within each of B sequences, which lie one behind the other, without padding.

    Shapes: q, k (..., N, D), v (..., N, E) -> y (..., N, E), lse (..., N)

    Args:
        starts: (B + 1), integers: sequence b has the rows starts[b] ... starts[b + 1] - 1.
        longest: T, the length of the longest or more. Dropout draws as for (B, ..., T, T) weights, with padding.
        causal, scale, p, key, row, out: as in `attention`.
    Errors: ValueError for starts that do not cover the N rows, or sequences beyond T.
    """
    return packed_by(attention, q, k, v, starts, longest, causal, scale, p, key, row, out)


def packed_attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    starts: Array,
    longest: int,
    causal: bool,
    scale: float,
    p: float = 0.0,
    key: int = 0,
    row: int = 0,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array]:
    """dq, dk, dv, from what went into `packed_attention`, y and lse; `out` is where they go."""
    settings = starts, longest, causal, scale, p, key, row
    return packed_backward_by(attention_backward, dy, q, k, v, y, lse, *settings, out)


def _summed_to(x: Array, shape: tuple[int, ...]) -> Array:
    """x summed over the axes along which something of `shape` was broadcast."""
    lead = x.ndim - len(shape)
    repeated = tuple(lead + axis for axis, size in enumerate(shape) if size == 1 and x.shape[lead + axis] != 1)
    return x.sum((*range(lead), *repeated), keepdims=True).reshape(shape) if lead or repeated else x


def _scores(q: Array, k: Array, bias: Any, mask: Any, causal: bool, scale: float) -> tuple[Array, Any]:
    """scale q k^T + bias, with minus infinity where a query must not look, and where that is (None: nowhere)."""
    xp = array_module(q)
    T, S = q.shape[-2], k.shape[-2]
    scores = xp.matmul(q * q.dtype.type(scale), k.swapaxes(-1, -2))
    if bias is not None:
        scores = scores + bias
    visible = mask
    if causal:
        below = xp.tri(T, S, dtype=bool)
        visible = below if mask is None else mask & below
    if visible is None:
        return scores, None
    blind = ~visible
    return xp.where(blind, scores.dtype.type(-math.inf), scores), blind


def _kept(weights: Array, lead: tuple[int, ...], p: float, key: int, row: int) -> Any:
    """What dropout multiplies the weights (lead..., T, S) by: 0 or 1 / (1 - p); None without dropout."""
    if not p:
        return None
    T, S = weights.shape[-2:]
    kept = keep_rows(key, row, math.prod(lead) * T, S, p).reshape(*lead, T, S)
    return kept * weights.dtype.type(0.0 if p == 1 else 1 / (1 - p))
