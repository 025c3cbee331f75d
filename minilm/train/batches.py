"""Which examples a step sees: a function of the step alone, so that any step's batch can be had again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm.data import CausalBlocks, default_collate
from minilm.data.draws import Purpose, generator
from minilm.errors import DataError
from minilm.kernels.philox import philox

Array = Any
Batch = tuple[Array, ...]
IGNORED = -100  # a target that is none, as in cross_entropy


class Data(Protocol):
    """What a Trainer learns from. Batches are tuples of arrays, whose first axis is that of examples; targets last."""

    def batch(self, step: int) -> Batch:
        """The batch of that step."""
        ...

    def validation(self, index: int, seed: int = 0) -> Batch:
        """The validation batch with that number."""
        ...


def targets_in(batch: Batch) -> int:
    """How many targets a batch has: the elements of its last array that are not IGNORED."""
    return int(np.count_nonzero(np.asarray(batch[-1]) != IGNORED))


@dataclass
class RandomBlocks:
    """Random windows of a corpus, for a model that learns each next token: (B, T) tokens and (B, T) targets.

    Attributes:
        train, validate: the windows to learn from and to test on, with stride 1.
        batch_size: B. seed: of the draws.
    """

    train: CausalBlocks
    validate: CausalBlocks
    batch_size: int
    seed: int

    def batch(self, step: int) -> Batch:
        """B windows, drawn with replacement."""
        return self.train.random_batch(self.batch_size, seed=self.seed, step=step)

    def validation(self, index: int, seed: int = 0) -> Batch:
        """B windows of the validation part, the same for every run."""
        return self.validate.random_batch(self.batch_size, seed=seed, step=index)


class ShuffledEpochs:
    """Datasets passed through in epochs, each in an order of its own; the last batch of an epoch may be shorter.

    Args:
        train, validate: sequences of examples. batch_size: B. seed: of the orders.
        collate: makes a batch, a tuple of arrays, of a list of examples.

    Errors: DataError for a batch_size below 1 or an empty dataset.
    """

    def __init__(
        self,
        train: Sequence[Any],
        validate: Sequence[Any],
        batch_size: int,
        seed: int = 0,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        if batch_size < 1 or not len(train) or not len(validate):
            raise DataError(
                f"ShuffledEpochs: batch_size {batch_size}, {len(train)} examples to learn from and {len(validate)} to "
                "test on; each must be at least 1"
            )
        self.train, self.validate, self.batch_size, self.seed, self.collate = train, validate, batch_size, seed, collate
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass."""
        return -(-len(self.train) // self.batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of that step: the epoch's order is a function of the seed and its number."""
        epoch, at = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = generator(self.seed, epoch, Purpose.SHUFFLE).permutation(len(self.train))
        return self._collated(self.train, self._order[at * self.batch_size : (at + 1) * self.batch_size])

    def validation(self, index: int, seed: int = 0) -> Batch:
        """Examples drawn at random without replacement within a batch."""
        draws = generator(seed, index, Purpose.BLOCKS)
        count = min(self.batch_size, len(self.validate))
        return self._collated(self.validate, draws.permutation(len(self.validate))[:count])

    def _collated(self, dataset: Sequence[Any], chosen: Any) -> Batch:
        made = self.collate([dataset[int(i)] for i in chosen])
        parts = made if isinstance(made, (tuple, list)) else (made,)
        return tuple(np.asarray(getattr(part, "array", part)) for part in parts)


def step_seed(seed: int, step: int) -> int:
    """A seed for each step: mixed, so that neighbouring steps of neighbouring seeds are not the same."""
    high, low = philox(seed, int(Purpose.STEP) << 32, step, 2)
    return int(high) << 32 | int(low)
