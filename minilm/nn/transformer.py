"""The Transformer of encoder and decoder, from PyTorch's five modules: two layers, two stacks, and both together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from minilm.creation import full
from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.attention import MultiheadAttention
from minilm.nn.container import ModuleList
from minilm.nn.dropout import Dropout
from minilm.nn.linear import Linear
from minilm.nn.module import Module
from minilm.nn.norm import LayerNorm
from minilm.ops.arrange import triu
from minilm.tensor import Tensor

Activation = str | Callable[[Tensor], Tensor]


class _Layer(Module):
    """Base: what the layers of both stacks have, self-attention and two linear maps, and how a sublayer is added.

    Args:
        d_model, nhead: E and H.
        dim_feedforward: the width between the two linear maps.
        dropout: of attention weights, of the values between the maps, and of what each sublayer adds.
        activation: "relu", "gelu" or a function.
        batch_first: (B, T, E) rather than (T, B, E).
        norm_first: x + f(norm(x)), as GPT-2 has it, rather than norm(x + f(x)).
        bias: False leaves all biases out.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        known = {"relu": F.relu, "gelu": F.gelu}
        if isinstance(activation, str) and activation not in known:
            raise ConfigError(f"{type(self).__name__}: activation is 'relu', 'gelu' or a function, not {activation!r}")
        self.activation = known[activation] if isinstance(activation, str) else activation
        self.norm_first = norm_first
        place = {"device": device, "dtype": dtype}

        def attention() -> MultiheadAttention:
            return MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **place)

        self.self_attn = attention()
        if self.sublayers == 3:
            self.multihead_attn = attention()
        self.linear1 = Linear(d_model, dim_feedforward, bias, **place)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **place)
        for number in range(1, self.sublayers + 1):
            setattr(self, f"norm{number}", LayerNorm(d_model, layer_norm_eps, bias=bias, **place))
        for number in range(1, self.sublayers + 1):
            setattr(self, f"dropout{number}", Dropout(dropout))

    sublayers = 0

    def _added(self, number: int, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x and what the sublayer of this number makes of it, with its norm and dropout."""
        norm, drop = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        if self.norm_first:
            return x + drop(sublayer(norm(x)))
        return norm(x + drop(sublayer(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        """linear2(activation(linear1 x)), each position by itself."""
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention, then two linear maps, each added to what came in: (T, B, E) -> the same.

    Args: see _Layer. Source: Vaswani et al. 2017, section 3.1; norm_first: Xiong et al. 2020.
    """

    sublayers = 2

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """See the class; masks as in MultiheadAttention: True where a query may *not* look, or numbers to add."""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]

        return self._added(2, self._added(1, src, attend), self._feed_forward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to the encoder's memory, then two linear maps: (T, B, E), (S, B, E) -> (T, B, E).

    Args: see _Layer. Source: Vaswani et al. 2017, section 3.1.
    """

    sublayers = 3

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """See the class; masks as in MultiheadAttention: True where a query may *not* look, or numbers to add."""

        def attend(x: Tensor) -> Tensor:
            return self.self_attn(x, x, x, tgt_key_padding_mask, False, tgt_mask, is_causal=tgt_is_causal)[0]

        def look(x: Tensor) -> Tensor:
            masks = memory_key_padding_mask, False, memory_mask
            return self.multihead_attn(x, memory, memory, *masks, is_causal=memory_is_causal)[0]

        return self._added(3, self._added(2, self._added(1, tgt, attend), look), self._feed_forward)


class _Stack(Module):
    """Base: copies of a layer on top of each other, and perhaps a norm at the end."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def _through(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """`num_layers` copies of an encoder layer, with the same values at first: (T, B, E) -> the same."""

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)  # the last two make PyTorch faster, and nothing else

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """See the class; masks as in TransformerEncoderLayer."""
        return self._through(src, mask, src_key_padding_mask, bool(is_causal))


class TransformerDecoder(_Stack):
    """`num_layers` copies of a decoder layer, with the same values at first: (T, B, E), (S, B, E) -> (T, B, E)."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """See the class; masks as in TransformerDecoderLayer."""
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        return self._through(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)


class Transformer(Module):
    """An encoder and a decoder, each with a norm at its end: src (S, B, E), tgt (T, B, E) -> (T, B, E).

    Matrices are at first uniform after Glorot. Embeddings, positions and the map to words are not part of it.

    Args: see _Layer; custom_encoder, custom_decoder: modules to take in their places.
    Source: Vaswani et al. 2017, figure 1.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = F.relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        settings: dict[str, Any] = {
            "dim_feedforward": dim_feedforward, "dropout": dropout, "activation": activation, "bias": bias,
            "layer_norm_eps": layer_norm_eps, "batch_first": batch_first, "norm_first": norm_first,
        }  # fmt: skip
        place = {"device": device, "dtype": dtype}

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, **place)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(d_model, nhead, **settings, **place), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(d_model, nhead, **settings, **place), num_decoder_layers, norm()
        )
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for parameter in self.parameters():
            if parameter.dim() > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """See the class; masks as in MultiheadAttention."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask
        return self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """(sz, sz): minus infinity where a query would look at a later key, else 0; to be added to the scores."""
        return triu(full((sz, sz), -math.inf, dtype=dtype, device=device), 1)
