"""What models of encoder and decoder share: attention of three kinds, the cache of decoding, the calls and the loss.

    memory = encode(input_ids (B, S))                     once for each batch
    logits (B, V) = decode(tokens (B, T), memory)         scores of the token that comes next

With a cache, `decode` is given only what is new; the keys and values of earlier tokens, and those of the memory, are
kept. Source: Sutskever, Vinyals & Le 2014; Vaswani et al. 2017, section 3.1.

B batch, S and T source and target positions, C channels, H heads, D channels of a head, V vocabulary.
N tokens that are computed, all B T or those without padding (`positions.Positions`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import nn
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.generation import LayerCache
from minilm.models.outputs import Output
from minilm.models.positions import Positions
from minilm.models.pretrained import PretrainedModel
from minilm.models.seq2seq_cache import DecoderCache, SourceCache
from minilm.nn import functional as F
from minilm.nn.attention import attend
from minilm.nn.parameter import Parameter
from minilm.nn.state import state_tensors
from minilm.ops.joining import joined
from minilm.tensor import Tensor

Array = Any
IGNORED = -100  # a label that is none


class Attention(nn.Module):
    """H heads that look from some tokens at others: rows (N, C) -> (N, C).

    Args:
        channels: C. heads: H. size: D; the maps have H D rows. p: dropout of the weights. bias: of the four maps.
        scale: of the scores; by default 1 / sqrt(D).
    """

    names = ("q_proj", "k_proj", "v_proj", "out_proj")  # of the maps of queries, keys, values, and of the result

    def __init__(
        self, channels: int, heads: int, size: int, p: float, bias: bool = True, scale: float | None = None
    ) -> None:
        super().__init__()
        self.heads, self.p, self.scale = heads, p, scale
        for name in self.names[:3]:
            setattr(self, name, nn.Linear(channels, heads * size, bias=bias))
        setattr(self, self.names[3], nn.Linear(heads * size, channels, bias=bias))

    def among(
        self,
        x: Tensor,
        positions: Positions,
        causal: bool = False,
        bias: Tensor | None = None,
        cache: LayerCache | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Each token looks at its own sentence: (N, C) -> (N, C).

        Args:
            causal: at itself and those before it. bias: added to the scores, broadcast to (B, H, T, T).
            cache: what earlier tokens left; x are the T new ones of each sentence, and look at all of it and at those
                of themselves that are not behind them.
            weights: what the weights (B, H, T, T) are appended to.
        """
        qkv, p = self._mapped(x, self.names[:3]), self.p if self.training else 0.0  # (N, 3 H D)
        if cache is not None:
            q, k, v = qkv.chunk(3, -1)
            return self._result(cache.attend(q, k, v, self.scale, bias))
        if weights is None and bias is None and positions.starts is not None:
            T = positions.shape[1]
            y = F.packed_self_attention(qkv, self.heads, positions.starts, T, p, causal, self.scale)
            return self._result(y)
        qkv = positions.grid(qkv)  # (B, T, 3 H D)
        if weights is None:
            y = F.self_attention(qkv, self.heads, positions.visible, p, causal, self.scale, bias=bias)
            return self._result(positions.rows(y))
        q, k, v = (self._split(part) for part in qkv.chunk(3, -1))
        visible, T = positions.visible, positions.shape[1]
        if causal and T > 1:
            below = Tensor(np.tri(T, dtype=bool))
            visible = below if visible is None else visible & below
        return self._looked(q, k, v, positions, visible, bias, weights)

    def keys_values(self, x: Tensor, positions: Positions) -> tuple[Tensor, Tensor]:
        """What `at` looks at, of the encoder's states: (N, C) -> two of (B, H, S, D)."""
        k, v = positions.grid(self._mapped(x, self.names[1:3])).chunk(2, -1)
        return self._split(k), self._split(v)

    def at(
        self,
        x: Tensor,
        positions: Positions,
        keys_values: tuple[Tensor, Tensor] | SourceCache,
        visible: Tensor | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Each token looks at keys and values of elsewhere, where they are `visible` (B, 1, 1, S): (N, C) -> (N, C).

        A cache of them knows itself where.
        """
        q = self._mapped(x, self.names[:1])
        if isinstance(keys_values, SourceCache):
            return self._result(keys_values.attend(q, self.scale))
        return self._looked(self._split(positions.grid(q)), *keys_values, positions, visible, None, weights)

    def _looked(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions,
        visible: Tensor | None,
        bias: Tensor | None,
        weights: list[Tensor] | None,
    ) -> Tensor:
        p = self.p if self.training else 0.0
        if weights is None:
            y = F.scaled_dot_product_attention(q, k, v, visible, p, scale=self.scale, bias=bias)
        else:
            added = bias
            if visible is not None:
                hidden = Tensor(np.where(visible.array, 0.0, -np.inf).astype(q.dtype))
                added = hidden if bias is None else bias + hidden
            scaled = q if self.scale is None else q * (self.scale * q.shape[-1] ** 0.5)
            y, w = attend(scaled, k, v, added, p)
            weights.append(w)
        return self._result(positions.rows(y.transpose(1, 2).reshape(*positions.shape, -1)))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, H D) -> (B, H, T, D)."""
        B, T, P = x.shape
        return x.reshape(B, T, self.heads, P // self.heads).transpose(1, 2)

    def _mapped(self, x: Tensor, names: tuple[str, ...]) -> Tensor:
        """Several of the maps as one product, side by side."""
        maps = [getattr(self, name) for name in names]
        if len(maps) == 1:
            return maps[0](x)
        bias = None if maps[0].bias is None else joined([m.bias for m in maps])
        return F.linear(x, joined([m.weight for m in maps]), bias)

    def _result(self, y: Tensor) -> Tensor:
        return getattr(self, self.names[3])(y)


@dataclass
class Memory:
    """What an encoder gives to a decoder.

    Attributes:
        states: (B, S, C), the last layer's; 0 or anything at padding.
        visible: boolean (B, 1, 1, S), where there is no padding; None for everywhere.
    """

    states: Tensor
    visible: Tensor | None = None

    def __len__(self) -> int:
        return self.states.shape[0]

    def select(self, indices: Any) -> Memory:
        """The memory whose row i is row indices[i] of this one."""
        rows = np.asarray(indices)
        return Memory(self.states[rows], None if self.visible is None else self.visible[rows])


@dataclass
class Seen:
    """What `forward` shows besides: lists that each layer appends to, or None."""

    encoder_hidden_states: list[Tensor] | None
    decoder_hidden_states: list[Tensor] | None
    encoder_attentions: list[Tensor] | None
    decoder_attentions: list[Tensor] | None
    cross_attentions: list[Tensor] | None

    @classmethod
    def of(cls, states: bool, attentions: bool) -> Seen:
        """What was asked for."""
        return cls(*([] if wanted else None for wanted in (states, states, attentions, attentions, attentions)))

    def results(self) -> dict[str, tuple[Tensor, ...] | None]:
        """What the layers appended, by name."""
        return {name: None if found is None else tuple(found) for name, found in vars(self).items()}


class EncoderDecoder(PretrainedModel):
    """A model of encoder and decoder: tokens (B, S), (B, T) -> last_hidden_state (B, T, C).

    Attributes:
        encoder: (ids, positions, states=None, weights=None) -> rows (N, C).
        decoder: (ids, positions, memory's rows, its positions, cache=None, states=None, weights=None, cross=None) ->
            rows (N, C); with a cache there are no rows of the memory.
        max_positions: how many positions the model knows; None for no end.
    """

    encoder: Any
    decoder: Any
    max_positions: int | None = None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        pack: bool = False,
    ) -> Output:
        """`last_hidden_state` (B, T, C), `encoder_last_hidden_state` (B, S, C). Args, Errors: as in Seq2SeqModel."""
        if decoder_input_ids is None:
            raise ConfigError(f"{type(self).__name__}: decoder_input_ids are needed")
        masks = attention_mask, decoder_attention_mask
        seen = Seen.of(output_hidden_states, output_attentions)
        x, target, memory = self.both(input_ids, decoder_input_ids, masks, seen, pack)
        return Output(last_hidden_state=target.grid(x), encoder_last_hidden_state=memory, **seen.results())

    def both(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor,
        masks: tuple[Tensor | None, Tensor | None],
        seen: Seen,
        pack: bool,
    ) -> tuple[Tensor, Positions, Tensor]:
        """The decoder's rows (B T, C) and their positions, and the memory (B, S, C)."""
        source = self.positions("input_ids", input_ids, masks[0], pack)
        target = self.positions("decoder_input_ids", decoder_input_ids, masks[1])
        _same_batch(source, target)
        memory = self.encoder(input_ids, source, seen.encoder_hidden_states, seen.encoder_attentions)
        looks = seen.decoder_hidden_states, seen.decoder_attentions, seen.cross_attentions
        x = self.decoder(decoder_input_ids, target, memory, source, None, *looks)
        return x, target, source.grid(memory)

    def positions(self, name: str, ids: Tensor, mask: Tensor | None, pack: bool = False, past: int = 0) -> Positions:
        """The positions of tokens (B, T) behind `past` others. Errors: DtypeError, ShapeError."""
        for label, x in ((name, ids), ("attention_mask", mask)):
            if not (isinstance(x, Tensor) or (x is None and label == "attention_mask")):
                raise DtypeError(f"{label} is a Tensor of numbers, not {type(x).__name__}; use minilm.tensor()")
        known = self.max_positions
        if ids.ndim != 2 or not ids.shape[1] or (known is not None and past + ids.shape[1] > known):
            limit = "" if known is None else f", with at most {known} positions"
            behind = f" behind {past} others" if past else ""
            raise ShapeError(f"{name} of shape {ids.shape}{behind} do not fit: (B, T) was expected{limit}")
        B, T = ids.shape
        return Positions((B, T), mask, pack)


class Seq2SeqModel(EncoderDecoder):
    """An encoder and a decoder with scores of tokens on top; subclasses say what they are.

    Attributes:
        usual_length: how many tokens a cache holds, unless one says otherwise.
        usual_lengths: how many tokens sources and targets have in the mean, for `flops_per_token`.
        label_smoothing: the share of each label that `loss` spreads over all tokens while training.
        looks: () -> the decoder's attentions to the memory, one a layer.
        before_head: rows (N, C) as the head is given them.
        head: () -> the matrix (V, C) that makes scores, and their bias (V) or None.
    """

    lm_head: nn.Linear
    looks: Callable[[], list[Attention]]
    before_head: Callable[[Tensor], Tensor]
    head: Callable[[], tuple[Tensor, Tensor | None]]
    usual_length: int
    usual_lengths: tuple[float, float] | None = None
    label_smoothing = 0.0

    def tokens_in(self, batch: Any) -> int:
        """How many tokens a batch (input_ids, attention_mask, labels) has, of both sides and without padding."""
        return int(np.count_nonzero(batch[1])) + int(np.count_nonzero(np.asarray(batch[2]) != IGNORED))

    def flops_per_token(self) -> float:
        """Multiplications and additions of a training step per token, of either side, as GPT's.

        A pair of S and T tokens (`usual_lengths`; by default `usual_length` each) costs

            6 (S E + S K + T D + T C V) + 12 A (L S S + M T T + M S T)

        E and D numbers in the maps of the L layers of the encoder and the M of the decoder, K in those from the memory
        to keys and values, which D has not; C V in the output projection; A = H D channels of attention, of sources to
        themselves, of targets to themselves (all pairs, also those that are hidden), and of targets to sources.
        """
        S, T = self.usual_lengths or (self.usual_length, self.usual_length)
        looks, head = self.looks(), self.head()[0]

        def numbers(part: nn.Module) -> int:
            return sum(m.weight.numel() for m in part.modules() if isinstance(m, nn.Linear))

        def channels(layers: Any) -> int:
            return sum(getattr(m, m.names[0]).weight.shape[0] for m in layers)

        own, selves = ([m for m in x.modules() if isinstance(m, Attention)] for x in (self.encoder, self.decoder))
        K = sum(getattr(look, name).weight.numel() for look in looks for name in look.names[1:3])
        products = S * (numbers(self.encoder) + K) + T * (numbers(self.decoder) - K + head.numel())
        pairs = channels(own) * S * S + (channels(selves) - channels(looks)) * T * T + channels(looks) * S * T
        return (6 * products + 12 * pairs) / (S + T)

    def meet(self, weights: Mapping[str, Tensor]) -> None:
        """The head gets a matrix of its own where the file has another one for it than for the embeddings."""
        head, tied = weights.get("lm_head.weight"), self.lm_head.weight
        names = [name for name, tensor in state_tensors(self).items() if tensor is tied and name in weights]
        if head is None or all(np.array_equal(head.array, weights[name].array) for name in names):
            return
        self.lm_head.weight = Parameter(Tensor(np.empty_like(tied.array)))
        self.config.tie_word_embeddings = False

    def scores(self, x: Tensor) -> Tensor:
        """The scores of tokens, (N, C) -> (N, V)."""
        return F.linear(self.before_head(x), *self.head())

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        pack: bool = False,
    ) -> Output:
        """`loss` where there are labels, `logits` (B, T, V), `encoder_last_hidden_state` (B, S, C).

        Args:
            input_ids: (B, S). attention_mask: (B, S), 0 where there is padding.
            decoder_input_ids: (B, T), what the decoder is given; by default `labels` moved to the right.
            decoder_attention_mask: (B, T), 0 where there is padding; no later position is looked at anyway.
            labels: (B, T), the token that should come at each place; -100 for none. The loss is the mean over them.
            label_smoothing: the share of each label that is spread over all tokens (Vaswani et al. 2017, section 5.4).
            output_hidden_states, output_attentions: return `encoder_hidden_states` and `decoder_hidden_states`, or
                `encoder_attentions`, `decoder_attentions` and `cross_attentions`, too: of each layer, (B, H, T, S).
            pack: compute nothing for the source's padding: states are 0 there. It changes nothing elsewhere.
        Errors: ShapeError for shapes that do not fit, IndexError for numbers outside of the tables.
        """
        if decoder_input_ids is None:
            if labels is None:
                raise ConfigError(f"{type(self).__name__}: decoder_input_ids or labels are needed")
            decoder_input_ids = self.shifted(labels)
        if labels is not None and labels.shape != decoder_input_ids.shape:
            raise ShapeError(f"labels have the shape {labels.shape}, decoder_input_ids {decoder_input_ids.shape}")
        masks = attention_mask, decoder_attention_mask
        seen = Seen.of(output_hidden_states, output_attentions)
        x, target, memory = self.both(input_ids, decoder_input_ids, masks, seen, pack)
        scores = self.scores(x)  # (B T, V)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(scores, labels.reshape(-1), label_smoothing=label_smoothing)
        logits = scores.reshape(*target.shape, -1)
        return Output(loss=loss, logits=logits, encoder_last_hidden_state=memory, **seen.results())

    def loss(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor, label_smoothing: float | None = None
    ) -> Tensor:
        """The mean cross-entropy of `labels` (B, T) that are not -100, as `forward` gives it, and faster.

        Nothing is computed for padding, and the scores never exist whole. Args, Errors: see `forward`; labels are
        smoothed by `self.label_smoothing` while training, unless it is said.
        """
        if label_smoothing is None:
            label_smoothing = self.label_smoothing if self.training else 0.0
        tokens = self.shifted(labels)
        source = self.positions("input_ids", input_ids, attention_mask, pack=True)
        # No label depends on what comes behind the last of its sentence, since none looks there.
        needed = np.maximum.accumulate(labels.array[:, ::-1] != IGNORED, 1)[:, ::-1]
        target = self.positions("labels", tokens, Tensor(needed), pack=True)
        target.visible = None
        _same_batch(source, target)
        x = self.decoder(tokens, target, self.encoder(input_ids, source), source)
        wanted = target.rows(labels).array
        chosen = np.flatnonzero(wanted != IGNORED)
        if len(chosen) < len(wanted):
            x, wanted = x[chosen], wanted[chosen]
        weight, bias = self.head()
        return F.linear_cross_entropy(
            self.before_head(x), weight, Tensor(wanted), linear_bias=bias, label_smoothing=label_smoothing
        )

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Memory:
        """What the decoder looks at: (B, S) -> Memory of B sentences. Args, Errors: see `forward`."""
        source = self.positions("input_ids", input_ids, attention_mask, pack=True)
        return Memory(source.grid(self.encoder(input_ids, source)), source.visible)

    def decode(
        self, decoder_input_ids: Tensor, memory: Memory | None = None, cache: DecoderCache | None = None
    ) -> Tensor:
        """The scores (B, V) of the token behind `decoder_input_ids` (B, T).

        Args:
            memory: of `encode`, with B sentences; not needed with a cache, which holds what was made of it.
            cache: of `new_cache`; decoder_input_ids then follow the tokens that are in it, and are added to it. Its
                rows are moved by `reorder`. It keeps no gradients, so it works under no_grad() only.
        Errors: ShapeError for another number of sentences, or for more positions than there are.
        """
        past = 0 if cache is None else cache.length
        positions = self.positions("decoder_input_ids", decoder_input_ids, None, past=past)
        B, T = positions.shape
        given = memory if cache is None else cache
        if given is None:
            raise ShapeError("decode: a memory or a cache of one is needed")
        if len(given) != B:
            name = "memory" if cache is None else "cache"
            raise ShapeError(f"decode: {B} rows of tokens came, and the {name} has {len(given)}")
        if isinstance(given, Memory):
            source = Positions((B, given.states.shape[1]), None)
            source.visible = given.visible
            x = self.decoder(decoder_input_ids, positions, source.rows(given.states), source)
        else:
            x = self.decoder(decoder_input_ids, positions, None, None, given)
        return self.scores(x[np.arange(B) * T + T - 1] if T > 1 else x)

    def new_cache(self, memory: Memory, max_length: int | None = None) -> DecoderCache:
        """An empty cache for targets of the memory's sentences, of up to `max_length` tokens."""
        source = Positions((len(memory), memory.states.shape[1]), None)
        rows = source.rows(memory.states)
        kept = [look.keys_values(rows, source) for look in self.looks()]
        length = max_length or self.usual_length
        layers = [LayerCache(len(memory), k.shape[1], length, k.shape[3], k.dtype) for k, _ in kept]
        return DecoderCache(layers, kept, memory.visible)

    def shifted(self, labels: Tensor) -> Tensor:
        """What a decoder is given to predict `labels` (B, T): its first token, and all of them but the last."""
        if not isinstance(labels, Tensor) or labels.ndim != 2:
            raise ShapeError(f"labels are a Tensor (B, T), not {getattr(labels, 'shape', type(labels).__name__)}")
        c = self.config
        moved = np.concatenate([np.full((len(labels), 1), c.decoder_start_token_id), labels.array[:, :-1]], 1)
        return Tensor(np.where(moved == IGNORED, c.pad_token_id, moved))


def _same_batch(source: Positions, target: Positions) -> None:
    if source.shape[0] != target.shape[0]:
        raise ShapeError(f"{source.shape[0]} sources came, and {target.shape[0]} targets")
