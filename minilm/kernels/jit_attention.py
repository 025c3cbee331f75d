"""Attention by Numba, 64 by 256 queries and keys at a time, so that the matrix of scores never exists whole.

The forward keeps for each query the largest score that it has seen, and takes what it summed before down to it when
a larger one comes (the online softmax). The backward makes the tiles of scores anew, from each query's lse.

Tiles are copied to where their elements lie side by side, whatever the strides of the arrays, with zeros behind
them so that the products need no exceptions for sizes that are no multiple of four. The products are compiled loops,
at their best 69 GFLOP/s on one thread where NumPy's `@` has 88; but the sums of `@` may depend on the number of
threads.

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
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_numbers import exp, keep_row, least_kept

Array = Any

# A tile of scores has `NARROW` rows of `WIDE` columns: in the forward a row is a key and a column a query, in the
# backward the other way round. What the compiler puts before an inner loop, to see whether its arrays overlap, costs
# as much as some 50 of its steps: products with 64, 128 and 256 columns reached 45, 57 and 69 GFLOP/s on one thread.
WIDE, NARROW = 256, 64


def _strided(element: Any, ndim: int = 4) -> Any:
    """The type of an array that is only read, of any strides: broadcast ones too."""
    return ArrayType(element, ndim, "A", readonly=True)


@inlined
def _multiply(a: Array, b: Array, out: Array, start: int, end: int) -> None:
    """out (N, M) += a (N, K) b (K, M), for the columns start ... end - 1; N even, K a multiple of four.

    Two rows and four k at a time: each number that is loaded is used several times.
    """
    for i in range(0, a.shape[0], 2):
        one, two, out_one, out_two = a[i], a[i + 1], out[i], out[i + 1]
        for k in range(0, a.shape[1], 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p0, p1, p2, p3 = one[k], one[k + 1], one[k + 2], one[k + 3]
            q0, q1, q2, q3 = two[k], two[k + 1], two[k + 2], two[k + 3]
            for j in _columns(start, end):
                out_one[j] += (p0 * b0[j] + p1 * b1[j]) + (p2 * b2[j] + p3 * b3[j])
                out_two[j] += (q0 * b0[j] + q1 * b1[j]) + (q2 * b2[j] + q3 * b3[j])


@inlined
def _columns(start: int, end: int) -> Any:
    """The numbers start ... end - 1, known not to be negative: else each would be tried for Python's x[-1]."""
    return range(np.uint64(start), np.uint64(end))


@inlined
def _copy(x: Array, start: int, scale: Any, tile: Array) -> None:
    """scale times the rows start, start + 1, ... of x, zeros behind them."""
    rows = min(tile.shape[0], x.shape[0] - start)
    for i in range(rows):
        for j in range(x.shape[1]):
            tile[i, j] = x[start + i, j] * scale
    tile[rows:] = 0


@inlined
def _transpose(tile: Array, transposed: Array) -> None:
    for i in range(tile.shape[0]):
        for j in range(tile.shape[1]):
            transposed[j, i] = tile[i, j]


@inlined
def _attach(
    scores: Array, row: int, column: int, start: int, bias: Array, has_bias: bool, mask: Array, has_mask: bool
) -> None:
    """Add the bias to scores that begin at (row, column) of it; minus infinity where the mask forbids to look."""
    for i in range(NARROW):
        if has_bias and row + i < bias.shape[0]:
            for j in _columns(start, min(scores.shape[1], bias.shape[1] - column)):
                scores[i, j] += bias[row + i, column + j]
        if has_mask and row + i < mask.shape[0]:
            for j in _columns(start, min(scores.shape[1], mask.shape[1] - column)):
                if not mask[row + i, column + j]:
                    scores[i, j] = -np.inf


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
    """A task is one tile of queries of one head. `rescale` is what dropout multiplies by, 1 without dropout.

    Tiles of scores have a row for each key, and a column for each query: what a query has is a loop over columns.
    """
    real = q.dtype.type
    heads, T, D = q.shape[1:]
    S, E = v.shape[2:]
    wide = _width(T)
    tiles = (T + wide - 1) // wide
    queries, across = np.zeros((wide, _fours(D)), q.dtype), np.zeros((_fours(D), wide), q.dtype)
    keys, values = np.zeros((NARROW, _fours(D)), q.dtype), np.zeros((NARROW, _fours(E)), q.dtype)
    scores, sums = np.zeros((NARROW, wide), q.dtype), np.zeros((_fours(E), wide), q.dtype)
    of_queries = np.zeros((4, wide), q.dtype)
    largest, total, level, shrink = of_queries[0], of_queries[1], of_queries[2], of_queries[3]
    kept = np.zeros(NARROW, np.bool_)
    for task in range(first, end):
        b, h, t = task // tiles // heads, task // tiles % heads, task % tiles * wide
        rows = min(wide, T - t)
        _copy(q[b, h], t, real(scale), queries)
        _transpose(queries, across)
        sums[:] = 0
        largest[:] = -np.inf
        total[:] = 0
        for s in range(0, min(S, t + rows) if causal else S, NARROW):
            start = max(s - t, 0) if causal else 0  # no query before it sees one of these keys
            _copy(k[b, h], s, real(1), keys)
            _copy(v[b, h], s, real(1), values)
            scores[:] = 0
            _multiply(keys, across, scores, start, wide)
            _attach(scores, s, t, start, bias[b, h].T, has_bias, mask[b, h].T, has_mask)
            if causal:
                for i in range(NARROW):
                    for j in _columns(start, max(min(s + i - t, wide), 0)):
                        scores[i, j] = -np.inf
            scores[min(NARROW, S - s) :] = -np.inf
            _rise(scores, start, largest, total, level, shrink)
            for i in range(E):
                for j in _columns(start, wide):
                    sums[i, j] *= shrink[j]
            if rescale != 1:
                for j in _columns(start, rows):
                    keep_row(kept, key, row + np.uint64((b * heads + h) * T + t) + j, s, least)
                    for i in range(NARROW):
                        scores[i, j] *= real(rescale) if kept[i] else real(0)
            _multiply(values.T, scores, sums, start, wide)
        for j in range(rows):
            scale_down = real(1) / (real(1) if total[j] == 0 else total[j])
            for i in range(E):
                y[b, h, t + j, i] = sums[i, j] * scale_down
            lse[b, h, t + j] = np.log(total[j]) + (real(0) if largest[j] == -np.inf else largest[j])


@inlined
def _rise(scores: Array, start: int, largest: Array, total: Array, level: Array, shrink: Array) -> None:
    """Scores become e^(score - largest of its query), where the largest score and the total go on from tile to tile.

    `shrink` is then what the query's earlier sums must be multiplied by.
    """
    real = scores.dtype.type
    wide = scores.shape[1]
    for j in _columns(start, wide):
        level[j] = largest[j]
    for i in range(NARROW):
        row = scores[i]
        for j in _columns(start, wide):
            level[j] = row[j] if row[j] > level[j] else level[j]
    for j in _columns(start, wide):
        before, largest[j] = largest[j], level[j]
        level[j] = real(0) if level[j] == -np.inf else level[j]
        shrink[j] = exp(before - level[j])
        total[j] *= shrink[j]
    for i in range(NARROW):
        row = scores[i]
        for j in _columns(start, wide):
            row[j] = exp(row[j] - level[j])
            total[j] += row[j]


@inlined
def _fours(count: int) -> int:
    """The next multiple of four, for `_multiply`."""
    return (count + 3) // 4 * 4


@inlined
def _width(count: int) -> int:
    """The columns of a tile of scores: as few as fill equal tiles."""
    tiles = (count + WIDE - 1) // WIDE
    return ((count + tiles - 1) // tiles + 15) // 16 * 16


@inlined
def _differentiate_row(row: Array, drow: Array, factors: Array, end: int, along: Any, level: Any) -> None:
    """Scores become the weights that dropout leaves, and the gradients of those the gradients of the scores."""
    real = row.dtype.type
    lowest = real(-np.inf)
    for j in range(end):
        weight = real(0) if row[j] == lowest else exp(row[j] - level)
        drow[j] = weight * (drow[j] * factors[j] - along)
        row[j] = weight * factors[j]


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
    wide = _width(S)
    queries, dys = np.zeros((NARROW, _fours(D)), q.dtype), np.zeros((NARROW, _fours(E)), q.dtype)
    keys, keys_across = np.zeros((wide, _fours(D)), q.dtype), np.zeros((_fours(D), wide), q.dtype)
    values, values_across = np.zeros((wide, _fours(E)), q.dtype), np.zeros((_fours(E), wide), q.dtype)
    tiles, factors = np.zeros((2, NARROW, wide), q.dtype), np.ones(wide, q.dtype)
    weights, dscores = tiles[0], tiles[1]
    query_sums, along = np.zeros((T + NARROW, _fours(D)), q.dtype), np.zeros(T + NARROW, q.dtype)
    key_sums, value_sums = np.zeros((_fours(D), wide), q.dtype), np.zeros((_fours(E), wide), q.dtype)
    kept = np.ones(wide, np.bool_)
    for task in range(first, end):
        b, h = task // heads, task % heads
        for t in range(T):
            total = real(0)
            for j in range(E):
                total += dy[b, h, t, j] * y[b, h, t, j]
            along[t] = total
        query_sums[:] = 0
        for s in range(0, S, wide):
            columns = min(wide, S - s)
            _copy(k[b, h], s, real(1), keys)
            _transpose(keys, keys_across)
            _copy(v[b, h], s, real(1), values)
            _transpose(values, values_across)
            key_sums[:] = 0
            value_sums[:] = 0
            for t in range(s if causal else 0, T, NARROW):
                seen = min(wide, t + NARROW - s) if causal else wide  # the keys behind them no query here may see
                _copy(q[b, h], t, real(scale), queries)
                _copy(dy[b, h], t, real(1), dys)
                weights[:] = 0
                _multiply(queries, keys_across, weights, 0, seen)
                _attach(weights, t, s, 0, bias[b, h], has_bias, mask[b, h], has_mask)
                dscores[:] = 0
                _multiply(dys, values_across, dscores, 0, seen)  # dweights
                for i in range(NARROW):
                    weights[i, min(columns, t + i + 1 - s) if causal else columns :] = -np.inf
                    of_row = lse[b, h, t + i] if t + i < T else real(0)
                    if rescale != 1:
                        keep_row(kept, key, row + np.uint64((b * heads + h) * T + t + i), s, least)
                        for j in range(seen):
                            factors[j] = real(rescale) if kept[j] else real(0)
                    level = real(0) if of_row == -np.inf else of_row
                    _differentiate_row(weights[i], dscores[i], factors, seen, along[t + i], level)
                    if has_bias and t + i < T:
                        for j in range(min(seen, columns)):
                            dbias[b, h, t + i, s + j] = dscores[i, j]
                _multiply(dys.T, weights, value_sums, 0, seen)
                _multiply(queries.T, dscores, key_sums, 0, seen)  # the queries carry the scale
                sums = query_sums[t : t + NARROW]
                _multiply(dscores[:, :seen], keys[:seen], sums, 0, sums.shape[1])
            for j in range(columns):
                for i in range(D):
                    dk[b, h, s + j, i] = key_sums[i, j]
                for i in range(E):
                    dv[b, h, s + j, i] = value_sums[i, j]
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
    row: int = 0,
    out: Array | None = None,
) -> tuple[Array, Array]:
    """y = dropout(softmax(scale q k^T + bias)) v and each row's log sum of e^scores, as in the reference."""
    T, E = q.shape[-2], v.shape[-1]
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v, bias, mask) if x is not None))
    if not math.prod(lead) * T * E * k.shape[-2]:
        return reference.attention(q, k, v, bias, mask, causal, scale, p, key, row, out)
    y = empty((*lead, T, E), q.dtype) if out is None else out
    lse = np.empty((*lead, T), q.dtype)
    to, inputs = _heads(y), [_heads(_broadcast(x, lead)) for x in (q, k, v)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key, row)
    _attention(-(-T // WIDE) * math.prod(lead), lse.size * k.shape[-2], *inputs, *settings, to, _heads(lse, 1))
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
    row: int = 0,
    out: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """dq, dk, dv, dbias (None without a bias), as in the reference; dbias is made for each head, then summed."""
    T, S, lead = q.shape[-2], k.shape[-2], dy.shape[:-2]
    if not dy.size * q.size * k.size:
        return reference.attention_backward(dy, q, k, v, y, lse, bias, mask, causal, scale, p, key, row, out)
    given = out or (None, None, None)
    wholes = [_whole(x, lead, to) for x, to in zip((q, k, v), given)]
    results = [_heads(whole) for whole in wholes]
    dbias = np.zeros((*lead, T, S) if bias is not None else (1,) * 4, q.dtype)
    inputs = [_heads(_broadcast(x, lead)) for x in (dy, q, k, v, y)]
    settings = _settings(bias, mask, lead, q, k, causal, scale, p, key, row)
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
    row: int,
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
    drawn = *(np.uint64(number & (2**64 - 1)) for number in (key, row)), least_kept(p)
    return _heads(biases), _heads(masks), *flags, float(scale), rescale, *drawn


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
    return to if to is not None and to.shape == shape else empty(shape, x.dtype)


def _sum_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The sum over the axes along which `shape` was broadcast."""
    more = x.ndim - len(shape)
    axes = *range(more), *(more + i for i, n in enumerate(shape) if n != x.shape[more + i])
    return x.sum(axes, keepdims=True).reshape(shape) if axes else x
