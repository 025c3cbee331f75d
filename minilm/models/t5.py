"""T5: an encoder and a decoder that know no positions, only how far tokens stand from each other.

    x = x + part(RMSNorm(x)),   attention's weights = softmax(q k^T + bias[bucket of the distance])

The biases are learnt, one for each head and bucket; the first layer holds them, and all of a stack use them.

Source: Raffel et al. 2020, section 2.1; the gated feed-forward part of version 1.1 is from Shazeer 2020. Parameters
have the names that Hugging Face gives them.

B batch, S and T positions, C channels, H heads, V vocabulary, N tokens that are computed (`positions.Positions`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minilm import nn
from minilm.autograd import is_grad_enabled
from minilm.generation import LayerCache
from minilm.models.activations import ACTIVATIONS, linear_activation
from minilm.models.positions import Positions
from minilm.models.seq2seq import Attention, Seq2SeqModel
from minilm.models.seq2seq_cache import DecoderCache, SourceCache
from minilm.models.t5_config import T5Config
from minilm.nn.recompute import recompute
from minilm.tensor import Tensor

Array = Any


def buckets(distances: Array, count: int, farthest: int, both_sides: bool) -> Array:
    """The bucket, 0 ... count - 1, of each distance (key's position less the query's), int64.

    Small distances have a bucket each, larger ones share buckets that widen like logarithms up to `farthest`. Keys
    behind the query have the second half of the buckets; where there are none (not `both_sides`), all are for the past.

    Source: Raffel et al. 2020, section 2.1; the formula is that of their code (Mesh TensorFlow), in float32 as there.
    """
    shift: Array = 0
    if both_sides:
        count //= 2
        shift, distances = np.where(distances > 0, count, 0), np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    exact = count // 2  # that many have a bucket each
    ratio = np.maximum(distances, exact).astype(np.float32) / np.float32(exact)
    widened = np.log(ratio) / np.float32(math.log(farthest / exact)) * np.float32(count - exact)
    far = np.minimum(exact + widened.astype(np.int64), count - 1)
    return shift + np.where(distances < exact, distances, far)


class T5Attention(Attention):
    """Attention without biases in its maps and without a scale; the first of a stack holds the distances' biases."""

    names = ("q", "k", "v", "o")

    def __init__(self, config: T5Config, first: bool = False) -> None:
        super().__init__(config.d_model, config.num_heads, config.d_kv, config.dropout_rate, bias=False, scale=1.0)
        if first:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)
        self.farthest = config.relative_attention_max_distance

    def distance_bias(self, queries: int, keys: int, both_sides: bool) -> Tensor:
        """What is added to the scores of the last `queries` of so many tokens: (1, H, queries, keys)."""
        table = self.relative_attention_bias
        away = np.arange(keys) - np.arange(keys - queries, keys)[:, None]
        found = buckets(away, table.num_embeddings, self.farthest, both_sides)
        return table(Tensor(found)).permute(2, 0, 1).unsqueeze(0)


class T5Dense(nn.Module):
    """Each token by itself: wo(act(wi x)), or wo(act(wi_0 x) * wi_1 x): (N, C) -> (N, C)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        for name in ("wi_0", "wi_1") if config.gated else ("wi",):
            setattr(self, name, nn.Linear(config.d_model, config.d_ff, bias=False))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.gated, self.activation, self.p = config.gated, ACTIVATIONS[config.activation], config.dropout_rate

    def forward(self, x: Tensor, positions: Positions) -> Tensor:
        """See the class."""
        weight = (self.wi_0 if self.gated else self.wi).weight
        h = linear_activation(x, weight, None, self.activation)
        h = h * self.wi_1(x) if self.gated else h
        return self.wo(positions.dropout(h, self.p) if self.training else h)


class T5Block(nn.Module):
    """Self-attention, in a decoder attention to the memory, and a feed-forward part: (N, C) -> (N, C)."""

    def __init__(self, config: T5Config, decoder: bool, first: bool) -> None:
        super().__init__()
        self.decoder, self.p = decoder, config.dropout_rate

        def part(name: str, module: nn.Module) -> nn.ModuleDict:
            return nn.ModuleDict({name: module, "layer_norm": nn.RMSNorm(config.d_model, config.layer_norm_epsilon)})

        parts = [part("SelfAttention", T5Attention(config, first))]
        parts += [part("EncDecAttention", T5Attention(config))] if decoder else []
        self.layer = nn.ModuleList([*parts, part("DenseReluDense", T5Dense(config))])

    def forward(
        self,
        x: Tensor,
        bias: Tensor,
        memory: Any = None,
        *,
        positions: Positions,
        source: Any = None,
        visible: Tensor | None = None,
        own: LayerCache | None = None,
        keys_values: tuple[Tensor, Tensor] | SourceCache | None = None,
        weights: list[Tensor] | None = None,
        cross: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class.

        Args:
            bias: what is added to the scores of self-attention, (1, H, T, T).
            memory, source: the memory's rows (N, C) and their positions; or `keys_values`, which were made of them.
            visible: where the memory may be looked at. own: what earlier tokens left.
        """
        first, last = self.layer[0], self.layer[-1]
        h = first["SelfAttention"].among(first["layer_norm"](x), positions, self.decoder, bias, own, weights)
        if self.decoder:
            look = self.layer[1]
            x, given = look["layer_norm"](self._dropped(h, positions), residual=x)
            attention = look["EncDecAttention"]
            if keys_values is None:
                keys_values = attention.keys_values(memory, source)
            h = attention.at(given, positions, keys_values, visible, cross)
        x, given = last["layer_norm"](self._dropped(h, positions), residual=x)
        return x + self._dropped(last["DenseReluDense"](given, positions), positions)

    def _dropped(self, h: Tensor, positions: Positions) -> Tensor:
        return positions.dropout(h, self.p) if self.training else h


class T5Stack(nn.Module):
    """Tokens (B, T) -> the last layer's normalised states (N, C); a decoder looks at the memory too."""

    def __init__(self, config: T5Config, embed_tokens: nn.Embedding, decoder: bool) -> None:
        super().__init__()
        layers = config.num_decoder_layers if decoder else config.num_layers
        self.embed_tokens = embed_tokens
        self.block = nn.ModuleList([T5Block(config, decoder, first=not i) for i in range(layers or 0)])
        self.final_layer_norm = nn.RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.decodes, self.p = decoder, config.dropout_rate
        self.recompute = False  # compute the layers' activations again in the backward, and keep only their inputs

    def through(
        self,
        ids: Tensor,
        positions: Positions,
        memory: Any = None,
        source: Any = None,
        cache: DecoderCache | None = None,
        states: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
        cross: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class. What each layer is given, and what comes out at last, is appended to `states`.

        Args:
            memory, source: the memory's rows (N, C) and their positions; or a `cache`, which holds what was made of it,
                and earlier tokens.
        """
        T, past = positions.shape[1], 0 if cache is None else cache.length
        x = self._dropped(self.embed_tokens(positions.rows(ids)), positions)
        bias = self.block[0].layer[0]["SelfAttention"].distance_bias(T, past + T, not self.decodes)
        visible = source.visible if self.decodes and cache is None else None
        for number, block in enumerate(self.block):
            if states is not None:
                states.append(positions.grid(x))
            if cache is not None:
                kept = {"own": cache.layers[number], "keys_values": cache.sources[number]}
                x = block(x, bias, positions=positions, visible=visible, **kept)
            elif self.recompute and weights is None and is_grad_enabled():
                inputs = (x, bias, memory) if self.decodes else (x, bias)
                x = recompute(block, *inputs, positions=positions, source=source, visible=visible)
            else:
                shown = {"weights": weights, "cross": cross}
                x = block(x, bias, memory, positions=positions, source=source, visible=visible, **shown)
        x = self._dropped(self.final_layer_norm(x), positions)
        if states is not None:
            states.append(positions.grid(x))
        return x

    def _dropped(self, h: Tensor, positions: Positions) -> Tensor:
        return positions.dropout(h, self.p) if self.training else h


class T5Encoder(T5Stack):
    """Source tokens (B, S) -> memory (N, C)."""

    def __init__(self, config: T5Config, embed_tokens: nn.Embedding) -> None:
        super().__init__(config, embed_tokens, decoder=False)

    def forward(
        self,
        ids: Tensor,
        positions: Positions,
        states: list[Tensor] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """See the class."""
        return self.through(ids, positions, states=states, weights=weights)


class T5Decoder(T5Stack):
    """Target tokens (B, T) and the memory's rows -> (N, C)."""

    def __init__(self, config: T5Config, embed_tokens: nn.Embedding) -> None:
        super().__init__(config, embed_tokens, decoder=True)

    def forward(self, ids: Tensor, positions: Positions, memory: Any, source: Any, *more: Any) -> Tensor:
        """See the class; `more` as in `through`."""
        return self.through(ids, positions, memory, source, *more)


class T5ForConditionalGeneration(Seq2SeqModel):
    """The model that answers a text with a text: tokens (B, S), and an answer's first (B, T) -> logits (B, T, V)."""

    config_class = T5Config
    prefix = ""
    body = ("shared.", "encoder.", "decoder.")
    beside_body = ()
    constants = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)  # that nobody ever used
    usual_length = 512

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config, self.shared)
        self.decoder = T5Decoder(config, self.shared)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialise(self)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.shared.weight

    def initialise(self, part: nn.Module) -> None:
        """Initial values: normal, with deviations that keep the sizes of scores and states, since nothing is scaled."""
        c = self.config

        def draw(weight: Tensor, deviation: float) -> None:
            nn.init.normal_(weight, std=c.initializer_factor * deviation)

        for module in part.modules():
            if module in (self.shared, self.lm_head):
                draw(module.weight, 1.0)
            elif isinstance(module, T5Attention):
                draw(module.q.weight, (c.d_model * c.d_kv) ** -0.5)
                draw(module.k.weight, c.d_model**-0.5)
                draw(module.v.weight, c.d_model**-0.5)
                draw(module.o.weight, (c.num_heads * c.d_kv) ** -0.5)
            elif isinstance(module, nn.Embedding):  # of distances
                draw(module.weight, c.d_model**-0.5)
            elif isinstance(module, T5Dense):
                for name in ("wi_0", "wi_1") if module.gated else ("wi",):
                    draw(getattr(module, name).weight, c.d_model**-0.5)
                draw(module.wo.weight, c.d_ff**-0.5)
            elif isinstance(module, nn.RMSNorm):
                nn.init.constant_(module.weight, c.initializer_factor)

    def meet(self, weights: Mapping[str, Tensor]) -> None:
        """As in Hugging Face's library the head is tied where the file has none, whatever the configuration says."""
        super().meet(weights)
        if "lm_head.weight" not in weights:
            self.lm_head.weight = self.shared.weight
            self.config.tie_word_embeddings = True

    @property
    def recompute(self) -> bool:
        """Whether the layers' activations are computed again in the backward."""
        return self.encoder.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.encoder.recompute = self.decoder.recompute = value

    def looks(self) -> list[Attention]:
        """The decoder's attentions to the memory."""
        return [block.layer[1]["EncDecAttention"] for block in self.decoder.block]

    def before_head(self, x: Tensor) -> Tensor:
        """The states, made smaller where the embeddings' matrix makes the scores."""
        return x * self.config.d_model**-0.5 if self.config.scale_decoder_outputs else x

    def head(self) -> tuple[Tensor, Tensor | None]:
        """The matrix (V, C); there is no bias."""
        return self.lm_head.weight, None
