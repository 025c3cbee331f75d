"""Samplers: in which order, and in which batches, a DataLoader asks for items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice

from minilm.data.draws import Purpose, generator
from minilm.errors import DataError


class SequentialSampler:
    """0, 1, ..., len(dataset) - 1."""

    def __init__(self, dataset: Sized) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.dataset)))

    def __len__(self) -> int:
        return len(self.dataset)


class RandomSampler:
    """A random permutation of 0 .. len(dataset) - 1, a function of (seed, epoch) alone.

    Each pass is the next epoch; `set_epoch` says which one comes next (after a resume).
    """

    def __init__(self, dataset: Sized, seed: int = 0) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of `epoch`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        draws = generator(self.seed, self.epoch, Purpose.SHUFFLE)
        self.epoch += 1
        return map(int, draws.permutation(len(self.dataset)))

    def __len__(self) -> int:
        return len(self.dataset)


class BatchSampler:
    """Lists of `batch_size` consecutive indices of `sampler`; the last may be shorter.

    `drop_last` leaves a shorter last one out.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}; it must be at least 1")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        # The pass begins here, not at the first `next`: passes begun in order are epochs in order.
        return self._batches(iter(self.sampler))

    def _batches(self, indices: Iterator[int]) -> Iterator[list[int]]:
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        if not isinstance(self.sampler, Sized):
            raise TypeError(f"{type(self.sampler).__name__} has no len()")
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class RandomBatchSampler:
    """For each step `batch_size` indices drawn with replacement: a function of (seed, step) alone.

    As a DataLoader's `batch_sampler` over `CausalBlocks(tokens, T, stride=1)` it gives random
    windows of a corpus, one batch for each step from `start` to `steps` - 1; a run that resumes at
    `start` sees the batches that it would have seen.

    Errors: DataError for an empty dataset, or a batch_size below 1.
    """

    def __init__(self, dataset: Sized, batch_size: int, steps: int, seed: int = 0, start: int = 0) -> None:
        if batch_size < 1 or len(dataset) < 1:
            raise DataError(
                f"RandomBatchSampler: batch_size {batch_size} and {len(dataset)} items; both must be at least 1"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.start = start

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.steps):
            draws = generator(self.seed, step, Purpose.BLOCKS)
            batch: list[int] = draws.integers(len(self.dataset), size=self.batch_size).tolist()
            yield batch

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)
