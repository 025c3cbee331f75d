"""MultiheadAttention, with the parameters and options of PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm.creation import empty, full, zeros
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.linear import Linear
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.ops.attention import drop_weights
from minilm.ops.joining import cat
from minilm.tensor import Tensor


class MultiheadAttention(Module):
    """Each of H heads looks from T queries at S keys and brings back a mixture of their values.

        head_h = softmax(q_h k_h^T / sqrt(D)) v_h,   q_h, k_h, v_h: linear maps of query, key, value
        y = out_proj(head_1, ..., head_H)

    Shapes: query (T, B, E), key (S, B, kdim), value (S, B, vdim) -> (T, B, E); with `batch_first`
    (B, T, E) and so on; without a batch (T, E). E = H D.

    Args:
        embed_dim: E.
        num_heads: H.
        dropout: the share of attention weights that are dropped in training.
        bias: whether the linear maps add a bias.
        add_bias_kv: append a learnt key and value to every sequence.
        add_zero_attn: append a key and value of zeros to every sequence.
        kdim, vdim: the sizes of keys and values; E by default.

    Attributes:
        in_proj_weight: (3 E, E), the maps of query, key and value one below the other; with other
            sizes of keys or values instead q_proj_weight (E, E), k_proj_weight (E, kdim), v_proj_weight (E, vdim).
        in_proj_bias: (3 E).
        out_proj: Linear(E, E).

    Source: Vaswani et al. 2017, section 3.2. Unlike PyTorch's, a query that may look at nothing gets
    zeros, not NaN.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ConfigError(f"MultiheadAttention: {embed_dim} channels do not divide into {num_heads} heads")
        if not 0 <= dropout <= 1:
            raise ConfigError(f"MultiheadAttention: dropout must lie between 0 and 1, not {dropout}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.batch_first, self.add_zero_attn = dropout, batch_first, add_zero_attn
        same = self.kdim == self.vdim == embed_dim

        def weight(*shape: int, wanted: bool = True) -> Parameter | None:
            return Parameter(empty(*shape, dtype=dtype, device=device)) if wanted else None

        self.register_parameter("in_proj_weight", weight(3 * embed_dim, embed_dim, wanted=same))
        self.register_parameter("q_proj_weight", weight(embed_dim, embed_dim, wanted=not same))
        self.register_parameter("k_proj_weight", weight(embed_dim, self.kdim, wanted=not same))
        self.register_parameter("v_proj_weight", weight(embed_dim, self.vdim, wanted=not same))
        self.register_parameter("in_proj_bias", weight(3 * embed_dim, wanted=bias))
        self.out_proj = Linear(embed_dim, embed_dim, bias, device, dtype)
        self.register_parameter("bias_k", weight(1, 1, embed_dim, wanted=add_bias_kv))
        self.register_parameter("bias_v", weight(1, 1, embed_dim, wanted=add_bias_kv))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, as PyTorch does: Xavier's for the maps, 0 for their biases."""
        for matrix in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if matrix is not None:
                init.xavier_uniform_(matrix)
        self.out_proj.reset_parameters()
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for row in (self.bias_k, self.bias_v):
            if row is not None:
                init.xavier_normal_(row)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """See the class.

        Args:
            key_padding_mask: (B, S) or (S); True where a key is padding. A floating mask is added to the scores.
            need_weights: return the attention weights too; without them the fused operation is used.
            attn_mask: (T, S) or (B H, T, S); True where a query may *not* look. A floating mask is added.
            average_attn_weights: weights (B, T, S), the mean over the heads; else (B, H, T, S).
            is_causal: no query looks at a later key; needs no attn_mask here.

        Returns: the result, and the weights or None. Errors: ShapeError, DtypeError.
        """
        batched = self._check(query, key, value)
        if not batched:
            query, key, value = query.unsqueeze(0), key.unsqueeze(0), value.unsqueeze(0)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            same = query is key and key is value
            query = query.transpose(0, 1)
            key, value = (query, query) if same else (key.transpose(0, 1), value.transpose(0, 1))
        B, T, S = query.shape[0], query.shape[1], key.shape[1]
        # The fused operation knows causality by itself, unless something must be added to it.
        plain = attn_mask is None and key_padding_mask is None and self.bias_k is None and not self.add_zero_attn
        fused_causal = is_causal and plain and not need_weights
        masked_causal = is_causal and not fused_causal
        mask = self._mask(attn_mask, key_padding_mask, masked_causal, B, T, S, query.dtype)
        q, k, v = self._project(query, key, value)
        k, v, mask = self._extended(k, v, mask)
        p = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            y, weights = attend(self._heads(q), self._heads(k), self._heads(v), mask, p)
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            y = F.scaled_dot_product_attention(
                self._heads(q), self._heads(k), self._heads(v), mask, dropout_p=p, is_causal=fused_causal
            )
        y = self.out_proj(y.transpose(1, 2).reshape(B, T, self.embed_dim))  # (B, H, T, D) -> (B, T, E)
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The linear maps of all heads: each (B, T or S, E)."""
        if self.in_proj_weight is not None and query is key and key is value:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
            return q, k, v
        if self.in_proj_weight is not None:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, weight, bias) for x, weight, bias in zip((query, key, value), weights, biases))
        return q, k, v

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, D)."""
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _extended(self, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values (B, S, E) with the learnt one and the zeros behind them, at which all may look."""
        B, S = k.shape[:2]
        if self.bias_k is not None:
            k = cat([k, self.bias_k.expand(B, 1, -1)], 1)
            v = cat([v, self.bias_v.expand(B, 1, -1)], 1)
        if self.add_zero_attn:
            nothing = zeros(B, 1, self.embed_dim, dtype=k.dtype, device=k.device)
            k, v = cat([k, nothing], 1), cat([v, nothing], 1)
        added = k.shape[1] - S
        if mask is not None and added:
            visible = full((*mask.shape[:-1], added), mask.dtype == bool, dtype=mask.dtype)  # True, or 0 to add
            mask = cat([mask, visible], -1)
        return k, v, mask

    def _mask(
        self,
        attn_mask: Tensor | None,
        key_padding_mask: Tensor | None,
        is_causal: bool,
        B: int,
        T: int,
        S: int,
        dtype: Any,
    ) -> Tensor | None:
        """All masks as one that broadcasts to (B, H, T, S): True where a query may look, or numbers to add."""
        masks = []
        if attn_mask is not None:
            wanted = (T, S) if attn_mask.ndim == 2 else (B * self.num_heads, T, S)
            _check_mask("attn_mask", attn_mask, wanted)
            masks.append(attn_mask.reshape(*((1, 1) if attn_mask.ndim == 2 else (B, self.num_heads)), T, S))
        elif is_causal:
            masks.append(Tensor(~np.tri(T, S, dtype=bool)))
        if key_padding_mask is not None:
            _check_mask("key_padding_mask", key_padding_mask, (B, S))
            masks.append(key_padding_mask.reshape(B, 1, 1, S))
        if not masks:
            return None
        if all(mask.dtype == bool for mask in masks):
            blocked = masks[0] if len(masks) == 1 else masks[0] | masks[1]
            return ~blocked
        added = [_additive(~mask, dtype) if mask.dtype == bool else mask for mask in masks]
        return added[0] if len(added) == 1 else added[0] + added[1]

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Raise unless the shapes fit; True where there is a batch."""
        for name, x in (("query", query), ("key", key), ("value", value)):
            _check_tensor(name, x)
        given = f"query {query.shape}, key {key.shape}, value {value.shape}"
        if query.ndim not in (2, 3) or not query.ndim == key.ndim == value.ndim:
            raise ShapeError(f"MultiheadAttention: query, key and value all have 3 axes, or all 2, not {given}")
        sizes = (query.shape[-1], key.shape[-1], value.shape[-1])
        if sizes != (self.embed_dim, self.kdim, self.vdim):
            raise ShapeError(
                f"MultiheadAttention: {given} end in {sizes}, not in {(self.embed_dim, self.kdim, self.vdim)}"
            )
        batch = 0 if self.batch_first else 1
        if key.shape[:-1] != value.shape[:-1] or (query.ndim == 3 and query.shape[batch] != key.shape[batch]):
            raise ShapeError(f"MultiheadAttention: the batch or the number of keys differs: {given}")
        return query.ndim == 3


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> tuple[Tensor, Tensor]:
    """Attention step by step, for who wants to see the weights: q (B, H, T, D), k and v (B, H, S, D).

    A row in which everything is masked is opened for the softmax, which would give NaN, and its
    weights are set to 0 after it.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, H, T, S)
    dead = None
    if mask is not None:
        added = _additive(mask, q.dtype) if mask.dtype == bool else mask
        rows = np.isneginf(added.array).all(-1, keepdims=True)
        if rows.any():
            dead = Tensor(rows)
            added = added.masked_fill(dead, 0.0)
        scores = scores + added
    weights = F.softmax(scores, -1)
    if dead is not None:
        weights = weights.masked_fill(dead, 0.0)
    weights = drop_weights(weights, p) if p else weights
    return weights @ v, weights


def _additive(allowed: Tensor, dtype: Any) -> Tensor:
    """0 where a query may look, minus infinity elsewhere."""
    return Tensor(np.where(allowed.array, 0.0, -np.inf).astype(dtype))


def _check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"MultiheadAttention: {name} is a Tensor, not {type(x).__name__}")


def _check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    _check_tensor(name, mask)
    if mask.shape != shape:
        raise ShapeError(f"MultiheadAttention: {name} has shape {mask.shape}, {shape} was expected")
    if mask.dtype.kind not in "bf":
        raise DtypeError(f"MultiheadAttention: {name} is boolean or floating, not {mask.dtype}")
