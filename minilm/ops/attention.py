"""Attention: each query's mixture of values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm import kernels, random
from minilm.device import array_module
from minilm.errors import DtypeError, ShapeError
from minilm.ops.matmul import matmul, transposed
from minilm.ops.random import keep_mask
from minilm.ops.reduction import amax, sum_to_size
from minilm.ops.registry import Fused, sample
from minilm.ops.selection import eq, masked_fill, where
from minilm.ops.softmax import softmax
from minilm.tensor import Tensor

# B, H: batch and heads (any leading axes); T queries, S keys and values; D and E the sizes of a key and a value.


class Attention(
    Fused,
    shapes="(..., T, D), (..., S, D), (..., S, E), (?), (?), (?) -> (..., T, E)",
    dtypes="float",
    constants=("mask", "keep"),
    method=False,
    title="scaled_dot_product_attention",
):
    """Each query looks at all keys, and brings back the values of those it resembles.

        y = softmax(q k^T / sqrt(D) + bias) v

    Args:
        bias: added to the scores, (..., T, S).
        mask: boolean (..., T, S), False where a query must not look.
        keep: boolean (..., T, S), False for weights that dropout leaves out; the others are divided by 1 - p.
        causal: query t sees keys 0 ... t only.
        scale: by default 1 / sqrt(D).
        p: the share that `keep` leaves out.

    A query that may look nowhere gets zeros.

    Source: Vaswani et al. 2017, equation 1 and section 3.2.3.
    """

    samples = [
        sample((2, 3, 5), (2, 7, 5), (2, 7, 11), None, None, None),
        sample((2, 3, 7, 5), (2, 3, 7, 5), (2, 3, 7, 5), None, None, None, causal=True),
        sample((3, 5), (7, 5), (7, 2), None, (3, 7), None),
        sample((2, 3, 5), (2, 7, 5), (2, 7, 5), (3, 7), None, None, scale=0.3),
        sample((2, 3, 5), (2, 7, 5), (2, 7, 5), None, (2, 1, 7), (2, 3, 7), p=0.4),
        sample((2, 1, 3, 5), (7, 5), (3, 7, 2), (1, 7), None, None),
        sample((3, 5), (7, 5), (7, 2), None, None, None, causal=True),
    ]
    domain = ("normal", "normal", "normal", "normal", "bool", "bool")

    def definition(q, k, v, bias=None, mask=None, keep=None, causal=False, scale=None, p=0.0):
        T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
        scores = matmul(q, transposed(k)) * _scale(scale, D)
        if bias is not None:
            scores = scores + bias
        visible = _visible(np, mask, causal, T, S)
        if visible is not None:
            scores = masked_fill(scores, ~visible, -math.inf)
        if not S:
            return matmul(scores, v)
        blind = eq(amax(scores, -1, True), -math.inf)  # queries with nothing to see
        weights = where(blind, 0.0, softmax(where(blind, 0.0, scores), -1))
        if keep is not None:
            weights = weights * keep * _rescale(p)
        return matmul(weights, v)

    def forward(ctx, q, k, v, bias=None, mask=None, keep=None, causal=False, scale=None, p=0.0):
        T, S, D = q.shape[-2], k.shape[-2], q.shape[-1]
        scale = q.dtype.type(_scale(scale, D))
        scores = kernels.matmul(q * scale, k.swapaxes(-1, -2))  # (..., T, S)
        visible = _visible(array_module(q), mask, causal, T, S)
        scores = _masked(scores, bias, visible)
        masked = bias is not None or mask is not None  # `causal` alone leaves every query something to see
        weights = _weights(scores) if masked else kernels.softmax(scores)
        seen = weights if keep is None else weights * keep * q.dtype.type(_rescale(p))
        ctx.save(q, k, v, bias, mask, keep, weights)
        ctx.scale, ctx.p = scale, p
        return kernels.matmul(seen, v)

    def backward(ctx, dy):
        q, k, v, bias, _, keep, weights = ctx.saved
        kept = None if keep is None else keep * q.dtype.type(_rescale(ctx.p))
        seen = weights if kept is None else weights * kept
        dv = kernels.matmul(seen.swapaxes(-1, -2), dy)
        dweights = kernels.matmul(dy, v.swapaxes(-1, -2))
        if kept is not None:
            dweights *= kept
        dscores = kernels.softmax_backward(sum_to_size(dweights, weights.shape), weights)
        dq = kernels.matmul(dscores, k) * ctx.scale
        dk = kernels.matmul(dscores.swapaxes(-1, -2), q) * ctx.scale
        dbias = sum_to_size(dscores, bias.shape) if bias is not None else None
        return sum_to_size(dq, q.shape), sum_to_size(dk, k.shape), sum_to_size(dv, v.shape), dbias, None, None

    def torch(torch, q, k, v, bias=None, mask=None, keep=None, causal=False, scale=None, p=0.0):
        if keep is None:
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # it has second derivatives
                return torch.nn.functional.scaled_dot_product_attention(
                    q, k, v, bias if mask is None else mask, is_causal=causal, scale=scale
                )
        scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
        weights = torch.softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), -1)
        return (weights.nan_to_num(0.0) * keep / (1 - p)) @ v


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    generator: random.Generator | None = None,
) -> Tensor:
    """y = softmax(q k^T / sqrt(D) + mask) v: (..., T, D), (..., S, D), (..., S, E) -> (..., T, E).

    Args:
        attn_mask: boolean, True where a query may look, or floating, added to the scores; (..., T, S).
        dropout_p: the share of weights left out; it is applied whenever it is not 0.
        is_causal: query t sees keys 0 ... t only.
        scale: by default 1 / sqrt(D).
    Errors: ShapeError for shapes that do not fit, DtypeError for a mask of integers, ValueError for a dropout_p
        outside 0 ... 1.

    A query that may look nowhere gets zeros, never NaN. Source: Vaswani et al. 2017, equation 1.
    """
    if attn_mask is not None and attn_mask.dtype.kind not in "bf":
        raise DtypeError(f"attention: a mask is boolean or floating, not {attn_mask.dtype}")
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError(
            f"scaled_dot_product_attention: query {query.shape}, key {key.shape} and value {value.shape} "
            "need two axes each, (..., T, D)"
        )
    T, S = query.shape[-2], key.shape[-2]
    if attn_mask is not None:
        try:
            np.broadcast_shapes(attn_mask.shape, (T, S))
        except ValueError:
            raise ShapeError(f"attention: a mask of shape {attn_mask.shape} does not fit ({T}, {S}) scores") from None
    boolean = attn_mask is not None and attn_mask.dtype == bool
    keep = None
    if dropout_p:
        lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
        keep = keep_mask((*lead, T, S), dropout_p, generator)
    bias, mask = (None, attn_mask) if boolean else (attn_mask, None)
    return Attention.apply(query, key, value, bias, mask, keep, is_causal, scale, dropout_p)


def _scale(scale: float | None, D: int) -> float:
    return 1 / math.sqrt(D) if scale is None else scale


def _rescale(p: float) -> float:
    """What the weights that dropout keeps are multiplied by."""
    return 0.0 if p == 1 else 1 / (1 - p)


def _visible(xp: Any, mask: Any, causal: bool, T: int, S: int) -> Any:
    """Where queries may look, (..., T, S); None for everywhere."""
    if not causal:
        return mask
    below = xp.tri(T, S, dtype=bool)
    return below if mask is None else mask & below


def _masked(scores: Any, bias: Any, visible: Any) -> Any:
    """The scores with the bias added and -infinity wherever a query must not look; in place if that is possible."""
    if bias is not None:
        scores = scores + bias
    if visible is None:
        return scores
    xp = array_module(scores)
    if np.broadcast_shapes(visible.shape, scores.shape) != scores.shape:
        return xp.where(visible, scores, -math.inf).astype(scores.dtype)
    xp.copyto(scores, scores.dtype.type(-math.inf), where=~visible)
    return scores


def _weights(scores: Any) -> Any:
    """softmax of each row; a row of -infinity, of which it would make NaN, gives zeros."""
    blind = scores.max(-1, keepdims=True) == -math.inf if scores.size else scores.any()
    if not blind.any():
        return kernels.softmax(scores)
    xp = array_module(scores)
    return xp.where(blind, scores.dtype.type(0), kernels.softmax(xp.where(blind, scores.dtype.type(0), scores)))
