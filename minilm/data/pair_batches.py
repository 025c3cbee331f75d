"""Batches of pairs, of like lengths and of about as many tokens each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minilm.data.draws import Purpose, generator
from minilm.data.permutation import Permutation
from minilm.errors import DataError

Array = Any
IGNORED = -100  # a label that is none
WIDTH = 4  # lengths that differ by less than so many tokens count as alike


class EncodedPairs:
    """N pairs as tokens, each side one text behind the other.

    Args:
        sources, targets: an array of tokens for each pair; targets may be empty.
    Attributes:
        source_lengths, target_lengths: (N).
    Errors: DataError for no pair.
    """

    def __init__(self, sources: Sequence[Array], targets: Sequence[Array]) -> None:
        if not len(sources):
            raise DataError("there is no pair")
        self.source_lengths, self.target_lengths = (np.array([len(x) for x in side]) for side in (sources, targets))
        self._sources, self._targets = np.concatenate(sources), np.concatenate(targets)
        self._source_ends, self._target_ends = np.cumsum(self.source_lengths), np.cumsum(self.target_lengths)

    def __len__(self) -> int:
        return len(self.source_lengths)

    @property
    def tokens(self) -> int:
        """How many tokens both sides have."""
        return len(self._sources) + len(self._targets)

    def gather(self, numbers: Array, padding: int) -> tuple[Array, Array, Array]:
        """input_ids and attention_mask (B, S), and labels (B, T), of the pairs with these numbers.

        S and T are the lengths of the longest; labels behind the end are -100.
        """
        ids, real = _padded(self._sources, self._source_ends, self.source_lengths, numbers, padding)
        labels, _ = _padded(self._targets, self._target_ends, self.target_lengths, numbers, IGNORED)
        return ids, real.astype(np.int64), labels

    def by_length(self, batch_size: int) -> Iterator[Array]:
        """The numbers of all pairs in batches of so many, the longest sources first."""
        order = np.argsort(-self.source_lengths, kind="stable")
        return (order[at : at + batch_size] for at in range(0, len(order), batch_size))


def _padded(flat: Array, ends: Array, lengths: Array, numbers: Array, padding: int) -> tuple[Array, Array]:
    """The texts with these numbers, (B, T), and which of it is text."""
    columns = np.arange(lengths[numbers].max())
    real = columns < lengths[numbers][:, None]
    places = np.where(real, (ends - lengths)[numbers][:, None] + columns, 0)
    return np.where(real, flat[places] if len(flat) else 0, padding), real


class TokenBatches:
    """What a Trainer learns from: every pair once in an epoch, in batches of at most `batch_tokens` tokens a side.

    Pairs are sorted by their lengths, rounded up to WIDTH, and cut into batches so that rows times the longest side,
    padding included, stays within `batch_tokens`. Each epoch shuffles the pairs of like lengths among themselves, and
    then the batches. Rounded lengths come in the same order each time, so the cuts are the same in each epoch, and the
    batch of a step is a function of the step and the seed alone.

    Attributes:
        train, validate: the pairs. batch_tokens, seed. padding: the id of <pad>.
        assess: the validation loss of a model, and its measures.
    """

    def __init__(
        self,
        train: EncodedPairs,
        validate: EncodedPairs,
        batch_tokens: int,
        seed: int,
        padding: int,
        assess: Callable[[Any], tuple[float, dict[str, float]]],
    ) -> None:
        self.train, self.validate, self.batch_tokens, self.seed = train, validate, batch_tokens, seed
        self.padding, self.assess = padding, assess
        sides = [-(-lengths // WIDTH) for lengths in (train.target_lengths, train.source_lengths)]
        self._keys = sides[0] * (sides[1].max() + 1) + sides[1]
        order = np.argsort(self._keys, kind="stable")
        self._cuts = _cuts((np.maximum(*sides) * WIDTH)[order], batch_tokens)
        self._epoch, self._order, self._turns = -1, order, np.arange(self.steps)

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self._cuts) - 1

    @property
    def evaluations(self) -> int:
        """Batches of the validation pairs."""
        return len(self._validation())

    def batch(self, step: int) -> tuple[Array, Array, Array]:
        """input_ids, attention_mask (B, S) and labels (B, T) of that step."""
        epoch, at = divmod(step, self.steps)
        if epoch != self._epoch:
            shuffled = Permutation(len(self.train), self.seed, epoch)[np.arange(len(self.train))]
            self._order = shuffled[np.argsort(self._keys[shuffled], kind="stable")]
            self._turns = generator(self.seed, epoch, Purpose.LENGTHS).permutation(self.steps)
            self._epoch = epoch
        turn = self._turns[at]
        return self.train.gather(self._order[self._cuts[turn] : self._cuts[turn + 1]], self.padding)

    def validation(self, index: int, seed: int = 0) -> tuple[Array, Array, Array]:
        """The validation batch of that number; the longest pairs are in the last."""
        batches = self._validation()
        return self.validate.gather(batches[index % len(batches)], self.padding)

    def _validation(self) -> list[Array]:
        longest = np.maximum(self.validate.source_lengths, self.validate.target_lengths)
        order = np.argsort(longest, kind="stable")
        return np.split(order, _cuts(longest[order], self.batch_tokens)[1:-1])


def _cuts(lengths: Array, most: int) -> list[int]:
    """Where to cut rows of these lengths so that rows times the longest is at most `most`; one row may be more."""
    cuts, longest = [0], 0
    for number, length in enumerate(lengths.tolist()):
        longest = max(longest, length)
        if number > cuts[-1] and (number + 1 - cuts[-1]) * longest > most:
            cuts.append(number)
            longest = length
    return [*cuts, len(lengths)]
