"""Attention: each query's mixture of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm import kernels, random
from minilm.device import array_module
from minilm.errors import DtypeError, ShapeError
from minilm.ops.indexing import getitem, index_scatter
from minilm.ops.matmul import matmul, transposed
from minilm.ops.random import Dropout, dropout_key
from minilm.ops.reduction import amax
from minilm.ops.registry import Fused, Primitive, sample
from minilm.ops.selection import eq, masked_fill, where
from minilm.ops.shape import permute, reshape
from minilm.ops.softmax import softmax
from minilm.tensor import Tensor

# B, H: batch and heads (any leading axes); T queries, S keys and values; D and E the sizes of a key and a value.


class Attention(
    Fused,
    shapes="(..., T, D), (..., S, D), (..., S, E), (?), (?) -> (..., T, E)",
    dtypes="float",
    constants=("mask",),
    method=False,
    title="scaled_dot_product_attention",
):
    """Each query looks at all keys, and brings back the values of those it resembles.

        y = softmax(q k^T / sqrt(D) + bias) v

    Args:
        bias: added to the scores, (..., T, S).
        mask: boolean (..., T, S), False where a query must not look.
        causal: query t sees keys 0 ... t only.
        scale: by default 1 / sqrt(D).
        p: the share of weights that dropout leaves out; the others are divided by 1 - p.
        key, row: which weights those are (`kernels.keep_rows`); the first row of all has the number `row`.

    A query that may look nowhere gets zeros.

    Source: Vaswani et al. 2017, equation 1 and section 3.2.3.
    """

    samples = [
        sample((2, 3, 5), (2, 7, 5), (2, 7, 11), None, None),
        sample((2, 3, 7, 5), (2, 3, 7, 5), (2, 3, 7, 5), None, None, causal=True),
        sample((3, 5), (7, 5), (7, 2), None, (3, 7)),
        sample((2, 3, 5), (2, 7, 5), (2, 7, 5), (3, 7), None, scale=0.3),
        sample((2, 3, 5), (2, 7, 5), (2, 7, 5), None, (2, 1, 7), p=0.4, key=7),
        sample((2, 1, 3, 5), (7, 5), (3, 7, 2), (1, 7), None),
        sample((3, 5), (7, 5), (7, 2), None, None, causal=True),
        sample((3, 5), (7, 5), (7, 2), None, None, p=1.0, key=7),
        sample((2, 3, 5), (2, 7, 5), (2, 7, 5), None, None, p=0.4, key=7, row=11),
        sample((2, 7, 5), (2, 7, 5), (2, 7, 5), (7, 7), None, causal=True, p=0.4, key=7),
    ]
    domain = ("normal", "normal", "normal", "normal", "bool")

    def definition(q, k, v, bias=None, mask=None, causal=False, scale=None, p=0.0, key=0, row=0):
        T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
        scores = matmul(q, transposed(k)) * _scale(scale, D)
        if bias is not None:
            scores = scores + bias
        visible = _visible(mask, causal, T, S)
        if visible is not None:
            scores = masked_fill(scores, ~visible, -math.inf)
        if not S:
            return matmul(scores, v)
        blind = eq(amax(scores, -1, True), -math.inf)  # queries with nothing to see
        weights = where(blind, 0.0, softmax(where(blind, 0.0, scores), -1))
        if p:
            weights = weights * _kept((*_lead(q, k, v), T, S), p, key, row) * _rescale(p)
        return matmul(weights, v)

    def forward(ctx, q, k, v, bias=None, mask=None, causal=False, scale=None, p=0.0, key=0, row=0):
        scale = _scale(scale, q.shape[-1])
        y, lse = kernels.attention(q, k, v, bias, mask, causal, scale, p, key, row)
        ctx.save(q, k, v, y, lse, bias, mask)
        ctx.settings = causal, scale, p, key, row
        return y

    def backward(ctx, dy):
        q, k, v, y, lse, bias, mask = ctx.saved
        return (*kernels.attention_backward(dy, q, k, v, y, lse, bias, mask, *ctx.settings), None)  # dq, dk, dv, dbias

    def torch(torch, q, k, v, bias=None, mask=None, causal=False, scale=None, p=0.0, key=0, row=0):
        if not p:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # it has second derivatives
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, bias if mask is None else mask, is_causal=causal, scale=scale
                )
        scores = q @ k.transpose(-1, -2) * _scale(scale, q.shape[-1])
        scores = scores if bias is None else scores + bias
        visible = _visible(None if mask is None else mask.numpy(), causal, *scores.shape[-2:])
        if visible is not None:
            scores = scores.masked_fill(torch.from_numpy(~visible), -math.inf)
        weights = torch.softmax(scores, -1)
        kept = torch.from_numpy(_kept((*_lead(q, k, v), *weights.shape[-2:]), p, key, row))
        return (weights.nan_to_num(0.0) * kept * _rescale(p)) @ v


class CachedAttention(
    Primitive,
    shapes="(N, H, D), (R, T, H, D), (R, T, H, E), (N, S), (H, S) -> (N, H, E)",
    constants=("places",),
    differentiable=False,
    method=False,
):
    """One new query a row looks at keys and values that lie where other rows, and earlier steps, left them.

        y_n = softmax(scale q_n k[places_ns, s]^T + bias_s) v[places_ns, s],  over the s < S where places_ns >= 0

    Args:
        q, k, v: (N, H, D), and (R, T, H, D) and (R, T, H, E): of T positions the first S are looked at.
        places: (N, S), the row of k and v in which row n finds position s; negative: it does not look there.
        bias: (H, S). scale: by default 1 / sqrt(D).

    Rows that go on from others, as beams do, find the keys of their past without a copy of them. A row that may look
    nowhere gets zeros. It has no gradient: a cache keeps none.
    """

    samples = [
        sample((3, 2, 5), (7, 11, 2, 5), (7, 11, 2, 13), (3, 11), None),
        sample((3, 2, 5), (7, 11, 2, 5), (7, 11, 2, 13), (3, 4), (2, 4), scale=0.7),
        sample((3, 1, 8), (7, 67, 1, 8), (7, 67, 1, 8), (3, 67), (1, 67)),
    ]
    domain = ("normal", "normal", "normal", "index:7", "normal")

    def forward(ctx, q, k, v, places, bias=None, scale=None):
        return kernels.cached_attention(q, k, v, places, bias, _scale(scale, q.shape[-1]))

    def torch(torch, q, k, v, places, bias=None, scale=None):
        q, k, v, bias = (None if x is None else x.detach() for x in (q, k, v, bias))
        at = torch.arange(places.shape[1])
        keys, values = (x[places.clamp(min=0), at].transpose(1, 2) for x in (k, v))  # (N, H, S, D or E)
        scores = (keys @ q[..., None])[..., 0] * _scale(scale, q.shape[-1])
        scores = scores if bias is None else scores + bias
        weights = torch.softmax(scores.masked_fill(places[:, None] < 0, -math.inf), -1).nan_to_num(0.0)
        return (weights[:, :, None] @ values)[:, :, 0]


cached_attention = CachedAttention.apply


def key_memory(B: int, H: int, capacity: int, D: int, dtype: Any) -> Any:
    """Memory for keys or values that `cached_attention` looks at: an array (B, capacity, H, D) of whatever was there.

    All rows of the first position lie first, then those of the second: what outputs that end early never fill lies at
    the end. The number of rows is odd: else all positions of a row would meet in the same lines of a processor's cache,
    where there is room for a few.
    """
    return kernels.empty((capacity, B | 1, H, D), dtype)[:, :B].transpose(1, 0, 2, 3)


class SelfAttention(
    Fused, shapes="(B, T, P), (?), (?) -> (B, T, ?)", dtypes="float", constants=("mask",), method=False, fresh=True
):
    """Attention of H heads with itself: (B, T, 3 C), queries, keys and values side by side -> (B, T, C).

    The kernel reads the heads where they lie in the product that made them, and writes its results side by side:
    nothing is copied on the way in or out, nor on the way back. Args: as in `Attention`, and

        heads: H; each head has D = C / H channels.
    """

    samples = [
        sample((2, 3, 30), None, None, heads=2),
        sample((2, 7, 30), None, None, heads=2, causal=True),
        sample((2, 3, 21), (3, 3), None, heads=1, scale=0.3),
        sample((2, 3, 30), None, (2, 1, 1, 3), heads=5, p=0.4, key=7),
    ]
    domain = ("normal", "normal", "bool")

    def definition(qkv, bias=None, mask=None, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        B, T, P = qkv.shape
        q, k, v = permute(reshape(qkv, (B, T, 3, heads, P // 3 // heads)), (2, 0, 3, 1, 4))  # each (B, H, T, D)
        y = Attention.definition(q, k, v, bias, mask, causal, scale, p, key, row)
        return reshape(permute(y, (0, 2, 1, 3)), (B, T, P // 3))

    def forward(ctx, qkv, bias=None, mask=None, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        B, T, P = qkv.shape
        if P % (3 * heads):
            raise ShapeError(f"self_attention: {P} channels do not divide into 3 times {heads} heads")
        y = array_module(qkv).empty((B, T, P // 3), qkv.dtype)
        q, k, v = _heads(qkv, 3, heads)
        settings = causal, _scale(scale, q.shape[-1]), p, key, row
        _, lse = kernels.attention(q, k, v, bias, mask, *settings, out=_heads(y, 1, heads)[0])
        ctx.save(qkv, y, lse, bias, mask)
        ctx.settings, ctx.heads = settings, heads
        return y

    def backward(ctx, dy):
        qkv, y, lse, bias, mask = ctx.saved
        dqkv = array_module(qkv).empty(qkv.shape, qkv.dtype)
        (dy,), (y,) = _heads(dy, 1, ctx.heads), _heads(y, 1, ctx.heads)
        q, k, v = _heads(qkv, 3, ctx.heads)
        gradients = _heads(dqkv, 3, ctx.heads)
        *_, dbias = kernels.attention_backward(dy, q, k, v, y, lse, bias, mask, *ctx.settings, out=gradients)
        return dqkv, dbias, None

    def torch(torch, qkv, bias=None, mask=None, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        B, T, P = qkv.shape
        q, k, v = qkv.reshape(B, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
        y = Attention.torch(torch, q, k, v, bias, mask, causal, scale, p, key, row)
        return y.transpose(1, 2).reshape(B, T, P // 3)


class PackedSelfAttention(Fused, shapes="(N, P) -> (N, ?)", dtypes="float", method=False, fresh=True):
    """`SelfAttention` within each of B sequences that lie one behind the other, without padding.

    (N, 3 C), queries, keys and values side by side -> (N, C). It gives what SelfAttention gives with padding, and the
    same of dropout, and saves the time that padding takes.

    Args:
        starts: B + 1 numbers; sequence b has the rows starts[b] ... starts[b + 1] - 1.
        longest: T, the length to which padding would fill up.
        heads: H. causal, scale, p, key, row: as in `Attention`.
    """

    samples = [
        sample((10, 30), starts=(0, 3, 10), longest=7, heads=2),
        sample((7, 30), starts=(0, 2, 2, 7), longest=5, heads=5, causal=True, scale=0.3),
        sample((5, 21), starts=(0, 5), longest=7, heads=1, p=0.4, key=7, row=11),
    ]

    def definition(rows, starts, longest, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        P, lengths = rows.shape[1], np.diff(starts)
        seen = np.arange(longest) < lengths[:, None]  # (B, T)
        places = np.flatnonzero(seen)
        qkv = reshape(index_scatter(rows, places, (seen.size, P)), (*seen.shape, P))
        y = SelfAttention.definition(qkv, None, seen[:, None, None], heads, causal, scale, p, key, row)
        return getitem(reshape(y, (seen.size, P // 3)), places)

    def forward(ctx, rows, starts, longest, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        N, P = rows.shape
        if P % (3 * heads):
            raise ShapeError(f"packed_self_attention: {P} channels do not divide into 3 times {heads} heads")
        y = array_module(rows).empty((N, P // 3), rows.dtype)
        q, k, v = _heads(rows[None], 3, heads)
        settings = np.asarray(starts), longest, causal, _scale(scale, q.shape[-1]), p, key, row
        _, lse = kernels.packed_attention(q[0], k[0], v[0], *settings, out=_heads(y[None], 1, heads)[0][0])
        ctx.save(rows, y, lse)
        ctx.settings, ctx.heads = settings, heads
        return y

    def backward(ctx, dy):
        rows, y, lse = ctx.saved
        drows = array_module(rows).empty(rows.shape, rows.dtype)
        dy, y, *qkv = (x[0] for part, n in ((dy, 1), (y, 1), (rows, 3)) for x in _heads(part[None], n, ctx.heads))
        gradients = tuple(x[0] for x in _heads(drows[None], 3, ctx.heads))
        kernels.packed_attention_backward(dy, *qkv, y, lse, *ctx.settings, out=gradients)
        return drows

    def torch(torch, rows, starts, longest, heads=1, causal=False, scale=None, p=0.0, key=0, row=0):
        P, seen = rows.shape[1], np.arange(longest) < np.diff(starts)[:, None]
        places = torch.from_numpy(np.flatnonzero(seen))
        qkv = rows.new_zeros(seen.size, P).index_put((places,), rows).reshape(*seen.shape, P)
        mask = torch.from_numpy(_visible(seen[:, None, None], causal, longest, longest))
        y = SelfAttention.torch(torch, qkv, None, mask, heads, False, scale, p, key, row)
        return y.reshape(seen.size, -1)[places]


def _heads(x: Any, parts: int, heads: int) -> tuple[Any, ...]:
    """An array (B, T, parts C) as `parts` views (B, H, T, D)."""
    B, T, P = x.shape
    return tuple(x.reshape(B, T, parts, heads, P // parts // heads).transpose(2, 0, 3, 1, 4))


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    generator: random.Generator | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """y = softmax(q k^T / sqrt(D) + mask) v: (..., T, D), (..., S, D), (..., S, E) -> (..., T, E).

    Args:
        attn_mask: boolean, True where a query may look, or floating, added to the scores; (..., T, S).
        dropout_p: the share of weights left out; it is applied whenever it is not 0.
        is_causal: query t sees keys 0 ... t only.
        scale: by default 1 / sqrt(D).
        bias: added to the scores beside a boolean attn_mask, (..., T, S); it gets its gradient. PyTorch has it not.
    Errors: ShapeError for shapes that do not fit, DtypeError for a mask of integers, ValueError for a dropout_p
        outside 0 ... 1.

    A query that may look nowhere gets zeros, never NaN. Source: Vaswani et al. 2017, equation 1.
    """
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            f"scaled_dot_product_attention: query {query.shape}, key {key.shape} and value {value.shape} "
            "need two axes each, (..., T, D)"
        )
    bias, mask = _bias_and_mask(attn_mask, bias, query.shape[-2], key.shape[-2])
    drawn = dropout_key(dropout_p, generator) if dropout_p else 0
    row = _first_row((*_lead(query, key, value), query.shape[-2])) if dropout_p else 0
    return Attention.apply(query, key, value, bias, mask, is_causal, scale, dropout_p, drawn, row)


def self_attention(
    qkv: Tensor,
    heads: int,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    generator: random.Generator | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """scaled_dot_product_attention of `heads` heads, from one product of all: (B, T, 3 C) -> (B, T, C).

    Args:
        qkv: queries, keys and values side by side, each the heads side by side.
        attn_mask, dropout_p, is_causal, scale, bias: as there; mask and bias broadcast to (B, H, T, T).
    Errors: ShapeError for channels that do not divide into 3 times `heads`, and as there.
    """
    if qkv.ndim != 3:
        raise ShapeError(f"self_attention: (B, T, 3 C) was expected, not {qkv.shape}")
    bias, mask = _bias_and_mask(attn_mask, bias, qkv.shape[1], qkv.shape[1])
    drawn = dropout_key(dropout_p, generator) if dropout_p else 0
    row = _first_row((qkv.shape[0], heads, qkv.shape[1])) if dropout_p else 0
    return SelfAttention.apply(qkv, bias, mask, heads, is_causal, scale, dropout_p, drawn, row)


def packed_self_attention(
    rows: Tensor,
    heads: int,
    starts: Any,
    longest: int,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    generator: random.Generator | None = None,
) -> Tensor:
    """`self_attention` within each of B sequences that lie one behind the other: (N, 3 C) -> (N, C).

    Args:
        starts: (B + 1), integers: sequence b has the rows starts[b] ... starts[b + 1] - 1.
        longest: T, the length to which padding would fill up; dropout draws as it would with padding.
        dropout_p, is_causal, scale: as in `scaled_dot_product_attention`.
    Errors: ShapeError for channels that do not divide into 3 times `heads`, or starts that do not cover the rows.
    """
    lengths = np.diff(starts)
    if rows.ndim != 2 or not len(starts) or starts[0] != 0 or starts[-1] != rows.shape[0] or (lengths < 0).any():
        raise ShapeError(f"packed_self_attention: starts {list(starts)} do not cut rows of shape {rows.shape}")
    if len(lengths) and lengths.max() > longest:
        raise ShapeError(f"packed_self_attention: a sequence of {lengths.max()} rows is longer than {longest}")
    drawn = dropout_key(dropout_p, generator) if dropout_p else 0
    row = _first_row((len(lengths), heads, longest)) if dropout_p else 0
    return PackedSelfAttention.apply(rows, starts, longest, heads, is_causal, scale, dropout_p, drawn, row)


def _bias_and_mask(
    attn_mask: Tensor | None, bias: Tensor | None, T: int, S: int
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores, and where queries may look, of PyTorch's mask, which is one of them, and a bias.

    Errors: DtypeError, ShapeError.
    """
    for name, kinds, x in (("mask", "bf", attn_mask), ("bias", "f", bias)):
        if x is None:
            continue
        if x.dtype.kind not in kinds:
            raise DtypeError(f"attention: a {name} is {'boolean or ' if 'b' in kinds else ''}floating, not {x.dtype}")
        try:
            np.broadcast_shapes(x.shape, (T, S))
        except ValueError:
            raise ShapeError(f"attention: a {name} of shape {x.shape} does not fit ({T}, {S}) scores") from None
    if attn_mask is None or attn_mask.dtype == bool:
        return bias, attn_mask
    return (attn_mask if bias is None else attn_mask + bias), None


def drop_weights(weights: Tensor, p: float, generator: random.Generator | None = None) -> Tensor:
    """Dropout of attention's weights (..., T, S), just as the fused operation does it."""
    kept = _kept(weights.shape, p, dropout_key(p, generator), _first_row(weights.shape[:-1]))
    return Dropout.apply(weights, Tensor(kept != 0), p)


def _scale(scale: float | None, D: int) -> float:
    return 1 / math.sqrt(max(D, 1)) if scale is None else scale


def _rescale(p: float) -> float:
    """What the weights that dropout keeps are multiplied by."""
    return 0.0 if p == 1 else 1 / (1 - p)


def _visible(mask: Any, causal: bool, T: int, S: int) -> Any:
    """Where queries may look, (..., T, S); None for everywhere."""
    if not causal:
        return mask
    below = np.tri(T, S, dtype=bool)
    return below if mask is None else mask & below


def _lead(q: Any, k: Any, v: Any) -> tuple[int, ...]:
    """The leading axes of the result."""
    return np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])


def _first_row(rows: tuple[int, ...]) -> int:
    """The number in the whole batch of the first row of weights, whose rows are (B, ..., T): see `random.examples`."""
    part = random.current_part()
    return part.first * math.prod(rows[1:]) if part is not None and rows[0] == part.count else 0


def _kept(shape: tuple[int, ...], p: float, key: int, row: int) -> Any:
    """Which weights (..., T, S) dropout keeps: 0 or 1 as floats, an array."""
    rows = math.prod(shape[:-1])
    return kernels.keep_rows(key, row, rows, shape[-1], p).reshape(shape).astype(np.float32)
