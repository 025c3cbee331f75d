"""Pairs of segments for BERT's pre-training: does the second follow the first, and what are the hidden tokens?

    [CLS] segment A [SEP] segment B [SEP] [PAD] ...      (T,)

Source: Devlin et al. 2019, section 3.1, task 2, and appendix A.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.draws import Purpose, generator
from minilm.data.masking import Masking
from minilm.data.sentences import Documents
from minilm.errors import DataError

Array = NDArray[Any]
IS_NEXT, NOT_NEXT = 0, 1  # the classes, numbered as in BERT
AROUND = 3  # [CLS], [SEP], [SEP]


@dataclass(frozen=True)
class Segments:
    """Where the tokens of pairs are: A is tokens[a : a + a_length], B tokens[b : b + b_length], all of shape (B,).

    `label` is IS_NEXT or NOT_NEXT.
    """

    a: Array
    a_length: Array
    b: Array
    b_length: Array
    label: Array


class SentencePairs:
    """Batches of segment pairs, each a function of (seed, step) alone.

    A pair begins at a random sentence. Sentences that follow it in its document are packed until T is full, and the
    cut between A and B is behind a random one of them. In half of the pairs, drawn independently, B is replaced by
    sentences from a random place of another document, in length what is missing to T; of a text that is one document
    only, from a place that has nothing in common with A or what follows it. What is too long is taken from the longer
    segment, at its beginning or its end, token by token at random. One pair in ten is packed to a random, smaller
    length, since texts in use are not all of length T.

    Args:
        documents: what the pairs are drawn from.
        block_size: T. batch_size: B.
        masking: what is hidden, and which tokens are special.
        short_probability: the share of the pairs with a random length.

    Errors: DataError for a T without room for two tokens, a document text too short to have unrelated segments.
    """

    def __init__(
        self,
        documents: Documents,
        block_size: int,
        batch_size: int,
        masking: Masking,
        short_probability: float = 0.1,
    ) -> None:
        if block_size < AROUND + 2:
            raise DataError(f"SentencePairs: block_size is {block_size}; two tokens and {AROUND} around them need more")
        self.documents, self.block_size, self.batch_size, self.masking = documents, block_size, batch_size, masking
        self.short_probability = short_probability
        sizes = np.diff(documents.documents)
        self._ends = np.repeat(documents.documents[1:], sizes)  # (S,) the end of each sentence's document
        self._begins = np.repeat(documents.documents[:-1], sizes)
        # A pair needs two sentences of one document, so it does not begin at the last one.
        self._starts = np.flatnonzero(np.arange(len(self._ends)) + 1 < self._ends)
        if not len(self._starts):
            raise DataError("sentence pairs need a document of two sentences, and no document has more than one")
        needed = 4 * block_size
        if len(sizes) == 1 and len(documents.tokens) < needed:
            raise DataError(
                f"{len(documents.tokens)} tokens in a single document are too few for unrelated segments of up to "
                f"{block_size}; at least {needed} are needed: give more text, or a smaller model.block_size"
            )

    def batch(self, seed: int, step: int) -> tuple[Array, Array, Array, Array, Array]:
        """input_ids, token_type_ids, attention_mask, labels, each (B, T), and next_sentence_label (B,), all int64.

        labels are the original tokens where they must be guessed, elsewhere -100.
        """
        pairs = self.segments(generator(seed, step, Purpose.PAIRS))
        tokens, types, present = self.laid_out(pairs)
        seen, labels = self.masking(tokens, generator(seed, step, Purpose.MASKING))
        return seen, types, present, labels, pairs.label

    def segments(self, draws: np.random.Generator) -> Segments:
        """B pairs: see the class."""
        d, B, room = self.documents, self.batch_size, self.block_size - AROUND
        first = self._starts[draws.integers(len(self._starts), size=B)]
        short = draws.random(B) < self.short_probability
        length = np.where(short, draws.integers(2, room + 1, size=B), room)
        end = np.searchsorted(d.sentences, d.sentences[first] + length)  # the first that is packed no more
        end = np.minimum(np.maximum(end, first + 2), self._ends[first])
        cut = first + 1 + (draws.random(B) * (end - first - 1)).astype(np.int64)
        a, cut_at = d.sentences[first], d.sentences[cut]
        label = np.where(draws.random(B) < 0.5, IS_NEXT, NOT_NEXT)

        elsewhere = self._elsewhere(first, end, draws.random(B))
        missing = np.maximum(length - (cut_at - a), 1)
        elsewhere_end = np.searchsorted(d.sentences, d.sentences[elsewhere] + missing)
        elsewhere_end = np.minimum(np.maximum(elsewhere_end, elsewhere + 1), self._ends[elsewhere])
        b = np.where(label == IS_NEXT, cut_at, d.sentences[elsewhere])
        b_end = d.sentences[np.where(label == IS_NEXT, end, elsewhere_end)]

        a_length, b_length = _fitted(cut_at - a, b_end - b, length)
        a += draws.binomial(cut_at - a - a_length, 0.5)
        b += draws.binomial(b_end - b - b_length, 0.5)
        return Segments(a, a_length, b, b_length, label)

    def _elsewhere(self, first: Array, end: Array, draw: Array) -> Array:
        """A random sentence of another document, (B,), for each pair that was packed of sentences first .. end - 1."""
        d = self.documents
        low, high = self._begins[first], self._ends[first]
        if len(d.documents) == 2:
            # Far enough before that a segment from there ends before A, or anywhere behind.
            low = np.searchsorted(d.sentences, np.maximum(d.sentences[first] - self.block_size, 0))
            high = np.minimum(end + 1, len(d.sentences) - 1)
        outside = len(d.sentences) - 1 - (high - low)
        place = (draw * outside).astype(np.int64)
        return place + np.where(place >= low, high - low, 0)

    def laid_out(self, pairs: Segments) -> tuple[Array, Array, Array]:
        """The tokens (B, T) with the special ones around them, which segment each is of, and which are no padding."""
        place = np.arange(self.block_size)
        a_length, b_length = pairs.a_length[:, None], pairs.b_length[:, None]
        first_sep, last_sep = a_length + 1, a_length + b_length + 2
        in_a, in_b = (place >= 1) & (place < first_sep), (place > first_sep) & (place < last_sep)
        source = np.where(in_a, pairs.a[:, None] + place - 1, pairs.b[:, None] + place - first_sep - 1)
        tokens = np.full(source.shape, self.masking.pad_id, np.int64)
        inside = in_a | in_b
        tokens[inside] = self.documents.tokens[source[inside]]
        tokens[:, 0] = self.masking.cls_id
        tokens[(place == first_sep) | (place == last_sep)] = self.masking.sep_id
        types = (place > first_sep) & (place <= last_sep)
        return tokens, types.astype(np.int64), (place <= last_sep).astype(np.int64)


def _fitted(a: Array, b: Array, length: Array) -> tuple[Array, Array]:
    """Lengths of A and B with a sum of at most `length`, where tokens are taken from the longer one."""
    half = length // 2
    excess = np.maximum(a + b - length, 0)
    shorter = np.minimum(a, b)
    kept = np.where(shorter <= half, shorter, half)  # the shorter one gives nothing until both are alike
    longer = a + b - excess - kept
    return np.where(a <= b, kept, longer), np.where(a <= b, longer, kept)
