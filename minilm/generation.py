"""Text from a language model: one token after the other, each drawn from the scores that the model gives.

logits of the last position -> repetition penalty -> temperature -> top k -> top p -> softmax -> draw
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm import random
from minilm.errors import AutogradError, ConfigError, ShapeError
from minilm.modes import no_grad
from minilm.ops.attention import cached_attention, key_memory, scaled_dot_product_attention
from minilm.ops.matmul import Constants
from minilm.ops.random import multinomial
from minilm.tensor import Tensor
from minilm.text.tokenizer import StreamDecoder, Tokenizer

Array = Any


class LanguageModel(Protocol):
    """What generation needs of a model."""

    config: Any  # its block_size is how many tokens it sees; a model with `unbounded = True` sees any number
    training: bool

    def __call__(self, tokens: Tensor, cache: Any = None) -> Tensor:
        """Logits (B, T, V)."""

    def new_cache(self, batch_size: int) -> Any:
        """An empty cache, with a method `clear`."""

    def eval(self) -> Any:
        """Switch dropout off."""

    def train(self, mode: bool = True) -> Any:
        """Switch it on again."""


# --- what earlier positions left behind ------------------------------------------------------------


class LayerCache:
    """The keys and values that one attention layer computed so far, of H heads of D channels.

    The memory for the whole context is there from the beginning, and a key stays where it was put: position s of row n
    lies in row `places[n, s]` of the memory. Rows that are reordered, as beams are, exchange their places alone.
    """

    def __init__(self, B: int, H: int, capacity: int, D: int, dtype: Any) -> None:
        self._keys, self._values = (key_memory(B, H, capacity, D, dtype) for _ in range(2))
        self._places = np.zeros((B, 0), np.int64)

    @property
    def length(self) -> int:
        """How many positions are in it."""
        return self._places.shape[1]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, bias: Tensor | None = None) -> Tensor:
        """Add T new positions; each of them looks at itself and at all before it: three of (B, T, H D) -> (B, T, H D).

        They may also be given as rows, (B T, H D), and then the result is so, too.

        Args:
            scale: of the scores, by default 1 / sqrt(D). bias: added to them, broadcast to (B, H, T, S); (1, H, 1, S)
                for a single position.
        Errors, before anything is changed: AutogradError for tensors that require a gradient, which would
        end here; ShapeError for another batch or more positions than the context has.
        """
        B, T, H, D = self._checked(k, v)
        past, S = self.length, self.length + T
        new = k.array.reshape(B, T, H, D), v.array.reshape(B, T, H, D)
        self._keys[:B, past:S], self._values[:B, past:S] = new
        own = np.broadcast_to(np.arange(B)[:, None], (B, T))
        self._places = places = np.concatenate([self._places, own], 1)
        queries = q.array.reshape(B, T, H, D)
        if T == 1:
            of_heads = None if bias is None else bias.array.reshape(H, S)
            y = cached_attention(queries[:, 0], self._keys, self._values, places, of_heads, scale=scale)
            return Tensor(y.reshape(q.shape))
        if past:  # several new ones behind others need a mask that starts later
            new = self._keys[places, np.arange(S)], self._values[places, np.arange(S)]
        mask = Tensor(np.tri(T, S, past, dtype=bool)) if past else None
        seen = [Tensor(x.transpose(0, 2, 1, 3)) for x in (queries, *new)]  # (B, H, T or S, D)
        y = scaled_dot_product_attention(seen[0], seen[1], seen[2], mask, 0.0, not past, scale, bias=bias)
        return y.transpose(1, 2).reshape(q.shape)

    def _checked(self, k: Tensor, v: Tensor) -> tuple[int, int, int, int]:
        """B, T, H and D, if so many positions fit."""
        if k.requires_grad or v.requires_grad:
            raise AutogradError("KVCache: it keeps no gradients; use it under no_grad()")
        B, (capacity, H, D) = len(self._places), self._keys.shape[1:]
        T = k.shape[1] if k.ndim == 3 else len(k) // B
        if k.shape not in ((B, T, H * D), (B * T, H * D)) or k.shape != v.shape:
            raise ShapeError(
                f"KVCache: it was made for {B} sequences and {H} heads of size {D}, "
                f"and keys of shape {k.shape} and values of shape {v.shape} came"
            )
        if self.length + T > capacity:
            raise ShapeError(f"KVCache: {self.length + T} positions do not fit into the context of {capacity}")
        return B, T, H, D

    def clear(self) -> None:
        """Forget all positions."""
        self._places = self._places[:, :0]

    def reorder(self, indices: Array) -> None:
        """Row i becomes what row indices[i] was; there may be more rows than before, or fewer."""
        self._places = self._places[indices]
        for name in ("_keys", "_values"):
            old = getattr(self, name)
            if len(indices) > len(old):
                grown = key_memory(len(indices), old.shape[2], old.shape[1], old.shape[3], old.dtype)
                grown[: len(old), : self.length] = old[:, : self.length]
                setattr(self, name, grown)


class KVCache:
    """Keys and values of all layers: with them a new token costs one position, not the whole context again."""

    def __init__(self, n_layer: int, B: int, n_head: int, capacity: int, D: int, dtype: Any) -> None:
        self.layers = [LayerCache(B, n_head, capacity, D, dtype) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """How many positions are in it."""
        return self.layers[-1].length  # the last to be filled

    def reorder(self, indices: Array) -> None:
        """Row i becomes what row indices[i] was, in all layers."""
        for layer in self.layers:
            layer.reorder(indices)

    def clear(self) -> None:
        """Forget everything."""
        for layer in self.layers:
            layer.clear()


# --- choosing a token ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from its scores.

    Attributes:
        temperature: scores are divided by it; below 1 likely tokens become likelier; 0 takes the likeliest.
        top_k: only the k likeliest tokens can be drawn (Fan, Lewis & Dauphin 2018).
        top_p: only the smallest set of likeliest tokens whose probabilities reach p (Holtzman et al. 2020).
        repetition_penalty: the scores of tokens that occurred are divided by it where positive, multiplied
            where negative (Keskar et al. 2019, section 4.1); 1 changes nothing.
    Errors: ConfigError for an impossible value.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, possible, wanted in (
            ("temperature", 0 <= self.temperature < np.inf, "at least 0"),
            (
                "top_k",
                self.top_k is None or (isinstance(self.top_k, (int, np.integer)) and self.top_k >= 1),
                "a whole number of at least 1",
            ),
            ("top_p", self.top_p is None or 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < np.inf, "above 0"),
        ):
            if not possible:
                raise ConfigError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def choose(self, logits: Array, seen: Array, generator: random.Generator) -> Array:
        """One token for each row: logits (B, V), the tokens so far (B, T) -> (B,)."""
        scores = self.scores(logits, seen)
        if self.temperature == 0:
            return scores.argmax(-1)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return multinomial(Tensor(e / e.sum(-1, keepdims=True)), 1, generator=generator).array[:, 0]

    def scores(self, logits: Array, seen: Array) -> Array:
        """The logits (B, V) after penalty, temperature, top k and top p, in float64; -infinity where excluded."""
        scores = np.array(logits, np.float64)
        if self.repetition_penalty != 1:
            occurred = np.zeros(scores.shape, bool)
            np.put_along_axis(occurred, seen, True, axis=-1)
            penalised = np.where(scores > 0, scores / self.repetition_penalty, scores * self.repetition_penalty)
            scores = np.where(occurred, penalised, scores)
        if self.temperature == 0:
            return scores
        scores /= self.temperature
        if self.top_k is not None and self.top_k < scores.shape[-1]:
            order = np.argsort(-scores, -1, kind="stable")
            np.put_along_axis(scores, order[:, self.top_k :], -np.inf, axis=-1)
        if self.top_p is not None and self.top_p < 1:
            order = np.argsort(-scores, -1, kind="stable")
            e = np.exp(np.take_along_axis(scores, order, -1) - scores.max(-1, keepdims=True))
            before = np.cumsum(e / e.sum(-1, keepdims=True), -1) - e / e.sum(-1, keepdims=True)
            # a token stays while those before it have not reached p, so the likeliest always stays
            rest = np.where(before < self.top_p, np.take_along_axis(scores, order, -1), -np.inf)
            np.put_along_axis(scores, order, rest, axis=-1)
        return scores


def context_of(model: LanguageModel) -> int | None:
    """How many tokens the model sees at once; None for any number."""
    return None if getattr(model, "unbounded", False) else int(model.config.block_size)


# --- one token after the other ---------------------------------------------------------------------


def stream(
    model: LanguageModel,
    tokens: Any,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seed: int | None = None,
    use_cache: bool = True,
) -> Iterator[Array]:
    """Yield each new token of every row, (B,), as soon as it is drawn.

    Args:
        tokens: (B, T) or (T,), what to continue; T at least 1.
        seed: the same seed draws the same tokens; None draws from the default generator.
        use_cache: keep keys and values of earlier positions; the tokens are the same without.
        The others: see `Sampling`.

    The model sees at most `config.block_size` tokens, unless it is `unbounded`, as recurrent ones are. When these are
    full, the older half is forgotten and the rest read anew, so that a long text costs little; without a cache the same
    tokens are seen.

    Errors: ShapeError for no tokens, IndexError for one outside the vocabulary, ConfigError.
    """
    sampling = Sampling(temperature, top_k, top_p, repetition_penalty)
    array = np.asarray(tokens.array if isinstance(tokens, Tensor) else tokens)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iu":
        raise ShapeError(f"generate: tokens (B, T) with T at least 1 are continued, not {array.dtype} {array.shape}")
    if max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens must be at least 0, not {max_new_tokens}")
    if seed is not None and not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be from 0 to 2**64 - 1, not {seed}")
    generator = random.default_generator if seed is None else random.Generator(seed)
    return _stream(model, array.astype(np.int64), max_new_tokens, sampling, generator, use_cache)


def _stream(
    model: LanguageModel,
    seen: Array,
    max_new_tokens: int,
    sampling: Sampling,
    generator: random.Generator,
    use_cache: bool,
) -> Iterator[Array]:
    context = context_of(model) or seen.shape[1] + max_new_tokens
    cache = model.new_cache(len(seen)) if use_cache else None
    window = seen[:, -context:]  # what the model sees
    unread = window  # the part of it that is not in the cache yet
    constants = constant_weights(model)
    for _ in range(max_new_tokens):
        drawn = sampling.choose(_last_logits(model, window, unread, cache, constants), seen, generator)
        yield drawn
        seen = np.concatenate([seen, drawn[:, None]], axis=1)
        if window.shape[1] < context:
            window, unread = np.concatenate([window, drawn[:, None]], axis=1), drawn[:, None]
        else:  # full
            window = unread = seen[:, -max(context // 2, 1) :]
            if cache is not None:
                cache.clear()


def constant_weights(model: Any) -> Constants:
    """The parameters of a model, which do not change while it writes: `with` it, each is packed once."""
    return Constants([p.array for p in model.parameters()] if hasattr(model, "parameters") else [])


def _last_logits(model: LanguageModel, window: Array, unread: Array, cache: Any, constants: Constants) -> Array:
    """The scores (B, V) of the token after the window; dropout is off meanwhile."""
    was_training = model.training
    model.eval()
    try:
        with no_grad(), constants:
            logits = model(Tensor(window)) if cache is None else model(Tensor(unread), cache)
    finally:
        model.train(was_training)
    return logits.array[:, -1]


def generate(
    model: LanguageModel,
    tokens: Any,
    max_new_tokens: int,
    *,
    stop: Sequence[Sequence[int]] = (),
    **settings: Any,
) -> Tensor:
    """`tokens` (B, T) or (T,) with up to `max_new_tokens` more behind them, int64.

    Args:
        stop: token sequences; a single row ends behind the first of them that appears. Needs B = 1.
        settings: see `stream`.
    Errors: see `stream`.
    """
    array = np.asarray(tokens.array if isinstance(tokens, Tensor) else tokens).astype(np.int64)
    if stop and array.ndim == 2 and len(array) != 1:
        raise ShapeError(f"generate: stop sequences end one row, and there are {len(array)}")
    new: list[Array] = []
    for drawn in stream(model, tokens, max_new_tokens, **settings):
        new.append(drawn)
        if any(len(s) and [int(n[0]) for n in new[-len(s) :]] == list(s) for s in stop):
            break
    found = np.stack(new, axis=-1) if new else np.zeros((*array.shape[:-1], 0), np.int64)
    return Tensor(np.concatenate([array, found.reshape(*array.shape[:-1], len(new))], axis=-1))


def generate_text(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    *,
    stop: Sequence[str] = (),
    **settings: Any,
) -> Iterator[str]:
    """Yield the continuation of `prompt` in pieces of text, as soon as their characters are whole.

    Args:
        stop: the text ends before the first of these strings that is complete.
        settings: see `stream`.
    Errors: see `stream`; DataError for a prompt that the tokenizer cannot encode or that is empty.
    """
    ids = tokenizer.encode_array(prompt)
    if not len(ids):
        raise ShapeError("generate: the prompt is empty, and a model continues what it is given")
    decoder = StreamDecoder(tokenizer)
    held = ""  # text that might be the beginning of a stop string
    for drawn in stream(model, ids, max_new_tokens, **settings):
        held += decoder.feed(int(drawn[0]))
        ready, held, ended = _released(held, stop)
        if ready:
            yield ready
        if ended:
            return
    ready, held, ended = _released(held + decoder.flush(), stop)
    if rest := ready if ended else ready + held:  # the end: nothing need wait any more
        yield rest


def _released(text: str, stop: Sequence[str]) -> tuple[str, str, bool]:
    """What of `text` may be shown, what must wait since a stop string may begin there, and whether one came."""
    # Of several stop strings the one that is complete first: so it does not matter how tokens cut the text.
    found = [(at + len(s), at) for s in stop if s and (at := text.find(s)) >= 0]
    if found:
        return text[: min(found)[1]], "", True
    beginnings = (length for s in stop for length in range(1, len(s)) if text.endswith(s[:length]))
    shown = len(text) - max(beginnings, default=0)
    return text[:shown], text[shown:], False
