"""Datasets and random_split, with PyTorch's rules for lengths and fractions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split
from minilm.errors import DataError, ShapeError


def test_a_dataset_needs_both_methods() -> None:
    class Half(Dataset[int]):
        def __len__(self) -> int:
            return 3

    with pytest.raises(TypeError, match="__getitem__"):
        Half()  # type: ignore[abstract]


def test_tensor_dataset_gives_rows() -> None:
    x, y = np.arange(15).reshape(5, 3), np.arange(5) * 2
    rows = TensorDataset(x, y)
    assert len(rows) == 5
    assert [part.tolist() for part in rows[3]] == [[9, 10, 11], 6]
    with pytest.raises(ShapeError, match=r"\[5, 4\]"):
        TensorDataset(x, y[:4])
    with pytest.raises(ShapeError):
        TensorDataset()


def test_subset_gives_its_items_in_its_order() -> None:
    part = Subset(["a", "b", "c", "d"], [3, 0, 3])
    assert len(part) == 3
    assert [part[i] for i in range(3)] == ["d", "a", "d"]


@given(counts=st.lists(st.integers(0, 13), min_size=1), seed=st.integers(0, 2**64 - 1))
def test_split_deals_every_item_once(counts: list[int], seed: int) -> None:
    items = list(range(sum(counts)))
    if sum(counts) == 1:
        return
    parts = random_split(items, counts, seed)
    assert [len(part) for part in parts] == counts
    dealt = [part[i] for part in parts for i in range(len(part))]
    assert sorted(dealt) == items
    again = random_split(items, counts, seed)
    assert [part.indices for part in again] == [part.indices for part in parts]


def test_seeds_deal_differently() -> None:
    first, second = (random_split(range(53), [53], seed)[0].indices for seed in (0, 1))
    assert first != second
    assert first != list(range(53))


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.9, 0.1], [0.3, 0.3, 0.4], [1 / 3, 1 / 3, 1 / 3]])
def test_fractions_are_cut_as_in_torch(torch: Any, fractions: list[float]) -> None:
    for total in range(11, 53):
        ours = [len(part) for part in random_split(range(total), fractions)]
        theirs = [len(part) for part in torch.utils.data.random_split(range(total), fractions)]
        assert ours == theirs


@pytest.mark.parametrize("lengths", [[3, 3], [0.5, 0.6], [-1, 8], [3.5, 3.5]])
def test_lengths_that_do_not_fit(lengths: list[float]) -> None:
    with pytest.raises(DataError, match="random_split: lengths"):
        random_split(range(7), lengths)


def test_concatenated_datasets_are_one_behind_the_other():
    both = ConcatDataset([[1, 2], [], [3, 4, 5]])
    assert len(both) == 5
    assert [both[i] for i in range(5)] == [1, 2, 3, 4, 5]
    assert both[-1] == 5
    with pytest.raises(IndexError, match="no item 5 among 5"):
        both[5]
    with pytest.raises(DataError, match="empty"):
        ConcatDataset([])
