"""Strategies for what models are made of and fed with: token numbers, and small modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from minilm import nn
from minilm.tensor import Tensor
from minilm.testing.strategies.arrays import Array, arrays


@st.composite
def token_batches(
    draw: DrawFn, vocabulary: int = 7, max_batch: int = 3, max_time: int = 5, padding: int | None = None
) -> Array:
    """Token numbers (B, T), int64, each from 0 to `vocabulary - 1`; B and T are at least 1.

    Args:
        vocabulary: V, how many tokens there are.
        padding: the token that fills sequences of different lengths to T at their ends, but for the first token;
            None for sequences that all have T tokens. It does not occur elsewhere.

    Errors: ValueError where no token is left to draw.
    """
    tokens = [token for token in range(vocabulary) if token != padding]
    if not tokens:
        raise ValueError(f"a vocabulary of {vocabulary} without the token {padding} has none to draw")
    B, T = draw(st.integers(1, max_batch)), draw(st.integers(1, max_time))
    batch = np.asarray(draw(st.lists(st.sampled_from(tokens), min_size=B * T, max_size=B * T)), np.int64).reshape(B, T)
    if padding is not None:
        for row in batch:
            row[T - draw(st.integers(0, T - 1)) :] = padding
    return batch


@st.composite
def modules(draw: DrawFn, dtype: Any = "float64", max_parts: int = 3) -> tuple[nn.Module, Tensor]:
    """A small module in training mode and an input that fits it, (B, T, C) or token numbers (B, T).

    One layer, or a Sequential of up to `max_parts`, with an Embedding before them where the input is tokens. Every
    module gives the same values each time (nothing is dropped); its parameters are drawn, none of them zero
    throughout, so that no gradient is zero only because of how layers start. Shrinks to a single layer with sizes of
    1, such as Embedding(1, 1).
    """
    C = draw(st.integers(1, 4))
    parts: list[nn.Module] = []
    if draw(st.booleans()):
        V = draw(st.integers(1, 5))
        x: Tensor = Tensor(draw(token_batches(V)))
        parts.append(nn.Embedding(V, C))
    else:
        shape = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), C)
        x = Tensor(draw(arrays(shape, dtype, specials=())), requires_grad=True)
    for _ in range(draw(st.integers(0 if parts else 1, max_parts))):
        part, C = draw(st.sampled_from(_LAYERS))(draw, C)
        parts.append(part)
    module = (parts[0] if len(parts) == 1 else nn.Sequential(*parts)).to(dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    for parameter in module.parameters():
        parameter.array[...] = rng.normal(0, 0.5, parameter.shape).astype(np.float32)
    return module, x


class _SelfAttention(nn.Module):
    """MultiheadAttention from x to x, so that it can stand in a Sequential."""

    def __init__(self, channels: int, heads: int, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.attention(x, x, x, need_weights=False)[0]


def _linear(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    out = draw(st.integers(1, 4))
    return nn.Linear(C, out, bias=draw(st.booleans())), out


def _layer_norm(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    return nn.LayerNorm(C, elementwise_affine=draw(st.booleans())), C


def _rms_norm(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    return nn.RMSNorm(C, elementwise_affine=draw(st.booleans())), C


def _attention(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    heads = draw(st.sampled_from([h for h in range(1, C + 1) if C % h == 0]))
    options = {key: draw(st.booleans()) for key in ("bias", "add_bias_kv", "add_zero_attn")}
    return _SelfAttention(C, heads, **options), C


def _activation(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    return draw(st.sampled_from([nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Identity]))(), C


def _softmax(draw: DrawFn, C: int) -> tuple[nn.Module, int]:
    return draw(st.sampled_from([nn.Softmax, nn.LogSoftmax]))(dim=draw(st.sampled_from([-1, 1]))), C


_LAYERS: list[Callable[[DrawFn, int], tuple[nn.Module, int]]] = [
    _linear,
    _layer_norm,
    _rms_norm,
    _attention,
    _activation,
    _softmax,
]
