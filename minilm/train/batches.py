"""Which examples a step sees: a function of the step alone, so that any step's batch can be had again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minilm.data import CausalBlocks, Permutation, default_collate
from minilm.data.draws import Purpose, generator
from minilm.errors import DataError
from minilm.kernels.philox import philox

Array = Any
Batch = tuple[Array, ...]
IGNORED = -100  # a target that is none, as in cross_entropy


class Data(Protocol):
    """What a Trainer learns from. Batches are tuples of arrays, whose first axis is that of examples; targets last.

    A model whose loss has several parts finds the targets of each in an array of its own, in the same order.
    """

    def batch(self, step: int) -> Batch:
        """The batch of that step."""
        ...

    def validation(self, index: int, seed: int = 0) -> Batch:
        """The validation batch with that number."""
        ...


def targets_in(batch: Batch, array: int = -1) -> int:
    """How many targets a batch has in its array of that number: the elements that are not IGNORED."""
    return int(np.count_nonzero(np.asarray(batch[array]) != IGNORED))


def tokens_in(batch: Batch) -> int:
    """How many tokens a model reads in a batch: the elements of its first array, or its examples if they are no tokens.

    What is padding or no target counts too, since it is computed.
    """
    first = np.asarray(batch[0])
    return int(first.size) if np.issubdtype(first.dtype, np.integer) else len(first)


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


@dataclass
class ShuffledBlocks:
    """Blocks of a corpus passed through in epochs, each in a new order: (B, T) tokens and (B, T) targets.

    Example number k in all, step * B + j, is of epoch k // N, and in it every one of the N blocks comes
    once; a batch may have the end of one epoch and the beginning of the next. The order is a
    `Permutation`, so N does not cost memory.

    Attributes:
        train: the blocks to learn from, as a rule with stride T. validate: windows to test on.
        batch_size: B. seed: of the orders.

    Errors: DataError for a batch_size below 1.
    """

    train: CausalBlocks
    validate: CausalBlocks
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"ShuffledBlocks: batch_size is {self.batch_size}; it must be at least 1")

    def batch(self, step: int) -> Batch:
        """The blocks number step * B to step * B + B - 1."""
        first, size = step * self.batch_size, len(self.train)
        numbers: list[Array] = []
        while first < (step + 1) * self.batch_size:
            epoch, at = divmod(first, size)
            count = min((step + 1) * self.batch_size - first, size - at)
            numbers.append(Permutation(size, self.seed, epoch)[np.arange(at, at + count)])
            first += count
        return self.train.gather(np.concatenate(numbers))

    def validation(self, index: int, seed: int = 0) -> Batch:
        """B windows of the validation part, the same for every run."""
        return self.validate.random_batch(self.batch_size, seed=seed, step=index)


@dataclass
class Streams:
    """A corpus cut into B streams that are read side by side, each batch going on where the one before it ended.

        stream b = tokens[b S : (b + 1) S + 1],  S = N // B;    batch k = tokens number k T ... k T + T - 1 of each

    A batch is (B, T) tokens, (B, 2) places and (B, T) targets; a place is the number of the row's stream, and how many
    of its tokens came before. So a model can carry its state from one batch to the next (`RecurrentLM.loss`). After the
    last whole block of the streams they begin again, at 0. Validation windows are drawn at random; each begins at 0.

    Attributes:
        train, validate: windows with stride 1, to learn from and to test on. batch_size: B.

    Errors: DataError for streams shorter than a block.
    """

    train: CausalBlocks
    validate: CausalBlocks
    batch_size: int

    def __post_init__(self) -> None:
        tokens, T = len(self.train) + self.train.block_size - 1, self.train.block_size
        self.length = tokens // max(self.batch_size, 1)
        if self.batch_size < 1 or self.length < T:
            raise DataError(
                f"{tokens} tokens to learn from make {self.batch_size} streams of {self.length}, and a block has {T}: "
                "set a smaller batch_size or model.block_size"
            )

    def batch(self, step: int) -> Batch:
        """The next T tokens of every stream."""
        T, rows = self.train.block_size, np.arange(self.batch_size)
        before = step % (self.length // T) * T
        tokens, targets = self.train.gather(rows * self.length + before)
        return tokens, np.stack([rows, np.full(len(rows), before)], 1), targets

    def validation(self, index: int, seed: int = 0) -> Batch:
        """B windows of the validation part, the same for every run."""
        tokens, targets = self.validate.random_batch(self.batch_size, seed=seed, step=index)
        rows = np.arange(self.batch_size)
        return tokens, np.stack([rows, np.zeros_like(rows)], 1), targets


class Mixture:
    """Several sources mixed: each example of a batch is from one drawn by weight, a function of (seed, step).

    Example j of step s is example j of batch s of the source drawn for it, so all sources give batches
    of one shape. What a source passes through in epochs is so passed through with gaps: a block comes
    at most once in an epoch, and with the probability of the source's weight.

    Args:
        sources: pairs of a source (RandomBlocks, ShuffledBlocks, ...) and its weight, of any positive sum.

    Errors: DataError if there is no source, a weight is negative or not finite, or all are 0; for
    batches of different shapes when one is asked for.
    """

    def __init__(self, sources: Sequence[tuple[Data, float]], seed: int = 0) -> None:
        weights = np.array([weight for _, weight in sources], np.float64)
        if not len(weights) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
            raise DataError(f"Mixture: the weights are {weights.tolist()}; none may be negative, and one must not be 0")
        self.sources = [source for source, _ in sources]
        self.weights = weights / weights.sum()
        self.seed = seed

    def batch(self, step: int) -> Batch:
        """The batch of that step."""
        return self._mixed([source.batch(step) for source in self.sources], self.seed, step)

    def validation(self, index: int, seed: int = 0) -> Batch:
        """A validation batch, mixed by the same weights."""
        return self._mixed([source.validation(index, seed) for source in self.sources], seed, index)

    def _mixed(self, batches: list[Batch], seed: int, step: int) -> Batch:
        shapes = [[np.shape(part) for part in batch] for batch in batches]
        if any(shape != shapes[0] for shape in shapes):
            raise DataError(f"Mixture: the sources give batches of different shapes: {shapes}")
        count = len(batches[0][0])
        chosen = generator(seed, step, Purpose.MIXTURE).choice(len(batches), size=count, p=self.weights)
        return tuple(np.stack(parts)[chosen, np.arange(count)] for parts in zip(*batches))


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
