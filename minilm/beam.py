"""Decoding by beam search: the K likeliest beginnings of an output are kept, and all of them go on together.

    logits of the last position -> log_softmax -> what may not come next -> + score of the beginning
        -> the 2 K best of K V continuations -> those that end are hypotheses, K others go on

The score of a hypothesis of n tokens is  sum of log p(token) / n ** length_penalty.  Where hypotheses end, how they are
ranked and when a sentence is done is as in Hugging Face's `generate(num_beams=K)`, so that equal weights give equal
hypotheses. A sentence that is done leaves the batch, which changes no other.

Source: Graves 2012, "Sequence transduction with recurrent neural networks", section 3; Wu et al. 2016, section 7, for
what a length does to a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm import random
from minilm.errors import ConfigError, ShapeError
from minilm.generation import LanguageModel, Sampling, constant_weights
from minilm.modes import no_grad
from minilm.ops.ordering import largest
from minilm.ops.softmax import log_softmax
from minilm.tensor import Tensor

Array = Any

UNFINISHED = np.float32(-1e9)  # the score of a hypothesis that is not there yet


class Decoder(Protocol):
    """What a search needs of a model: the scores of the next token, and rows that can be chosen anew."""

    def __call__(self, tokens: Array) -> Array:
        """Logits (N, V) of the token after `tokens` (N, T), which follow on those that it was given before."""
        ...

    def reorder(self, rows: Array) -> None:
        """Go on with these rows (M,) of the N, in this order; a row may come several times, or not at all."""
        ...


class CausalDecoder:
    """A model that goes on with what it is given, as a GPT, in evaluation mode: prompts of one length for B rows.

    An output and its prompt must fit into the model's context; else ShapeError is raised when it is full.
    """

    def __init__(self, model: LanguageModel, B: int) -> None:
        self.model, self.cache, self.constants = model, model.new_cache(B), constant_weights(model)

    def __call__(self, tokens: Array) -> Array:
        """See Decoder."""
        with no_grad(), self.constants:
            return self.model(Tensor(tokens), self.cache).array[:, -1]

    def reorder(self, rows: Array) -> None:
        """See Decoder."""
        self.cache.reorder(rows)


@dataclass(frozen=True)
class Hypothesis:
    """An output: its tokens, (n,), the end token included where it has ended by itself, and its score."""

    tokens: Array
    score: float


@dataclass(frozen=True)
class BeamSearch:
    """How outputs are searched, under the names of Hugging Face's `generate`.

    Attributes:
        num_beams: K. num_return_sequences: how many hypotheses of each sentence are returned, the best first.
        length_penalty: the exponent of the length by which a score is divided; above 0 long outputs gain.
        early_stopping: when a sentence is done. True: as soon as K hypotheses have ended. False: when the best
            beginning, divided by its own length, is no better than the worst of them. "never": when it could not
            become better at any length.
        max_new_tokens, min_new_tokens: bounds on a length; an output that reaches the upper one is cut there.
        no_repeat_ngram_size: no sequence of so many tokens comes twice in an output; 0 for any.
        eos_token_id: what ends an output; None for nothing. forced_eos: whether it is the last of `max_new_tokens`.
        suppress_tokens: tokens that never come, as padding.
    Errors: ConfigError for an impossible value.
    """

    num_beams: int = 5
    num_return_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    eos_token_id: int | None = None
    forced_eos: bool = False
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, possible, wanted in (
            ("num_beams", self.num_beams >= 1, "at least 1"),
            ("num_return_sequences", 1 <= self.num_return_sequences <= self.num_beams, "from 1 to num_beams"),
            ("length_penalty", np.isfinite(self.length_penalty), "a finite number"),
            ("early_stopping", self.early_stopping in (True, False, "never"), "True, False or 'never'"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("min_new_tokens", 0 <= self.min_new_tokens <= self.max_new_tokens, "from 0 to max_new_tokens"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "at least 0"),
        ):
            if not possible:
                raise ConfigError(f"{name} must be {wanted}, not {getattr(self, name)!r}")

    def allowed(self, log_probs: Array, seen: Array, step: int) -> None:
        """Set the scores (N, V) of what may not follow on `seen` (N, T) as new token number `step` to -infinity."""
        log_probs[:, list(self.suppress_tokens)] = -np.inf
        if self.eos_token_id is not None:
            if step < self.min_new_tokens:
                log_probs[:, self.eos_token_id] = -np.inf
            if self.forced_eos and step == self.max_new_tokens - 1:
                log_probs[:] = -np.inf
                log_probs[:, self.eos_token_id] = 0.0
        if self.no_repeat_ngram_size:
            for row, tokens in _repeating(seen, self.no_repeat_ngram_size):
                log_probs[row, tokens] = -np.inf


def beam_search(decoder: Decoder, prompt: Array, search: BeamSearch) -> list[list[Hypothesis]]:
    """The best outputs for each sentence of a batch, the best first.

    Args:
        decoder: a model with its input read, B sentences. prompt: (B, T), what all outputs begin with; T at least 1.
    Errors: ShapeError for no prompt; ConfigError for a beam that is too wide for the vocabulary.
    """
    tokens = np.asarray(prompt)
    if tokens.ndim != 2 or not tokens.shape[1]:
        raise ShapeError(f"beam_search: outputs begin with tokens (B, T), T at least 1, not {tokens.shape}")
    B, P = tokens.shape
    K, end = search.num_beams, search.max_new_tokens
    found = _Found(B, K, end)
    alive = np.arange(B)  # which sentences are searched for
    beams = np.zeros((B, 1, P + end), np.int64)  # one beginning each, and K from the first step on
    beams[:, 0, :P] = tokens
    scores = np.zeros((B, 1), np.float32)
    for step in range(end):
        if not len(alive):
            break
        new = beams[:, :, : P + step] if not step else beams[:, :, P + step - 1, None]  # what the model has not seen
        logits = np.asarray(decoder(new.reshape(-1, new.shape[2])))
        V = logits.shape[-1]
        if 2 * K > V:
            raise ConfigError(f"num_beams {K} is too wide: of each {2 * K} tokens go on, and the vocabulary has {V}")
        with no_grad():
            log_probs = log_softmax(Tensor(logits.astype(np.float32, copy=False)), -1).numpy()
        search.allowed(log_probs, beams[:, :, : P + step].reshape(len(logits), -1), step)
        best, parents, chosen = continuations(log_probs, scores, 2 * K)  # (B, 2 K)
        ended = np.zeros(chosen.shape, bool) if search.eos_token_id is None else chosen == search.eos_token_id
        if step == end - 1:
            ended[:] = True

        sentences = np.arange(len(alive))[:, None]
        some = np.flatnonzero(ended[:, :K].any(1))  # of a sentence's K best one or more have ended
        if len(some):
            outputs = beams[some[:, None], parents[some, :K], P:]  # (some, K, end)
            outputs[:, :, step] = chosen[some, :K]
            found.add(alive[some], outputs, best[some, :K], ended[some, :K], step + 1, search.length_penalty)

        going = np.argsort(ended, 1, kind="stable")[:, :K]  # at most K of 2 K end, but for the last step
        width = len(logits) // len(alive)  # beginnings of a sentence that the decoder was given
        scores, parents = best[sentences, going], parents[sentences, going]
        beams = beams[sentences, parents]  # (B, K, P + end)
        beams[:, :, P + step] = chosen[sentences, going]
        never = search.early_stopping == "never" and search.length_penalty > 0
        length = end if never else step + 1
        kept = found.open(alive, scores[:, 0] / np.float32(length**search.length_penalty), search.early_stopping)
        rows = (sentences * width + parents)[kept]
        alive, beams, scores = alive[kept], beams[kept], scores[kept]
        if len(alive) and step < end - 1:
            decoder.reorder(rows.reshape(-1))
    return found.hypotheses(search.num_return_sequences)


class _Found:
    """The K best hypotheses of each of B sentences so far."""

    def __init__(self, B: int, K: int, end: int) -> None:
        self.scores = np.full((B, K), UNFINISHED, np.float32)
        self.there = np.zeros((B, K), bool)
        self.tokens = np.zeros((B, K, end), np.int64)
        self.lengths = np.zeros((B, K), np.int64)

    def add(self, which: Array, tokens: Array, scores: Array, ended: Array, length: int, penalty: float) -> None:
        """Keep the best of what was there and K more each, of which some have `ended`, for the sentences `which`."""
        worth = np.where(ended, scores / np.float32(length**penalty), UNFINISHED)
        merged = np.concatenate([self.scores[which], worth], 1)
        order = np.argsort(-merged, 1, kind="stable")[:, : scores.shape[1]]
        lengths, sentences = np.full(ended.shape, length), np.arange(len(which))[:, None]
        for kept, new in ((self.tokens, tokens), (self.there, ended), (self.lengths, lengths)):
            kept[which] = np.concatenate([kept[which], new], 1)[sentences, order]
        self.scores[which] = merged[sentences, order]

    def open(self, which: Array, attainable: Array, early_stopping: bool | str) -> Array:
        """Whether each of the sentences goes on, whose best beginning can become `attainable`."""
        full = self.there[which].all(1)
        if early_stopping is True:
            return ~full
        return ~full | (attainable > self.scores[which].min(1))

    def hypotheses(self, count: int) -> list[list[Hypothesis]]:
        """The best `count` of each sentence."""
        return [
            [Hypothesis(t[:n].copy(), float(s)) for t, n, s in zip(tokens[:count], lengths, scores)]
            for tokens, lengths, scores in zip(self.tokens, self.lengths, self.scores)
        ]


def continuations(log_probs: Array, scores: Array, k: int) -> tuple[Array, Array, Array]:
    """The k best tokens behind the beginnings of each sentence: their scores, beginnings and numbers, (B, k) each.

    They are among the k best behind each beginning.

    Args:
        log_probs: (B K, V), of the token behind each beginning. scores: (B, K), those of the beginnings.
    Errors: ShapeError where scores are NaN.
    """
    values, tokens = largest(log_probs, k)
    if np.isnan(values).any():
        raise ShapeError("beam_search: the model's scores are no numbers (NaN)")
    B, sentences = len(scores), np.arange(len(scores))[:, None]
    values = (values.reshape(*scores.shape, k) + scores[:, :, None]).reshape(B, -1)  # (B, K k)
    order = np.argsort(-values, 1, kind="stable")[:, :k]
    return values[sentences, order], order // k, tokens.reshape(B, -1)[sentences, order]


def _repeating(seen: Array, size: int) -> list[tuple[int, Array]]:
    """For each row of `seen` (N, T) the tokens that would make a sequence of `size` tokens that occurred in it."""
    T = seen.shape[1]
    if size > T:
        return []
    grams = np.lib.stride_tricks.sliding_window_view(seen, size, axis=1)  # (N, T - size + 1, size)
    last = seen[:, T - size + 1 :]  # the size - 1 last, which a new token would complete
    again = (grams[:, :, :-1] == last[:, None]).all(-1)
    return [(row, grams[row, again[row], -1]) for row in np.flatnonzero(again.any(1)).tolist()]


def sample(
    decoder: Decoder,
    prompt: Array,
    sampling: Sampling,
    max_new_tokens: int,
    eos_token_id: int | None = None,
    suppress_tokens: tuple[int, ...] = (),
    generator: random.Generator | None = None,
) -> list[Array]:
    """One output for each row of `prompt` (B, T), drawn token by token; temperature 0 takes the likeliest (greedy).

    An output's tokens are as a Hypothesis has them. A row that has ended leaves the batch.
    """
    seen = np.asarray(prompt, np.int64)
    alive, P = np.arange(len(seen)), seen.shape[1]
    outputs: list[Array] = [np.zeros(0, np.int64)] * len(seen)
    for step in range(max_new_tokens):
        logits = np.array(decoder(seen if not step else seen[:, -1:]))
        logits[:, list(suppress_tokens)] = -np.inf
        drawn = sampling.choose(logits, seen, generator or random.default_generator)
        seen = np.concatenate([seen, drawn[:, None]], 1)
        going = np.ones(len(drawn), bool) if eos_token_id is None else drawn != eos_token_id
        if step == max_new_tokens - 1:
            going[:] = False
        for row in np.flatnonzero(~going):
            outputs[alive[row]] = seen[row, P:]
        if not going.any():
            break
        if not going.all():
            rows = np.flatnonzero(going)
            alive, seen = alive[rows], seen[rows]
            decoder.reorder(rows)
    return outputs
