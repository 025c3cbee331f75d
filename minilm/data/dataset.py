"""Datasets: things with a length and items by number, as in torch.utils.data."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from minilm.data.draws import Purpose, generator
from minilm.errors import DataError, ShapeError

Item = TypeVar("Item", covariant=True)


class Dataset(Protocol[Item]):
    """What a DataLoader needs. Any list will do; a subclass writes these two methods."""

    @abstractmethod
    def __getitem__(self, index: int, /) -> Item:
        """The item of a number in 0 .. len - 1."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""


class TensorDataset(Dataset[tuple[Any, ...]]):
    """Item i is the tuple of row i of each Tensor (or array): their first axes have one length N.

    Errors: ShapeError if the lengths differ, or nothing is given.
    """

    def __init__(self, *tensors: Any) -> None:
        lengths = [len(tensor) for tensor in tensors]
        if not tensors or len(set(lengths)) != 1:
            raise ShapeError(f"TensorDataset: first axes must have one length, not {lengths}")
        self.tensors = tensors

    def __getitem__(self, index: int, /) -> tuple[Any, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset[Item]):
    """The items of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Dataset[Item], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int, /) -> Item:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[Item]):
    """The items of several datasets, one dataset after the other. Errors: DataError if there is none."""

    def __init__(self, datasets: Sequence[Dataset[Item]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise DataError("ConcatDataset: the list of datasets is empty")
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __getitem__(self, index: int, /) -> Item:
        total = len(self)
        if not -total <= index < total:
            raise IndexError(f"ConcatDataset: there is no item {index} among {total}")
        index %= total
        number = bisect_right(self.cumulative_sizes, index)
        return self.datasets[number][index - (self.cumulative_sizes[number - 1] if number else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


def random_split(dataset: Dataset[Item], lengths: Sequence[int] | Sequence[float], seed: int = 0) -> list[Subset[Item]]:
    """Deal all items at random into parts that share none; the same seed deals the same.

    `lengths` are item counts that sum to len(dataset), or fractions that sum to 1: each part then
    gets floor(len * fraction), and what is left goes one by one to the first parts, as in PyTorch.

    Errors: DataError if the lengths are negative or do not sum to len(dataset) or to 1.
    """
    counts = _counts(len(dataset), lengths)
    order = generator(seed, 0, Purpose.SPLIT).permutation(len(dataset)).tolist()
    parts, start = [], 0
    for count in counts:
        parts.append(Subset(dataset, order[start : start + count]))
        start += count
    return parts


def _counts(total: int, lengths: Sequence[int] | Sequence[float]) -> list[int]:
    if any(length < 0 for length in lengths):
        raise DataError(f"random_split: lengths {list(lengths)} must not be negative")
    if math.isclose(sum(lengths), 1):
        counts = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(counts)):
            counts[i % len(counts)] += 1
        return counts
    if any(length != int(length) for length in lengths) or sum(lengths) != total:
        raise DataError(
            f"random_split: lengths {list(lengths)} sum to {sum(lengths)}; "
            f"they must sum to the {total} items, or be fractions that sum to 1"
        )
    return [int(length) for length in lengths]
