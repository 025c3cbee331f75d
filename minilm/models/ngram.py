"""N-gram language models over token ids: orders 1 to 6, with the probabilities of whole batches of contexts at once.

    counts = how often each n-gram occurred         minilm/models/ngram_counts.py
    levels = log p of each, and back-off weights    minilm/models/ngram_smoothing.py
    p(w | h) by looking up the longest n-gram that occurred, and the weights of the contexts above it; here

B batch, T time (positions), V vocabulary. Text in place of ids: minilm/models/ngram_text.py; files:
minilm/models/arpa.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.errors import DataError, ShapeError
from minilm.models.ngram_counts import NGramCounts, checked_ids, checked_order, found_among, with_beginnings
from minilm.models.ngram_smoothing import Level, Smoothing, estimate
from minilm.tensor import Tensor

Array = Any

# What _match says of a context of a certain length: its number, or one of these.
UNSEEN, CUT = -1, -2  # it never occurred; there are not so many tokens since the beginning

WINDOW = 256  # tokens that generation hands over at once; the model looks at the last order - 1 of them


@dataclass(frozen=True)
class NGramConfig:
    """What generation asks of a model."""

    vocab_size: int
    order: int
    block_size: int = WINDOW


class NGram:
    """An n-gram model.

    Args:
        levels: one for each order from 1 on.
        vocab_size: V; tokens are 0 ... V - 1, and V itself is <s>, the beginning, in contexts alone.
        eos: the id that ends a sentence; behind it the next begins, with nothing of the last one in its context.
        interpolated: whether a token that never followed a context is scored by the shorter one (Kneser-Ney,
            Witten-Bell, files); with add-k each context stands for itself.

    `NGram.fit` makes one of a text; `minilm.generation` can write with it, its logits being ln p.
    """

    training = False  # there is no dropout to switch off

    def __init__(self, levels: list[Level], vocab_size: int, eos: int | None = None, interpolated: bool = True) -> None:
        self.levels, self.vocab_size, self.eos, self.interpolated = levels, vocab_size, eos, interpolated
        self.order, self.bos, self.width = len(levels), vocab_size, vocab_size + 1
        self.config = NGramConfig(vocab_size, self.order)
        self.discounts: list[tuple[float, ...]] = []  # of each order: D1, D2, D3+ (Kneser-Ney)
        self.fallback: list[int] = []  # orders whose discounts the counts did not give

    @classmethod
    def fit(
        cls,
        ids: Any,
        vocab_size: int,
        order: int = 5,
        smoothing: str = "kneser-ney",
        *,
        k: float = 1.0,
        discount: float | None = None,
        uniform: bool = True,
        eos: int | None = None,
    ) -> NGram:
        """Learn from token ids (N,): a running text, or sentences each of which `eos` ends.

        Args:
            smoothing, k, discount, uniform: see `minilm.models.ngram_smoothing.Smoothing`.
        Errors: ConfigError for an order outside 1 ... 6 or an impossible setting; DataError for an empty text or ids
            outside 0 ... V - 1.
        """
        how = Smoothing(smoothing, k, discount, uniform)
        counts = NGramCounts(ids, vocab_size, checked_order(order), eos)
        found = estimate(counts, how)
        model = cls(found.levels, counts.vocab_size, eos, interpolated=smoothing != "add-k")
        model.discounts, model.fallback = found.discounts, found.fallback
        return model

    def numel(self) -> int:
        """How many numbers the model is made of: a probability for each n-gram, a weight for each context."""
        return sum(len(level.keys) + (0 if level.backoff is None else len(level.keys)) for level in self.levels)

    # --- probabilities ---------------------------------------------------------------------------------

    def log_distribution(self, contexts: Any) -> Array:
        """ln p(w | context) of every token w: contexts (B, T) -> (B, V), float64; T may be 0.

        Only the last order - 1 tokens matter; <s> (id V) or `eos` among them is where a text begins.
        """
        contexts = self._contexts(contexts)[:, max(np.shape(contexts)[1] - self.order + 1, 0) :]
        found = [column[:, -1] for column in self._match(contexts)] if contexts.shape[1] else []
        return self._rows(found, len(contexts)) * math.log(10)

    def distribution(self, contexts: Any) -> Array:
        """p(w | context) of every token w: contexts (B, T) -> (B, V), float64; each row adds up to 1."""
        return np.exp(self.log_distribution(contexts))

    def log_probs(self, ids: Any, begins: bool = True) -> Array:
        """ln p of each token given those before it: ids (N,) -> (N,), float64.

        Args:
            begins: whether the first token stands at the beginning of a text, behind <s>.
        Errors: DataError for ids outside 0 ... V - 1.
        """
        array = checked_ids(ids, self.vocab_size)
        text = with_beginnings(array, self.bos, self.eos) if array.size else array
        text = text if begins or not array.size else text[1:]
        found = [column[0] for column in self._match(text[None])]
        score = self.levels[0].log_prob[text]
        for m in range(2, self.order + 1):  # tokens of the n-gram that ends at each place
            if len(text) < m:
                break
            context, scored = found[m - 2][:-1], score[1:]
            if not self.interpolated:
                scored[context == UNSEEN] = -math.log10(self.vocab_size)
            known = np.flatnonzero(context >= 0)
            weight = self.levels[m - 2].backoff[context[known]]  # type: ignore[index]
            scored[known] = scored[known] + weight if self.interpolated else weight
            gram = self._find(m, context, text[1:])
            occurred = np.flatnonzero(gram >= 0)
            scored[occurred] = self.levels[m - 1].log_prob[gram[occurred]]
        return score[text != self.bos] * math.log(10)

    def perplexity(self, ids: Any, begins: bool = True) -> float:
        """exp of the mean of -ln p; infinity where a token has the probability 0. Errors: DataError for no tokens."""
        scores = self.log_probs(ids, begins)
        if not scores.size:
            raise DataError("perplexity: there are no tokens to score")
        mean = -float(scores.mean())
        return math.exp(mean) if mean < 700 else math.inf

    # --- as a language model for minilm.generation -----------------------------------------------------

    def __call__(self, tokens: Any, cache: NGramCache | None = None) -> Tensor:
        """Logits (B, T, V): at each position ln p of every next token, given tokens (B, T) up to it."""
        array = self._contexts(tokens.array if isinstance(tokens, Tensor) else tokens)
        B, T = array.shape
        if cache is not None:
            array = cache.append(array)
        found = [column[:, -T:].reshape(-1) for column in self._match(array)]
        return Tensor(self._rows(found, B * T).reshape(B, T, -1) * math.log(10))

    def new_cache(self, batch_size: int) -> NGramCache:
        """An empty cache: the last order - 1 tokens of each of `batch_size` texts."""
        return NGramCache(batch_size, self.order - 1)

    def eval(self) -> NGram:
        """Nothing to do: there is no dropout."""
        return self

    def train(self, mode: bool = True) -> NGram:
        """Nothing to do: an n-gram model learns by `fit`."""
        return self

    def sample(self, tokens: Any, max_new_tokens: int, **settings: Any) -> Iterator[int]:
        """Yield tokens that go on with `tokens` (T,), or begin a text where there are none.

        Args:
            settings: temperature, top_k, top_p, seed: see `minilm.generation.stream`.
        Errors: those of `stream`.
        """
        from minilm.generation import stream

        given = checked_ids(tokens, self.vocab_size)
        prompt = given if given.size else np.array([self.bos])
        return (int(drawn[0]) for drawn in stream(self, prompt, max_new_tokens, **settings))

    # --- looking up ------------------------------------------------------------------------------------

    def _contexts(self, tokens: Any) -> Array:
        array = np.asarray(tokens)
        if array.ndim != 2 or (array.size and array.dtype.kind not in "iu"):
            raise ShapeError(f"NGram: contexts are token ids of shape (B, T), not {array.dtype} {array.shape}")
        if array.size and not (array.min() >= 0 and array.max() <= self.bos):
            raise IndexError(f"NGram: ids {array.min()} ... {array.max()} leave the vocabulary of {self.vocab_size}")
        array = array.astype(np.int64)
        return array if self.eos is None else np.where(array == self.eos, self.bos, array)

    def _match(self, tokens: Array) -> list[Array]:
        """For each length 1 ... order - 1 the number of the n-gram that ends at each position, (B, T); UNSEEN; CUT."""
        found = [tokens]
        for m in range(2, self.order):
            shorter = found[-1][:, :-1]
            number = self._find(m, shorter, tokens[:, 1:])
            number = np.where((shorter == CUT) | (tokens[:, 1:] == self.bos), CUT, number)
            first = np.full((len(tokens), min(1, tokens.shape[1])), CUT)
            found.append(np.concatenate([first, number], axis=1))
        return found[: self.order - 1]

    def _find(self, m: int, context: Array, last: Array) -> Array:
        """The numbers of the n-grams of order m with these contexts and last tokens; UNSEEN where there is none."""
        return found_among(self.levels[m - 1].keys, np.where(context >= 0, context * self.width + last, -1))

    def _rows(self, found: list[Array], rows: int) -> Array:
        """log10 p of every token, (rows, V), given the numbers of the contexts of length 1, 2, ..., (rows,) each."""
        V = self.vocab_size
        scores = np.repeat(self.levels[0].log_prob[None, :V], rows, axis=0)
        for m, context in enumerate(found, 1):
            level, longer = self.levels[m - 1], self.levels[m]
            if not self.interpolated:
                scores[context == UNSEEN] = -math.log10(V)
            known = np.flatnonzero(context >= 0)
            number = context[known]
            weight = level.backoff[number][:, None]  # type: ignore[index]
            scores[known] = scores[known] + weight if self.interpolated else weight
            first, end = level.bounds[number], level.bounds[number + 1]  # type: ignore[index]
            row = np.repeat(known, end - first)
            # first[0] ... end[0] - 1, first[1] ... end[1] - 1 and so on, without a loop
            ahead = np.concatenate([[0], np.cumsum(end - first)[:-1]]) if len(first) else first
            place = np.arange(len(row)) + np.repeat(first - ahead, end - first)
            scores[row, longer.keys[place] % self.width] = longer.log_prob[place]
        return scores

    def __repr__(self) -> str:
        grams = " + ".join(f"{len(level.keys):,}" for level in self.levels)
        return f"NGram(order={self.order}, vocab_size={self.vocab_size}, n-grams {grams})"


class NGramCache:
    """The last tokens of each text, all that an n-gram model can see of what came before."""

    def __init__(self, B: int, capacity: int) -> None:
        self.capacity = capacity
        self._empty: Array = np.zeros((B, 0), np.int64)
        self._tokens = self._empty

    @property
    def length(self) -> int:
        """How many tokens are in it."""
        return self._tokens.shape[1]

    def append(self, tokens: Array) -> Array:
        """The tokens that are in it and `tokens` (B, T) behind them. Errors: ShapeError for another batch."""
        if len(tokens) != len(self._empty):
            raise ShapeError(f"NGramCache: it was made for {len(self._empty)} texts, and {len(tokens)} came")
        both = np.concatenate([self._tokens, tokens], axis=1)
        self._tokens = both[:, both.shape[1] - min(self.capacity, both.shape[1]) :]
        return both

    def clear(self) -> None:
        """Forget everything."""
        self._tokens = self._empty
