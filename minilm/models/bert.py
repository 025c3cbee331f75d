"""BERT: a stack of Transformer layers in which each token looks at all others, to both sides.

    tokens (B, T) -> embeddings (B, T, C) -> L layers (B, T, C);  the first token's channels -> pooled (B, C)

Sources: Devlin et al. 2019 (BERT); the layer is the encoder's of Vaswani et al. 2017. Parameters have the names that
Hugging Face gives them, so that weights travel by name. What is put on top stands in bert_heads.py.

B batch, T time (positions), C channels, H heads, V vocabulary, L layers, N tokens that are computed (Positions).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import nn
from minilm.autograd import is_grad_enabled
from minilm.errors import DtypeError, ShapeError
from minilm.models.activations import ACTIVATIONS, linear_activation
from minilm.models.bert_config import BertConfig
from minilm.models.outputs import Output
from minilm.models.positions import Positions
from minilm.models.pretrained import PretrainedModel, initialise
from minilm.nn import functional as F
from minilm.nn.attention import attend
from minilm.nn.recompute import recompute
from minilm.ops.joining import cat
from minilm.tensor import Tensor


class BertEmbeddings(nn.Module):
    """A token's vector, its segment's and its position's, added and normalised: tokens -> (N, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, C, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, C)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, C)
        self.LayerNorm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(
        self, positions: Positions, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor | None
    ) -> Tensor:
        """See the class; all three numbers are (B, T). By default all segments are 0 and positions 0, 1, ..."""
        B, T = positions.shape
        if token_type_ids is None:
            token_type_ids = Tensor(np.zeros((B, T), np.int64))
        if position_ids is None:
            position_ids = Tensor(np.arange(T)[None].repeat(B, 0))
        x = self.word_embeddings(positions.rows(input_ids))  # (N, C)
        x = x + self.token_type_embeddings(positions.rows(token_type_ids))
        _, x = self.LayerNorm(x, residual=self.position_embeddings(positions.rows(position_ids)))
        return positions.dropout(x, self.p) if self.training else x


class BertSelfAttention(nn.Module):
    """Each token looks at all others, in H heads side by side: (N, C) -> (N, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        C = config.hidden_size
        self.heads, self.p = config.num_attention_heads, config.attention_probs_dropout_prob
        self.query, self.key, self.value = nn.Linear(C, C), nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor, positions: Positions, attentions: list[Tensor] | None = None) -> Tensor:
        """See the class. The weights (B, H, T, T) are appended to `attentions`, if it is given."""
        maps = self.query, self.key, self.value  # as one product, three times as wide
        qkv = F.linear(x, cat([m.weight for m in maps]), cat([m.bias for m in maps]))  # (N, 3 C)
        p = self.p if self.training else 0.0
        if attentions is None and positions.starts is not None:
            return F.packed_self_attention(qkv, self.heads, positions.starts, positions.shape[1], p)
        qkv = positions.grid(qkv)  # (B, T, 3 C)
        if attentions is None:
            return positions.rows(F.self_attention(qkv, self.heads, positions.visible, dropout_p=p))
        B, T, P = qkv.shape
        q, k, v = qkv.reshape(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D)
        y, weights = attend(q, k, v, positions.visible, p)
        attentions.append(weights)
        return positions.rows(y.transpose(1, 2).reshape(B, T, P // 3))

    def first(self, x: Tensor, positions: Positions) -> Tensor:
        """The same of each sentence's first token alone, which looks at all: (N, C) -> (B, C)."""
        (B, T), C = positions.shape, x.shape[-1]
        maps = self.key, self.value
        kv = positions.grid(F.linear(x, cat([m.weight for m in maps]), cat([m.bias for m in maps])))
        k, v = kv.reshape(B, T, 2, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # each (B, H, T, D)
        q = self.query(x[positions.first]).reshape(B, self.heads, 1, -1)
        p = self.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, positions.visible, dropout_p=p).reshape(B, C)


class BertSelfOutput(nn.Module):
    """A linear map, added to what came before it, and normalised: (N, I), (N, C) -> (N, C)."""

    def __init__(self, config: BertConfig, inputs: int | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs or config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.p = config.hidden_dropout_prob

    def forward(self, h: Tensor, x: Tensor, positions: Positions) -> Tensor:
        """See the class."""
        h = self.dense(h)
        _, y = self.LayerNorm(positions.dropout(h, self.p) if self.training else h, residual=x)
        return y


class BertAttention(nn.Module):
    """Attention and the linear map behind it: (N, C) -> (N, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertSelfOutput(config)

    def forward(self, x: Tensor, positions: Positions, attentions: list[Tensor] | None = None) -> Tensor:
        """See the class."""
        return self.output(self.self(x, positions, attentions), x, positions)


class BertDense(nn.Module):
    """A linear map and the activation: (N, C) -> (N, O)."""

    def __init__(self, config: BertConfig, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, outputs)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return linear_activation(x, self.dense.weight, self.dense.bias, self.activation)


class BertLayer(nn.Module):
    """Attention, then a feed-forward part, each added to what it was given and normalised: (N, C) -> (N, C).

    x = LayerNorm(x + attention(x))
    x = LayerNorm(x + W2 gelu(W1 x))
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertDense(config, config.intermediate_size)
        self.output = BertSelfOutput(config, config.intermediate_size)

    def forward(self, x: Tensor, positions: Positions, attentions: list[Tensor] | None = None) -> Tensor:
        """See the class."""
        x = self.attention(x, positions, attentions)
        return self.output(self.intermediate(x), x, positions)

    def first(self, x: Tensor, positions: Positions) -> Tensor:
        """The same of each sentence's first token alone: (N, C) -> (B, C)."""
        chosen = positions.only_first()
        x = self.attention.output(self.attention.self.first(x, positions), x[positions.first], chosen)
        return self.output(self.intermediate(x), x, chosen)


class BertEncoder(nn.Module):
    """The layers, one after the other: (N, C) -> (N, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList([BertLayer(config) for _ in range(config.num_hidden_layers)])
        self.recompute = False  # compute the layers' activations again in the backward, and keep only their inputs

    def forward(
        self,
        x: Tensor,
        positions: Positions,
        states: list[Tensor] | None = None,
        attentions: list[Tensor] | None = None,
        only_first: bool = False,
    ) -> Tensor:
        """See the class. What each layer is given and the last one gives is appended to `states`, if that is given.

        `only_first`: give the first positions' states (B, C), for which the last layer does hardly any work.
        """
        for number, layer in enumerate(self.layer, 1):
            if only_first and number == len(self.layer):
                return layer.first(x, positions)
            if states is not None:
                states.append(positions.grid(x))
            if self.recompute and attentions is None and is_grad_enabled():
                x = recompute(layer, x, positions=positions)
            else:
                x = layer(x, positions, attentions)
        if states is not None:
            states.append(positions.grid(x))
        return x[positions.first] if only_first else x


class BertPooler(nn.Module):
    """A sentence's first token, through one more layer: (B, C) -> (B, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return F.tanh(self.dense(x))


class BertModel(PretrainedModel):
    """The encoder without a head: tokens (B, T) -> last_hidden_state (B, T, C), pooler_output (B, C).

    Args:
        add_pooling_layer: False leaves the pooler out.
    """

    config_class = BertConfig

    def __init__(self, config: BertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler: Any = BertPooler(config) if add_pooling_layer else None
        initialise(self, config)

    @property
    def recompute(self) -> bool:
        """Whether the layers' activations are computed again in the backward."""
        return self.encoder.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.encoder.recompute = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        pack: bool = False,
    ) -> Output:
        """See the class.

        Args:
            input_ids: (B, T) numbers of tokens.
            attention_mask: (B, T), 0 where there is padding, which no token looks at; by default none is.
            token_type_ids: (B, T), the segment of each token; by default 0.
            position_ids: (B, T) or (1, T); by default 0, 1, ...
            output_hidden_states: return `hidden_states` too, what each layer was given and the last one gave.
            output_attentions: return `attentions` too, each layer's weights (B, H, T, T).
            pack: compute nothing for padding: states are 0 there. Elsewhere it changes nothing, and saves its time.
        Errors: ShapeError for shapes that do not fit, IndexError for numbers outside of the tables.
        """
        positions = positions_of(self.config, input_ids, attention_mask, pack)
        states: list[Tensor] | None = [] if output_hidden_states else None
        attentions: list[Tensor] | None = [] if output_attentions else None
        x = self.encode(positions, input_ids, token_type_ids, position_ids, states, attentions)
        return Output(
            last_hidden_state=positions.grid(x),
            pooler_output=None if self.pooler is None else self.pooler(x[positions.first]),
            hidden_states=None if states is None else tuple(states),
            attentions=None if attentions is None else tuple(attentions),
        )

    def encode(
        self,
        positions: Positions,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        states: list[Tensor] | None = None,
        attentions: list[Tensor] | None = None,
        only_first: bool = False,
    ) -> Tensor:
        """The last layer's states of the positions that are computed, (N, C), or of the first ones (B, C)."""
        if position_ids is not None:
            position_ids = position_ids.expand(*positions.shape)
        for name, ids in (("token_type_ids", token_type_ids), ("position_ids", position_ids)):
            if ids is not None and ids.shape != positions.shape:
                raise ShapeError(f"BERT: {name} has shape {ids.shape}, the tokens have {positions.shape}")
        x = self.embeddings(positions, input_ids, token_type_ids, position_ids)
        return self.encoder(x, positions, states, attentions, only_first)


def positions_of(
    config: BertConfig, input_ids: Tensor, attention_mask: Tensor | None, pack: bool, also: Any = None
) -> Positions:
    """The positions of a batch, checked against the model. Errors: DtypeError, ShapeError."""
    for name, x in (("input_ids", input_ids), ("attention_mask", attention_mask)):
        if not (isinstance(x, Tensor) or (x is None and name == "attention_mask")):
            raise DtypeError(f"BERT: {name} is a Tensor of numbers, not {type(x).__name__}; use minilm.tensor()")
    known = config.max_position_embeddings
    if input_ids.ndim != 2 or not 1 <= input_ids.shape[1] <= known:
        raise ShapeError(
            f"BERT: tokens of shape {input_ids.shape} do not fit: (B, T) was expected, with 1 to {known} positions"
        )
    B, T = input_ids.shape
    return Positions((B, T), attention_mask, pack, also)
