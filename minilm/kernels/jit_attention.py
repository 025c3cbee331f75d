"""Attention by Numba, 16 queries by 256 keys at a time, so that the matrix of scores never exists whole.

The forward keeps for each query the largest score that it has seen, and takes what it summed before down to it when
a larger one comes (the online softmax). The backward makes the tiles of scores anew, from each query's lse.

A row of a tile is a query, so that what is done with a row is a loop over one array: what the compiler puts before a
loop over two, to see whether they overlap, costs as much as 50 of its steps. The products go straight from and to the
arrays of the caller, by `multiply`; only keys (and in the backward values) are transposed for it.

Source: Milakov & Gimelshein 2018 for the online softmax; Dao et al. 2022, algorithms 1 and 4, for the tiles.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np
from numba.core.types import Array as ArrayType

from minilm.kernels import reference
from minilm.kernels.jit_compiled import compiled, inlined
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_multiply import LINE, largest_in, lined, multiply, sum_of
from minilm.kernels.jit_numbers import LANES, exp, keep_row, least_kept, row_dot
from minilm.kernels.packing import packed_backward_by, packed_by

Array = Any

# A tile of scores. Half of the tiles on the diagonal of causal attention is for nothing, so few queries; a tile of
# (64, 256) scores and its keys also leave the first cache.
QUERIES, KEYS = 16, 256


def _strided(element: Any, ndim: int = 4) -> Any:
    """The type of an array that is only read, of any strides: broadcast ones too."""
    return ArrayType(element, ndim, "A", readonly=True)


@inlined
def _transpose(x: Array, start: int, count: int, scale: Any, across: Array) -> None:
    """across (C, count) = scale times the rows start, start + 1, ... of x (N, C)."""
    for i in range(count):
        for j in range(x.shape[1]):
            across[j, i] = x[start + i, j] * scale


@inlined
def _attach(row: Array, bias: Array, has_bias: bool, mask: Array, has_mask: bool) -> None:
    """Add the bias to a row of scores; minus infinity where the mask forbids to look."""
    if has_bias:
        for j in range(bias.shape[0]):
            row[j] += bias[j]
    if has_mask:
        for j in range(mask.shape[0]):
            if not mask[j]:
                row[j] = -np.inf


@compiled(
    lambda t: (
        *(_strided(t),) * 4,  # q, k, v, bias
        _strided(numba.boolean),
        *(numba.boolean,) * 3,
        numba.float64,
        numba.float64,
        *(numba.uint64,) * 3,
        t[:, :, :, :],
        t[:, :, ::1],
    )
)
def _attention(
    first: int,
    end: int,
    q: Array,
    k: Array,
    v: Array,
    bias: Array,
    mask: Array,
    has_bias: bool,
    has_mask: bool,
    causal: bool,
    scale: float,
    rescale: float,
    key: Any,
    row: Any,
    least: Any,
    y: Array,
    lse: Array,
) -> None:
    """A task is one tile of queries of one head. `rescale` is what dropout multiplies by, 1 without dropout."""
    real = q.dtype.type
    heads, T, D = q.shape[1:]
    S, E = v.shape[2:]
    tiles = (T + QUERIES - 1) // QUERIES
    across = np.zeros((D, lined(S, q.itemsize) + LINE // q.itemsize), q.dtype)
    scores = np.zeros((QUERIES, KEYS), q.dtype)
    largest, total = np.zeros(QUERIES, q.dtype), np.zeros(QUERIES, q.dtype)
    kept = np.zeros(KEYS, np.bool_)
    head = -1
    for task in range(first, end):
        b, h, t = task // tiles // heads, task // tiles % heads, task % tiles * QUERIES
        if head != task // tiles:
            head = task // tiles
            _transpose(k[b, h], 0, S, real(scale), across)
        rows = min(QUERIES, T - t)
        sums = y[b, h, t : t + rows]
        largest[:] = -np.inf
        total[:] = 0
        limit = min(S, t + rows) if causal else S
        for s in range(0, limit, KEYS):
            count = min(KEYS, limit - s)
            multiply(q[b, h, t : t + rows], across[:, s:], scores, count, True)
            for i in range(rows):
                seen = max(min(count, t + i + 1 - s), 0) if causal else count
                of_row = scores[i, : lined(count, q.itemsize)]
                if has_bias or has_mask:
                    _attach(
                        of_row, bias[b, h, t + i, s : s + count], has_bias, mask[b, h, t + i, s : s + count], has_mask
                    )
                of_row[seen:] = -np.inf
                before = largest[i]
                level = max(before, largest_in(of_row))
                largest[i] = level
                if level == -np.inf:
                    level = real(0)
                for j in range(of_row.shape[0]):
                    of_row[j] = exp(of_row[j] - level)
                shrink = exp(before - level)
                total[i] = total[i] * shrink + sum_of(of_row)
                if s:
                    for j in range(E):
                        sums[i, j] *= shrink
                if rescale != 1:
                    keep_row(kept, key, row + np.uint64((b * heads + h) * T + t + i), s, least)
                    for j in range(count):
                        of_row[j] *= real(rescale) if kept[j] else real(0)
            multiply(scores[:rows, :count], v[b, h, s:], sums, E, s == 0)
        for i in range(rows):
            scale_down = real(1) / (real(1) if total[i] == 0 else total[i])
            for j in range(E):
                sums[i, j] *= scale_down
            lse[b, h, t + i] = np.log(total[i]) + (real(0) if largest[i] == -np.inf else largest[i])


@inlined
def _differentiate_row(row: Array, drow: Array, along: Any, level: Any) -> None:
    """Scores become weights, and the gradients of those the gradients of the scores."""
    for j in range(row.shape[0]):
        row[j] = exp(row[j] - level)
        drow[j] = row[j] * (drow[j] - along)


@inlined
def _drop(row: Array, kept: Array, rescale: Any) -> None:
    """What dropout makes of a row of weights, or of gradients of what it made."""
    real = row.dtype.type
    for j in range(row.shape[0]):
        row[j] *= rescale if kept[j] else real(0)


@compiled(
    lambda t: (
        *(_strided(t),) * 5,  # dy, q, k, v, y
        _strided(t, 3),  # lse
        _strided(t),  # bias
        _strided(numba.boolean),
        *(numba.boolean,) * 3,
        numba.float64,
        numba.float64,
        *(numba.uint64,) * 3,
        *(t[:, :, :, :],) * 3,
        t[:, :, :, ::1],
    )
)
def _attention_backward(
    first: int,
    end: int,
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    bias: Array,
    mask: Array,
    has_bias: bool,
    has_mask: bool,
    causal: bool,
    scale: float,
    rescale: float,
    key: Any,
    row: Any,
    least: Any,
    dq: Array,
    dk: Array,
    dv: Array,
    dbias: Array,
) -> None:
    """A task is one head: for each tile of keys, all tiles of queries that see it."""
    real = q.dtype.type
    heads, T, D = q.shape[1:]
    S, E = v.shape[2:]
    wide = lined(KEYS, q.itemsize) + LINE // q.itemsize
    keys, values = np.zeros((D, wide), q.dtype), np.zeros((E, wide), q.dtype)
    weights, dscores = np.zeros((QUERIES, KEYS), q.dtype), np.zeros((QUERIES, KEYS), q.dtype)
    along, lanes = np.zeros(T, q.dtype), np.empty(LANES, q.dtype)
    kept = np.ones(KEYS, np.bool_)
    for task in range(first, end):
        b, h = task // heads, task % heads
        for t in range(T):
            along[t] = row_dot(dy[b, h, t], y[b, h, t], lanes)
        for s in range(0, S, KEYS):
            columns = min(KEYS, S - s)
            _transpose(k[b, h], s, columns, real(scale), keys)
            _transpose(v[b, h], s, columns, real(1), values)
            dkeys, dvalues = dk[b, h, s : s + columns], dv[b, h, s : s + columns]
            dkeys[:] = 0
            dvalues[:] = 0
            for t in range(s if causal else 0, T, QUERIES):
                rows = min(QUERIES, T - t)
                seen = min(columns, t + rows - s) if causal else columns  # the keys behind them no query here may see
                queries, dys = q[b, h, t : t + rows], dy[b, h, t : t + rows]
                multiply(queries, keys, weights, seen, True)
                multiply(dys, values, dscores, seen, True)  # dweights
                for i in range(rows):
                    of_row, drow = weights[i, :seen], dscores[i, :seen]
                    if has_bias or has_mask:
                        of_keys = slice(s, s + seen)
                        _attach(of_row, bias[b, h, t + i, of_keys], has_bias, mask[b, h, t + i, of_keys], has_mask)
                    if causal:
                        of_row[t + i + 1 - s :] = -np.inf
                    if rescale != 1:
                        keep_row(kept, key, row + np.uint64((b * heads + h) * T + t + i), s, least)
                        _drop(drow, kept, real(rescale))
                    level = lse[b, h, t + i]
                    _differentiate_row(of_row, drow, along[t + i], real(0) if level == -np.inf else level)
                    if has_bias:
                        for j in range(seen):
                            dbias[b, h, t + i, s + j] = drow[j]
                    if rescale != 1:
                        _drop(of_row, kept, real(rescale))
                multiply(weights[:rows, :seen].T, dys, dvalues, E, False)
                multiply(dscores[:rows, :seen].T, queries, dkeys, D, False)
                multiply(dscores[:rows, :seen], k[b, h, s:], dq[b, h, t : t + rows], D, s == 0)
            for i in range(columns):
                for j in range(D):
                    dkeys[i, j] *= real(scale)
        for t in range(T):
            for j in range(D):
                dq[b, h, t, j] *= real(scale)


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
    """y = dropout(softmax(scale q k^T + bias)) v and each row's log sum of e^scores, as in the reference."""
    T, E = q.shape[-2], v.shape[-1]
    leads = {x.shape[:-2] for x in (q, k, v, bias, mask) if x is not None}
    lead = leads.pop() if len(leads) == 1 else np.broadcast_shapes(*leads)
    if not math.prod(lead) * T * E * k.shape[-2]:
        return reference.attention(q, k, v, bias, mask, causal, scale, p, key, row, out)
    y = empty((*lead, T, E), q.dtype) if out is None else out
    lse = np.empty((*lead, T), q.dtype)
    to, inputs = _heads(_whole_lines(y)), [_heads(_broadcast(_whole_lines(x), lead)) for x in (q, k, v)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key, row)
    _attention(-(-T // QUERIES) * math.prod(lead), lse.size * k.shape[-2], *inputs, *settings, to, _heads(lse, 1))
    if not np.may_share_memory(to, y):
        y[...] = to[..., :E].reshape(y.shape)
    return y, lse


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
    """dq, dk, dv, dbias (None without a bias), as in the reference; dbias is made for each head, then summed."""
    T, S, lead = q.shape[-2], k.shape[-2], dy.shape[:-2]
    if not dy.size * q.size * k.size:
        return reference.attention_backward(dy, q, k, v, y, lse, bias, mask, causal, scale, p, key, row, out)
    given = out or (None, None, None)
    wholes = [_whole(x, lead, to) for x, to in zip((q, k, v), given)]
    results = [_heads(_whole_lines(whole)) for whole in wholes]
    dbias = np.zeros((*lead, T, S) if bias is not None else (1,) * 4, q.dtype)
    inputs = [_heads(_broadcast(_whole_lines(x), lead)) for x in (dy, q, k, v, y)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key, row)
    _attention_backward(math.prod(lead), lse.size * S, *inputs, _heads(lse, 1), *settings, *results, _heads(dbias))
    gradients = []
    for x, whole, result, to in zip((q, k, v), wholes, results, given):
        gradient = _sum_to(result[..., : x.shape[-1]].reshape(whole.shape), x.shape)
        if to is not None and not np.may_share_memory(gradient, to):
            to[...] = gradient
        gradients.append(gradient if to is None else to)
    dq, dk, dv = gradients
    return dq, dk, dv, None if bias is None else _sum_to(dbias, bias.shape)


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
    """`attention` within each of the sequences that lie one behind the other, as in the reference; padded for it."""
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
    """dq, dk, dv, as in the reference; padded for `attention_backward`."""
    settings = starts, longest, causal, scale, p, key, row
    return packed_backward_by(attention_backward, dy, q, k, v, y, lse, *settings, out)


def _settings(
    bias: Array | None,
    mask: Array | None,
    lead: tuple[int, ...],
    q: Array,
    k: Array,
    causal: bool,
    scale: float,
    p: float,
    key: int,
    row: int,
) -> tuple[Any, ...]:
    """What the kernels take between the arrays: bias and mask for each head, and the numbers."""
    size = q.shape[-2], k.shape[-2]
    biases, masks = (
        _nothing(lead, t) if x is None else _broadcast(x, lead, size) for x, t in ((bias, q.dtype), (mask, bool))
    )
    biases = biases.astype(q.dtype, copy=False)
    rescale = 0.0 if p == 1 else 1 / (1 - p)
    flags = bias is not None, mask is not None, bool(causal)
    drawn = *(np.uint64(number & (2**64 - 1)) for number in (key, row)), least_kept(p)
    return _heads(biases), _heads(masks), *flags, float(scale), rescale, *drawn


def _heads(x: Array, own: int = 2) -> Array:
    """The leading axes as two, (..., H, T, D) -> (B, H, T, D): a view unless more than two have odd strides.

    Args:
        own: the number of axes that are not leading ones.
    """
    lead = (1, 1, *x.shape[: x.ndim - own])
    return x.reshape(math.prod(lead[:-1]), lead[-1], *x.shape[x.ndim - own :])


def _whole_lines(x: Array) -> Array:
    """x (..., C), or a copy with zeros behind, so that `multiply` finds whole lines of elements side by side."""
    size = lined.py_func(x.shape[-1], x.itemsize)
    if size == x.shape[-1] and x.strides[-1] == x.itemsize:
        return x
    copy = np.zeros((*x.shape[:-1], size), x.dtype)
    copy[..., : x.shape[-1]] = x
    return copy


def _broadcast(x: Array, lead: tuple[int, ...], own: tuple[int, ...] | None = None) -> Array:
    shape = (*lead, *(x.shape[-2:] if own is None else own))
    return x if x.shape == shape else np.broadcast_to(x, shape)


@functools.lru_cache(maxsize=64)
def _nothing(lead: tuple[int, ...], dtype: Any) -> Array:
    """What stands for a bias or mask that is not there."""
    return np.broadcast_to(np.zeros((1, 1), dtype), (*lead, 1, 1))


def _whole(x: Array, lead: tuple[int, ...], to: Array | None) -> Array:
    """Where the gradient of x goes, with all leading axes: `to` itself if it has them."""
    shape = (*lead, *x.shape[-2:])
    return to if to is not None and to.shape == shape else empty(shape, x.dtype)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which `shape` was broadcast."""
    more = x.ndim - len(shape)
    axes = *range(more), *(more + i for i, n in enumerate(shape) if n != x.shape[more + i])
    return x.sum(axes, keepdims=True).reshape(shape) if axes else x
