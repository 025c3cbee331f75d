"""Attention by Numba: `TILE` queries and `TILE` keys at a time, so that the matrix of scores never exists whole.

The forward keeps for each query the largest score that it has seen, and takes what it summed before down to it when
a larger one comes (the online softmax). The backward makes the tiles of scores anew, from each query's lse.

Tiles are copied to where their elements lie side by side, whatever the strides of the arrays, with zeros behind
them so that the products need no exceptions for sizes that are no multiple of four. The products are compiled loops:
on tiles of this size they were as fast as NumPy's `@` (65 to 80 GFLOP/s on one thread), whose sums may depend on
the number of threads.

Source: Milakov & Gimelshein 2018 for the online softmax; Dao et al. 2022, algorithms 1 and 4, for the tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.core.types import Array as ArrayType

from minilm.kernels import reference
from minilm.kernels.jit_compiled import compiled, inlined
from minilm.kernels.jit_numbers import LANES, exp, keep_row, least_kept, row_max, row_sum

Array = Any

TILE = 64


def _strided(element: Any, ndim: int = 4) -> Any:
    """The type of an array that is only read, of any strides: broadcast ones too."""
    return ArrayType(element, ndim, "A", readonly=True)


@inlined
def _multiply(a: Array, b: Array, out: Array, rows: int) -> None:
    """out (N, M) += a (N, K) b (K, M) for the first `rows` rows; N even, K a multiple of four.

    Two rows and four k at a time: each number that is loaded is used several times.
    """
    for i in range(0, rows, 2):
        one, two, out_one, out_two = a[i], a[i + 1], out[i], out[i + 1]
        for k in range(0, a.shape[1], 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p0, p1, p2, p3 = one[k], one[k + 1], one[k + 2], one[k + 3]
            q0, q1, q2, q3 = two[k], two[k + 1], two[k + 2], two[k + 3]
            for j in range(out.shape[1]):
                out_one[j] += (p0 * b0[j] + p1 * b1[j]) + (p2 * b2[j] + p3 * b3[j])
                out_two[j] += (q0 * b0[j] + q1 * b1[j]) + (q2 * b2[j] + q3 * b3[j])


@inlined
def _copy(x: Array, start: int, scale: Any, tile: Array) -> None:
    """scale times the rows start, start + 1, ... of x, zeros behind them."""
    tile[:] = 0
    for i in range(min(TILE, x.shape[0] - start)):
        for j in range(x.shape[1]):
            tile[i, j] = x[start + i, j] * scale


@inlined
def _transpose(tile: Array, transposed: Array) -> None:
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            transposed[j, i] = tile[i, j]


@inlined
def _finish_scores(
    scores: Array,
    t: int,
    s: int,
    bias: Array,
    has_bias: bool,
    mask: Array,
    has_mask: bool,
    causal: bool,
    T: int,
    S: int,
) -> None:
    """Add the bias to the scores of queries t, t + 1 ... and keys s, s + 1 ...; minus infinity where none may look."""
    rows, columns = min(TILE, T - t), min(TILE, S - s)
    for i in range(rows):
        if has_bias:
            for j in range(columns):
                scores[i, j] += bias[t + i, s + j]
        if has_mask:
            for j in range(columns):
                if not mask[t + i, s + j]:
                    scores[i, j] = -np.inf
        last = min(columns, t + i + 1 - s) if causal else columns
        for j in range(max(last, 0), TILE):
            scores[i, j] = -np.inf


@compiled(
    lambda t: (
        *(_strided(t),) * 4,  # q, k, v, bias
        _strided(numba.boolean),
        *(numba.boolean,) * 3,
        numba.float64,
        numba.float64,
        numba.uint64,
        numba.uint64,
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
    least: Any,
    y: Array,
    lse: Array,
) -> None:
    """A task is one tile of queries of one head. `rescale` is what dropout multiplies by, 1 without dropout."""
    real = q.dtype.type
    heads, T, D = q.shape[1:]
    S, E = v.shape[2:]
    tiles = (T + TILE - 1) // TILE
    dropout = rescale != 1
    width = (D + 3) // 4 * 4
    queries, keys = np.zeros((TILE, width), q.dtype), np.zeros((TILE, width), q.dtype)
    keys_across, values = np.zeros((width, TILE), q.dtype), np.zeros((TILE, E), q.dtype)
    scores, sums = np.zeros((TILE, TILE), q.dtype), np.zeros((TILE, E), q.dtype)
    largest, total, lanes = np.zeros(TILE, q.dtype), np.zeros(TILE, q.dtype), np.zeros(LANES, q.dtype)
    kept = np.zeros(TILE, np.bool_)
    for task in range(first, end):
        b, h, t = task // tiles // heads, task // tiles % heads, task % tiles * TILE
        rows = min(TILE, T - t)
        _copy(q[b, h], t, real(scale), queries)
        sums[:] = 0
        largest[:] = -np.inf
        total[:] = 0
        for s in range(0, min(S, t + rows) if causal else S, TILE):
            _copy(k[b, h], s, real(1), keys)
            _transpose(keys, keys_across)
            _copy(v[b, h], s, real(1), values)
            scores[:] = 0
            _multiply(queries, keys_across, scores, rows)
            _finish_scores(scores, t, s, bias[b, h], has_bias, mask[b, h], has_mask, causal, T, S)
            for i in range(rows):
                row, y_row = scores[i], sums[i]
                high = max(row_max(row, lanes), largest[i])
                level = real(0) if high == -np.inf else high
                shrink = exp(largest[i] - level)
                for j in range(TILE):
                    row[j] = exp(row[j] - level)
                largest[i], total[i] = high, total[i] * shrink + row_sum(row, lanes)
                for j in range(E):
                    y_row[j] *= shrink
                if dropout:
                    keep_row(kept, key, (b * heads + h) * T + t + i, s, least)
                    for j in range(TILE):
                        row[j] *= real(rescale) if kept[j] else real(0)
            _multiply(scores, values, sums, rows)
        for i in range(rows):
            scale_down = real(1) / (real(1) if total[i] == 0 else total[i])
            for j in range(E):
                y[b, h, t + i, j] = sums[i, j] * scale_down
            lse[b, h, t + i] = np.log(total[i]) + (real(0) if largest[i] == -np.inf else largest[i])


@inlined
def _differentiate_row(row: Array, drow: Array, along: Any, lse: Any, rescale: float, kept: Array) -> None:
    """Scores become the weights that dropout leaves, and the gradients of those the gradients of the scores."""
    real = row.dtype.type
    lowest, level = real(-np.inf), real(0) if lse == -np.inf else lse
    for j in range(TILE):
        weight = real(0) if row[j] == lowest else exp(row[j] - level)
        factor = real(rescale) if kept[j] else real(0)
        drow[j] = weight * (drow[j] * factor - along)
        row[j] = weight * factor


@compiled(
    lambda t: (
        *(_strided(t),) * 5,  # dy, q, k, v, y
        _strided(t, 3),  # lse
        _strided(t),  # bias
        _strided(numba.boolean),
        *(numba.boolean,) * 3,
        numba.float64,
        numba.float64,
        numba.uint64,
        numba.uint64,
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
    dropout = rescale != 1
    width, value_width = (D + 3) // 4 * 4, (E + 3) // 4 * 4
    queries, keys = np.zeros((TILE, width), q.dtype), np.zeros((TILE, width), q.dtype)
    keys_across, dys = np.zeros((width, TILE), q.dtype), np.zeros((TILE, value_width), q.dtype)
    values, values_across = np.zeros((TILE, value_width), q.dtype), np.zeros((value_width, TILE), q.dtype)
    tiles = np.zeros((3, TILE, TILE), q.dtype)
    weights, dscores, across = tiles[0], tiles[1], tiles[2]
    key_sums, value_sums = np.zeros((TILE, width), q.dtype), np.zeros((TILE, value_width), q.dtype)
    along, query_sums = np.zeros(T, q.dtype), np.zeros(((T + TILE - 1) // TILE * TILE, width), q.dtype)
    kept = np.ones(TILE, np.bool_)
    for task in range(first, end):
        b, h = task // heads, task % heads
        for t in range(T):
            total = real(0)
            for j in range(E):
                total += dy[b, h, t, j] * y[b, h, t, j]
            along[t] = total
        query_sums[:] = 0
        for s in range(0, S, TILE):
            columns = min(TILE, S - s)
            _copy(k[b, h], s, real(1), keys)
            _transpose(keys, keys_across)
            _copy(v[b, h], s, real(1), values)
            _transpose(values, values_across)
            key_sums[:] = 0
            value_sums[:] = 0
            for t in range(s if causal else 0, T, TILE):
                rows = min(TILE, T - t)
                _copy(q[b, h], t, real(scale), queries)
                _copy(dy[b, h], t, real(1), dys)
                weights[:] = 0
                _multiply(queries, keys_across, weights, rows)
                _finish_scores(weights, t, s, bias[b, h], has_bias, mask[b, h], has_mask, causal, T, S)
                dscores[:] = 0
                _multiply(dys, values_across, dscores, rows)  # dweights
                for i in range(rows):
                    if dropout:
                        keep_row(kept, key, (b * heads + h) * T + t + i, s, least)
                    _differentiate_row(weights[i], dscores[i], along[t + i], lse[b, h, t + i], rescale, kept)
                    if has_bias:
                        for j in range(columns):
                            dbias[b, h, t + i, s + j] = dscores[i, j]
                weights[rows:] = 0  # an odd number of rows is computed in pairs
                dscores[rows:] = 0
                _transpose(weights, across)
                _multiply(across, dys, value_sums, TILE)
                _multiply(dscores, keys, query_sums[t : t + TILE], rows)
                _transpose(dscores, across)
                _multiply(across, queries, key_sums, TILE)  # the queries carry the scale
            for i in range(columns):
                for j in range(D):
                    dk[b, h, s + i, j] = key_sums[i, j]
                for j in range(E):
                    dv[b, h, s + i, j] = value_sums[i, j]
        for t in range(T):
            for j in range(D):
                dq[b, h, t, j] = query_sums[t, j] * real(scale)


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
    out: Array | None = None,
) -> tuple[Array, Array]:
    """y = dropout(softmax(scale q k^T + bias)) v and each row's log sum of e^scores, as in the reference."""
    T, E = q.shape[-2], v.shape[-1]
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, bias, mask) if x is not None))
    if not math.prod(lead) * T * E * k.shape[-2]:
        return reference.attention(q, k, v, bias, mask, causal, scale, p, key, out)
    y = np.empty((*lead, T, E), q.dtype) if out is None else out
    lse = np.empty((*lead, T), q.dtype)
    to, inputs = _heads(y), [_heads(_broadcast(x, lead)) for x in (q, k, v)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key)
    _attention(-(-T // TILE) * math.prod(lead), lse.size * k.shape[-2], *inputs, *settings, to, _heads(lse, 1))
    if not np.may_share_memory(to, y):
        y[...] = to.reshape(y.shape)
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
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """dq, dk, dv, dbias (None without a bias), as in the reference; dbias is made for each head, then summed."""
    T, S, lead = q.shape[-2], k.shape[-2], dy.shape[:-2]
    if not dy.size * q.size * k.size:
        return reference.attention_backward(dy, q, k, v, y, lse, bias, mask, causal, scale, p, key, out)
    given = out or (None, None, None)
    wholes = [_whole(x, lead, to) for x, to in zip((q, k, v), given)]
    results = [_heads(whole) for whole in wholes]
    dbias = np.zeros((*lead, T, S) if bias is not None else (1,) * 4, q.dtype)
    inputs = [_heads(_broadcast(x, lead)) for x in (dy, q, k, v, y)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key)
    _attention_backward(math.prod(lead), lse.size * S, *inputs, _heads(lse, 1), *settings, *results, _heads(dbias))
    gradients = []
    for x, whole, result, to in zip((q, k, v), wholes, results, given):
        gradient = _sum_to(result.reshape(whole.shape), x.shape)
        if to is not None and not np.may_share_memory(gradient, to):
            to[...] = gradient
        gradients.append(gradient if to is None else to)
    dq, dk, dv = gradients
    return dq, dk, dv, None if bias is None else _sum_to(dbias, bias.shape)


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
) -> tuple[Any, ...]:
    """What the kernels take between the arrays: bias and mask for each head, and the numbers."""
    size = q.shape[-2], k.shape[-2]
    nothing = np.zeros((1, 1), bool)
    biases, masks = (
        np.broadcast_to(nothing if x is None else x, (*lead, *((1, 1) if x is None else size))) for x in (bias, mask)
    )
    biases = biases.astype(q.dtype, copy=False)
    rescale = 0.0 if p == 1 else 1 / (1 - p)
    flags = bias is not None, mask is not None, bool(causal)
    return _heads(biases), _heads(masks), *flags, float(scale), rescale, np.uint64(key & (2**64 - 1)), least_kept(p)


def _heads(x: Array, own: int = 2) -> Array:
    """The leading axes as two, (..., H, T, D) -> (B, H, T, D): a view unless more than two have odd strides.

    Args:
        own: the number of axes that are not leading ones.
    """
    lead = (1, 1, *x.shape[: x.ndim - own])
    return x.reshape(math.prod(lead[:-1]), lead[-1], *x.shape[x.ndim - own :])


def _broadcast(x: Array, lead: tuple[int, ...]) -> Array:
    return np.broadcast_to(x, (*lead, *x.shape[-2:]))


def _whole(x: Array, lead: tuple[int, ...], to: Array | None) -> Array:
    """Where the gradient of x goes, with all leading axes: `to` itself if it has them."""
    shape = (*lead, *x.shape[-2:])
    return to if to is not None and to.shape == shape else np.empty(shape, x.dtype)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which `shape` was broadcast."""
    more = x.ndim - len(shape)
    axes = *range(more), *(more + i for i, n in enumerate(shape) if n != x.shape[more + i])
    return x.sum(axes, keepdims=True).reshape(shape) if axes else x
