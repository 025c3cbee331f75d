"""Counting n-grams of token ids: a sorted array for each order, no dictionaries.

An n-gram of order m is its first m - 1 tokens, which are an n-gram of order m - 1, and its last token:

    key = (number of the n-gram of the first m - 1 tokens) * (V + 1) + last token

The keys of an order are sorted, and the place of a key is the n-gram's number. So what follows a context lies side by
side, and an n-gram is found by m - 1 binary searches. V + 1, since the beginning of a text, <s>, is a token of its own
with the id V: it stands in contexts and is never predicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.errors import ConfigError, DataError

Array = Any

ORDERS = range(1, 7)


def checked_order(order: Any) -> int:
    """The order as an int. Errors: ConfigError unless it is a whole number from 1 to 6."""
    if not isinstance(order, (int, np.integer)) or isinstance(order, bool) or order not in ORDERS:
        raise ConfigError(f"the order of an n-gram model must be a whole number from 1 to {ORDERS[-1]}, not {order!r}")
    return int(order)


def checked_ids(ids: Any, vocab_size: int) -> Array:
    """Token ids as int64, (N,). Errors: DataError for other numbers or shapes, or an id outside 0 ... V - 1."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DataError(f"n-grams: token ids are integers in one dimension, not {array.dtype} {array.shape}")
    for bad in (array.min(), array.max()) if array.size else ():
        if not 0 <= bad < vocab_size:
            raise DataError(f"n-grams: id {bad} is outside the vocabulary of {vocab_size} tokens")
    return array.astype(np.int64)


def with_beginnings(ids: Array, bos: int, eos: int | None) -> Array:
    """The ids with <s> before the first of them and, where sentences end with `eos`, behind each end but the last."""
    ends = np.zeros(0, np.int64) if eos is None else np.flatnonzero(ids[:-1] == eos) + 1
    return np.insert(ids, np.concatenate([[0], ends]), bos)


@dataclass
class Grams:
    """All n-grams of one order, sorted.

    Attributes:
        keys: (n,) int64, see above.
        counts: (n,) how often each occurred.
        suffix: (n,) the number, one order below, of the n-gram without its first token; none for order 1.
    """

    keys: Array
    counts: Array
    suffix: Array | None


def child_bounds(longer: Array, contexts: int, width: int) -> Array:
    """(contexts + 1,): what follows context i has the numbers bounds[i] ... bounds[i + 1] - 1 in the sorted keys."""
    followers = np.bincount(longer // width, minlength=contexts)
    return np.concatenate([[0], np.cumsum(followers)])


def found_among(keys: Array, wanted: Array) -> Array:
    """Where in the sorted keys each wanted one stands, in its shape; -1 for one that is not there."""
    if not len(keys):
        return np.full(wanted.shape, -1)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)


def _distinct(keys: Array, bound: int) -> tuple[Array, Array, Array]:
    """The different keys, sorted; the place of each key among them; and how often each is there. Keys are below bound.

    As np.unique does it; but where there are about as many possible keys as keys, as with characters, a table of all
    of them takes a third of the time of sorting.
    """
    if bound > 4 * len(keys):
        return np.unique(keys, return_inverse=True, return_counts=True)
    table = np.bincount(keys, minlength=bound)
    present = np.flatnonzero(table)
    place = np.cumsum(table > 0) - 1
    return present, place[keys], table[present]


class NGramCounts:
    """How often each n-gram of orders 1 to `order` occurs in a text of token ids.

    Args:
        ids: (N,) token ids from 0 to V - 1.
        eos: the id that ends a sentence, if there is one: no n-gram goes beyond it, and <s> begins the next.

    The text begins with <s>, id V, so that every token but <s> has one before it: (N + 1) tokens for a running text.
    Memory: some 40 bytes a token, and 24 for each n-gram.

    Errors: ConfigError for an impossible order; DataError for no tokens at all or ids outside the vocabulary.
    """

    def __init__(self, ids: Any, vocab_size: int, order: int, eos: int | None = None) -> None:
        self.order, self.vocab_size, self.eos = checked_order(order), int(vocab_size), eos
        self.bos, self.width = self.vocab_size, self.vocab_size + 1
        array = checked_ids(ids, self.vocab_size)
        if not array.size:
            raise DataError("n-grams: the corpus is empty, so there is nothing to count")
        text = with_beginnings(array, self.bos, eos)
        number = text  # of the n-gram that begins at each place, -1 where it would go beyond an end
        unigrams = np.arange(self.width)
        self.grams = [Grams(unigrams, np.bincount(text, minlength=self.width), None)]
        for _ in range(self.order - 1):
            grams, number = self._longer(text, number)
            self.grams.append(grams)

    def _longer(self, text: Array, number: Array) -> tuple[Grams, Array]:
        """The n-grams one token longer than those that `number` tells at each place, and their own numbers."""
        m = len(self.grams)  # tokens of the context
        last = text[m:]
        places = np.flatnonzero((number[: len(last)] >= 0) & (last != self.bos))
        keys, found, counts = _distinct(
            number[places] * self.width + last[places], len(self.grams[-1].keys) * self.width
        )
        suffix = np.empty(len(keys), np.int64)
        suffix[found] = number[places + 1]  # the same at every place where the n-gram stands
        longer = np.full(len(last), -1, np.int64)
        longer[places] = found
        return Grams(keys, counts, suffix), longer

    def continuations(self, m: int) -> Array:
        """(n,) how many different tokens stand before each n-gram of order m; those that begin with <s>: how often.

        N1+(. w1 ... wm), Kneser & Ney 1995; before <s> there is nothing, so its n-grams keep their counts, and the
        highest order, of which nothing longer was counted, keeps them all.
        """
        grams = self.grams[m - 1]
        if m == self.order:
            return grams.counts
        before = np.bincount(self.grams[m].suffix, minlength=len(grams.keys))  # type: ignore[arg-type]
        return np.where(self.begins(m), grams.counts, before)

    def begins(self, m: int) -> Array:
        """(n,) which n-grams of order m have <s> as their first token."""
        first = self.grams[0].keys == self.bos
        for grams in self.grams[1:m]:
            first = first[grams.keys // self.width]
        return first
