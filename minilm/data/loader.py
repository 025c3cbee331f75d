"""DataLoader: a dataset, batch by batch, with items fetched by threads if wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from minilm.data.collate import default_collate
from minilm.data.dataset import Dataset
from minilm.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from minilm.errors import DataError

Collate = Callable[[list[Any]], Any]


class DataLoader:
    """Iterate over a dataset in batches, under PyTorch's names and rules.

    - The order: 0 .. N - 1; or, with `shuffle`, a permutation that is a function of (seed, epoch)
      alone; or that of `sampler`; or the lists of indices of `batch_sampler`. Each pass is the next
      epoch; `set_epoch` says which one comes next.
    - `drop_last` leaves out a last batch that is shorter than `batch_size`.
    - `collate_fn` makes a batch of a list of items.
    - `num_workers` threads (0: none) fetch and collate batches ahead, `prefetch_factor` for each
      worker. Batches come in the same order as without. The threads end when the loop does:
      at its end, at a `break`, or at an exception.

    An exception from an item is raised as a DataError that names the item's index, with the
    original as its cause.

    Errors: DataError for options that exclude one another, or numbers out of range.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Collate | None = None,
        drop_last: bool = False,
        *,
        seed: int = 0,
        prefetch_factor: int = 2,
    ) -> None:
        if sampler is not None and shuffle:
            raise DataError("DataLoader: sampler and shuffle exclude each other")
        if batch_sampler is not None and (batch_size != 1 or shuffle or sampler is not None or drop_last):
            raise DataError("DataLoader: batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        if num_workers < 0 or prefetch_factor < 1:
            raise DataError(
                f"DataLoader: num_workers is {num_workers}, prefetch_factor {prefetch_factor}; "
                "they must be at least 0 and 1"
            )
        if sampler is None:
            sampler = RandomSampler(dataset, seed) if shuffle else SequentialSampler(dataset)
        if batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.dataset = dataset
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.collate_fn = default_collate if collate_fn is None else collate_fn
        self.num_workers = num_workers
        self.prefetch_factor = prefetch_factor

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of `epoch`; of use with `shuffle`, when a run is resumed."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return len(self.batch_sampler)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batch_sampler)
        return self._threaded(batches) if self.num_workers else map(self._batch, batches)

    def _threaded(self, batches: Iterator[Sequence[int]]) -> Iterator[Any]:
        """Keep the workers a few batches ahead; `finally` also runs when the loop is left early."""
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="minilm-data")
        ahead: deque[Future[Any]] = deque()
        try:
            for indices in batches:
                ahead.append(pool.submit(self._batch, indices))
                if len(ahead) >= self.num_workers * self.prefetch_factor:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, indices: Sequence[int]) -> Any:
        items = []
        for index in indices:
            try:
                items.append(self.dataset[index])
            except Exception as error:
                raise DataError(f"item {index} of {self._name}: {_said(error)}") from error
        try:
            return self.collate_fn(items)
        except Exception as error:
            raise DataError(f"collating items {_short(indices)} of {self._name}: {_said(error)}") from error

    @property
    def _name(self) -> str:
        return type(self.dataset).__name__


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _short(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return shown + (", ..." if len(indices) > 8 else "")
