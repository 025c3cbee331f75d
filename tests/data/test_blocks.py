"""Blocks: y is x one token later, all of the corpus is used, batches depend on (seed, step)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import (
    CausalBlocks,
    DataLoader,
    RandomBatchSampler,
    train_validation_split,
    write_tokens,
)
from minilm.errors import DataError


@given(size=st.integers(2, 97), block_size=st.integers(1, 23), stride=st.none() | st.integers(1, 31))
def test_every_block_is_where_it_should_be(size: int, block_size: int, stride: int | None) -> None:
    if size < block_size + 1:
        return
    tokens = np.arange(size, dtype=np.uint8)
    blocks = CausalBlocks(tokens, block_size, stride)
    step = stride or block_size
    starts = [s for s in range(0, size, step) if s + block_size + 1 <= size]
    assert len(blocks) == len(starts)
    for i, start in enumerate(starts):
        x, y = blocks[i]
        assert x.dtype == y.dtype == np.int64
        assert x.tolist() == list(range(start, start + block_size))
        assert y.tolist() == list(range(start + 1, start + block_size + 1))
    assert blocks[-1][0].tolist() == blocks[len(blocks) - 1][0].tolist()
    for outside in (len(blocks), -len(blocks) - 1):
        with pytest.raises(IndexError, match=f"block {outside} of {len(blocks)}"):
            blocks[outside]


@given(seed=st.integers(0, 2**64 - 1), step=st.integers(0, 10**6))
def test_random_batches_are_windows(seed: int, step: int) -> None:
    tokens = (np.arange(101) * 7 % 101).astype(np.uint8)
    blocks = CausalBlocks(tokens, 11)
    x, y = blocks.random_batch(5, seed=seed, step=step)
    assert x.shape == y.shape == (5, 11)
    assert x.dtype == y.dtype == np.int64
    # 7 * 29 = 2 * 101 + 1: so a token times 29, modulo 101, is its place.
    places = x * 29 % 101
    assert (np.diff(places) == 1).all()
    assert (y * 29 % 101 == places + 1).all()
    again = blocks.random_batch(5, seed=seed, step=step)
    assert (again[0] == x).all()
    assert (blocks.random_batch(5, seed=seed, step=step + 1)[0] != x).any()


def test_random_batches_reach_both_ends() -> None:
    blocks = CausalBlocks(np.arange(17), 11)
    first = {int(x) for step in range(20) for x in blocks.random_batch(5, seed=0, step=step)[0][:, 0]}
    assert first == set(range(6))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_same_random_batches(num_workers: int) -> None:
    tokens = np.random.default_rng(0).integers(1000, size=311).astype(np.uint16)
    blocks = CausalBlocks(tokens, 13, stride=1)
    sampler = RandomBatchSampler(blocks, 5, steps=7, seed=3, start=2)
    loader = DataLoader(blocks, batch_sampler=sampler, num_workers=num_workers)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    for step, (x, y) in enumerate(batches, start=2):
        expected = blocks.random_batch(5, seed=3, step=step)
        np.testing.assert_array_equal(x.array, expected[0], strict=True)
        np.testing.assert_array_equal(y.array, expected[1], strict=True)


def test_sequential_blocks_through_the_loader(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "t", [np.arange(101)], 101)
    batches = list(DataLoader(CausalBlocks(file, 7), batch_size=3))
    assert [x.array.shape for x, _ in batches] == [(3, 7)] * 4 + [(2, 7)]
    predicted = np.concatenate([y.array.ravel() for _, y in batches])
    assert predicted.tolist() == list(range(1, 99))


@pytest.mark.parametrize(
    ("tokens", "block_size", "stride", "why"),
    [
        (np.arange(11), 11, None, "corpus has 11 tokens; a block of 11 .* need 12"),
        (np.arange(0), 1, None, "corpus has 0 tokens"),
        (np.arange(11), 0, None, "block_size is 0"),
        (np.arange(11), 3, 0, "stride 0"),
        (np.arange(11.0), 3, None, "float64"),
        (np.zeros((3, 5), int), 2, None, r"\(3, 5\)"),
    ],
)
def test_impossible_blocks(tokens: Any, block_size: int, stride: int | None, why: str) -> None:
    with pytest.raises(DataError, match=why):
        CausalBlocks(tokens, block_size, stride)


def test_split_is_first_and_last(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "t", [np.arange(103)], 103)
    for tokens, memory in ((file, file.tokens), (file.tokens, file.tokens)):
        train, validation = train_validation_split(tokens)
        assert np.shares_memory(train, memory)
        assert np.shares_memory(validation, memory)
        assert train.tolist() == list(range(92))
        assert validation.tolist() == list(range(92, 103))
    assert len(train_validation_split(np.arange(103), 0.5)[0]) == 51


@pytest.mark.parametrize(("size", "fraction"), [(10, 0.0), (10, 1.0), (1, 0.9), (3, 0.1), (0, 0.5)])
def test_splits_that_leave_a_part_empty(size: int, fraction: float) -> None:
    with pytest.raises(DataError, match=f"{size} tokens at {fraction} give"):
        train_validation_split(np.arange(size), fraction)
