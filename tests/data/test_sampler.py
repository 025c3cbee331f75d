"""Orders and batches of indices."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import BatchSampler, RandomBatchSampler, RandomSampler, SequentialSampler
from minilm.errors import DataError

SIZES = st.integers(0, 97)


@given(size=SIZES, seed=st.integers(0, 2**64 - 1))
def test_random_order_is_a_permutation_of_seed_and_epoch(size: int, seed: int) -> None:
    sampler = RandomSampler(range(size), seed)
    epochs = [list(sampler) for _ in range(3)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert all(type(i) is int for i in epochs[0])
    resumed = RandomSampler(range(size), seed)
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2]
    if size > 20:
        assert epochs[0] != epochs[1]
        assert list(RandomSampler(range(size), seed ^ 1)) != epochs[0]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 31])
def test_batches_are_those_of_torch(torch: Any, batch_size: int, drop_last: bool) -> None:
    for size in range(37):
        ours = BatchSampler(SequentialSampler(range(size)), batch_size, drop_last)
        theirs = torch.utils.data.BatchSampler(range(size), batch_size, drop_last)
        assert list(ours) == list(theirs)
        assert len(ours) == len(theirs) == len(list(ours))


def test_a_pass_begins_when_it_is_asked_for() -> None:
    batches = BatchSampler(RandomSampler(range(53), 3), 7)
    first, second = iter(batches), iter(batches)
    later = [i for batch in second for i in batch]
    earlier = [i for batch in first for i in batch]
    fresh = RandomSampler(range(53), 3)
    assert [earlier, later] == [list(fresh), list(fresh)]


def test_a_sampler_without_length_has_none() -> None:
    with pytest.raises(TypeError, match="no len"):
        len(BatchSampler(iter([1, 2]), 2))
    assert list(BatchSampler(iter([1, 2, 3]), 2)) == [[1, 2], [3]]


@given(seed=st.integers(0, 2**64 - 1), start=st.integers(0, 11))
def test_random_batches_are_a_function_of_the_step(seed: int, start: int) -> None:
    whole = list(RandomBatchSampler(range(101), 5, steps=11, seed=seed))
    resumed = RandomBatchSampler(range(101), 5, steps=11, seed=seed, start=start)
    assert list(resumed) == whole[start:]
    assert len(resumed) == 11 - start
    assert all(len(batch) == 5 and 0 <= min(batch) <= max(batch) < 101 for batch in whole)
    assert len({tuple(batch) for batch in whole}) == 11


def test_random_batches_reach_every_item() -> None:
    seen = {i for batch in RandomBatchSampler(range(13), 7, steps=50) for i in batch}
    assert seen == set(range(13))


def test_impossible_batches() -> None:
    with pytest.raises(DataError, match="batch_size is 0"):
        BatchSampler(range(3), 0)
    with pytest.raises(DataError, match="batch_size 0 and 3 items"):
        RandomBatchSampler(range(3), 0, 1)
    with pytest.raises(DataError, match="batch_size 2 and 0 items"):
        RandomBatchSampler([], 2, 1)
