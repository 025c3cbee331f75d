"""Marian: the Transformer of encoder and decoder that translates.

    source (B, S) -> embeddings and positions -> L layers: each token looks at its sentence  -> memory (B, S, C)
    target (B, T) -> embeddings and positions -> L layers: at what came before, and at the memory  -> (B, T, C)
                  -> scores of the next token (B, T, V), by the matrix of the embeddings

Sources: Vaswani et al. 2017; Junczys-Dowmunt et al. 2018 (Marian). Parameters have the names that Hugging Face gives
them. With `normalize_before` the layers are pre-norm (Xiong et al. 2020), with mBART's names.

B batch, S and T positions, C channels, V vocabulary, N tokens that are computed (`positions.Positions`).
"""

from __future__ import annotations

import math
from typing import Any

from minilm import nn
from minilm.autograd import is_grad_enabled
from minilm.creation import zeros
from minilm.generation import LayerCache
from minilm.models.activations import ACTIVATIONS, linear_activation
from minilm.models.marian_config import MarianConfig
from minilm.models.positions import Positions
from minilm.models.pretrained import PretrainedModel
from minilm.models.seq2seq import Attention, EncoderDecoder, Seq2SeqModel
from minilm.models.seq2seq_cache import DecoderCache, SourceCache
from minilm.nn.recompute import recompute
from minilm.tensor import Tensor


class MarianLayer(nn.Module):
    """Base: attention to one's own sentence and a feed-forward part, each added to what came in and normalised.

    x = LayerNorm(x + part(x)),   or x + part(LayerNorm(x)) with `normalize_before`
    """

    def __init__(self, config: MarianConfig, heads: int, inner: int) -> None:
        super().__init__()
        C = config.d_model
        self.before, self.p, self.p_inner = config.normalize_before, config.dropout, config.activation_dropout
        self.activation = ACTIVATIONS[config.activation_function]
        self.self_attn = Attention(C, heads, C // heads, config.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(C)
        self.fc1 = nn.Linear(C, inner)
        self.fc2 = nn.Linear(inner, C)
        self.final_layer_norm = nn.LayerNorm(C)

    def added(self, x: Tensor, h: Tensor, norm: nn.LayerNorm, positions: Positions) -> Tensor:
        """x and what a part made of it, h: (N, C)."""
        h = positions.dropout(h, self.p) if self.training else h
        return x + h if self.before else norm(h, residual=x)[1]

    def given(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """What a part is given of x: (N, C)."""
        return norm(x) if self.before else x

    def feed_forward(self, x: Tensor, positions: Positions) -> Tensor:
        """The last part, each token by itself: (N, C) -> (N, C)."""
        h = self.given(x, self.final_layer_norm)
        h = linear_activation(h, self.fc1.weight, self.fc1.bias, self.activation)
        h = positions.dropout(h, self.p_inner) if self.training else h
        return self.added(x, self.fc2(h), self.final_layer_norm, positions)


class MarianEncoderLayer(MarianLayer):
    """Self-attention, then the feed-forward part: (N, C) -> (N, C)."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config, config.encoder_attention_heads, config.encoder_ffn_dim)

    def forward(self, x: Tensor, positions: Positions, weights: list[Tensor] | None = None) -> Tensor:
        """See the class."""
        h = self.self_attn.among(self.given(x, self.self_attn_layer_norm), positions, weights=weights)
        return self.feed_forward(self.added(x, h, self.self_attn_layer_norm, positions), positions)


class MarianDecoderLayer(MarianLayer):
    """Attention to what came before, then to the memory, then the feed-forward part: (N, C) -> (N, C)."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config, config.decoder_attention_heads, config.decoder_ffn_dim)
        heads = config.decoder_attention_heads
        self.encoder_attn = Attention(config.d_model, heads, config.d_model // heads, config.attention_dropout)
        self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self,
        x: Tensor,
        memory: Any,
        positions: Positions,
        source: Any,
        visible: Tensor | None = None,
        own: LayerCache | None = None,
        keys_values: tuple[Tensor, Tensor] | SourceCache | None = None,
        weights: list[Tensor] | None = None,
        cross: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class.

        Args:
            memory, source: the memory's rows (N, C) and their positions; or `keys_values`, which were made of them.
            visible: where the memory may be looked at. own: what earlier tokens left.
        """
        norm = self.self_attn_layer_norm
        h = self.self_attn.among(self.given(x, norm), positions, causal=True, cache=own, weights=weights)
        x = self.added(x, h, norm, positions)
        norm = self.encoder_attn_layer_norm
        if keys_values is None:
            keys_values = self.encoder_attn.keys_values(memory, source)
        h = self.encoder_attn.at(self.given(x, norm), positions, keys_values, visible, cross)
        return self.feed_forward(self.added(x, h, norm, positions), positions)


class MarianStack(nn.Module):
    """Base: tokens and positions as vectors, and layers."""

    def __init__(self, config: MarianConfig, vocab_size: int, layers: list[Any]) -> None:
        super().__init__()
        C, T = config.d_model, config.max_position_embeddings
        self.embed_tokens = nn.Embedding(vocab_size, C, padding_idx=config.pad_token_id)
        fixed = config.static_position_embeddings
        self.embed_positions = nn.SinusoidalPositions(T, C, interleaved=False) if fixed else nn.Embedding(T, C)
        self.layers = nn.ModuleList(layers)
        self.layer_norm: Any = nn.LayerNorm(C) if config.normalize_before else None
        self.scale, self.p = math.sqrt(C) if config.scale_embedding else 1.0, config.dropout
        self.recompute = False  # compute the layers' activations again in the backward, and keep only their inputs

    def embedded(self, ids: Tensor, positions: Positions, past: int = 0) -> Tensor:
        """Tokens (B, T) behind `past` others, as the first layer is given them: (N, C)."""
        x = self.embed_tokens(positions.rows(ids))
        x = (x if self.scale == 1 else x * self.scale) + self.embed_positions(Tensor(positions.times + past))
        return positions.dropout(x, self.p) if self.training else x

    def ended(self, x: Tensor) -> Tensor:
        """What the last layer gives, normalised if that has not been done."""
        return x if self.layer_norm is None else self.layer_norm(x)

    def again(self, weights: list[Tensor] | None) -> bool:
        """Whether a layer is computed again in the backward."""
        return self.recompute and weights is None and is_grad_enabled()


class MarianEncoder(MarianStack):
    """Source tokens (B, S) -> memory (N, C)."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config, config.vocab_size, [MarianEncoderLayer(config) for _ in range(config.encoder_layers)])

    def forward(
        self,
        ids: Tensor,
        positions: Positions,
        states: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class. What each layer is given, and what comes out at last, is appended to `states`."""
        x = self.embedded(ids, positions)
        for layer in self.layers:
            if states is not None:
                states.append(positions.grid(x))
            x = recompute(layer, x, positions=positions) if self.again(weights) else layer(x, positions, weights)
        x = self.ended(x)
        if states is not None:
            states.append(positions.grid(x))
        return x


class MarianDecoder(MarianStack):
    """Target tokens (B, T) and the memory's rows -> (N, C)."""

    def __init__(self, config: MarianConfig) -> None:
        V = config.decoder_vocab_size or config.vocab_size
        super().__init__(config, V, [MarianDecoderLayer(config) for _ in range(config.decoder_layers)])

    def forward(
        self,
        ids: Tensor,
        positions: Positions,
        memory: Any,
        source: Any,
        cache: DecoderCache | None = None,
        states: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
        cross: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class; with a cache the tokens follow those that are in it, and it holds the memory too."""
        x = self.embedded(ids, positions, 0 if cache is None else cache.length)
        visible = source.visible if cache is None else None
        for number, layer in enumerate(self.layers):
            if states is not None:
                states.append(positions.grid(x))
            if cache is not None:
                x = layer(x, None, positions, None, visible, cache.layers[number], cache.sources[number])
            elif self.again(weights):
                x = recompute(layer, x, memory, positions=positions, source=source, visible=visible)
            else:
                x = layer(x, memory, positions, source, visible, weights=weights, cross=cross)
        x = self.ended(x)
        if states is not None:
            states.append(positions.grid(x))
        return x


class MarianLayout(PretrainedModel):
    """What the two models below have of Hugging Face's layout."""

    config_class = MarianConfig
    prefix = "model."
    body = ("shared.", "encoder.", "decoder.")
    beside_body, constants = (), ()

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        fixed = ("embed_positions.weight",) if config.static_position_embeddings else ()
        self.made = ("final_logits_bias", *fixed)  # both follow from the configuration, if a file says nothing else


class MarianModel(MarianLayout, EncoderDecoder):
    """Encoder and decoder without a head: tokens (B, S), (B, T) -> last_hidden_state (B, T, C)."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        self.max_positions = config.max_position_embeddings
        if config.share_encoder_decoder_embeddings:
            self.shared = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.encoder = MarianEncoder(config)
        self.decoder = MarianDecoder(config)
        if config.share_encoder_decoder_embeddings:
            self.encoder.embed_tokens = self.decoder.embed_tokens = self.shared
        self.initialise(self)


class MarianMTModel(MarianLayout, Seq2SeqModel):
    """The model that translates: tokens (B, S), and a target's first (B, T) -> logits (B, T, V)."""

    def __init__(self, config: MarianConfig) -> None:
        super().__init__(config)
        self.model = MarianModel(config)
        self.unwritten = self.made[1:]  # as in Hugging Face's files
        self.max_positions = self.usual_length = config.max_position_embeddings
        V = config.decoder_vocab_size or config.vocab_size
        self.register_buffer("final_logits_bias", zeros(1, V))
        self.lm_head = nn.Linear(config.d_model, V, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.decoder.embed_tokens.weight
        else:
            self.initialise(self.lm_head)

    @property
    def encoder(self) -> MarianEncoder:
        """Source tokens -> memory."""
        return self.model.encoder

    @property
    def decoder(self) -> MarianDecoder:
        """Target tokens and memory -> states."""
        return self.model.decoder

    @property
    def recompute(self) -> bool:
        """Whether the layers' activations are computed again in the backward."""
        return self.encoder.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.encoder.recompute = self.decoder.recompute = value

    def looks(self) -> list[Attention]:
        """The decoder's attentions to the memory."""
        return [layer.encoder_attn for layer in self.decoder.layers]

    def before_head(self, x: Tensor) -> Tensor:
        """The head is given the states as they are."""
        return x

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, C) and the bias (V), if it is anything: of a new model it is 0, and stays so."""
        bias = self.final_logits_bias
        return self.lm_head.weight, bias.reshape(-1) if bias.array.any() else None
