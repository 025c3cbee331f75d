"""DataLoader: every item once, the same order with and without threads, no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import DataLoader, Dataset, TensorDataset
from minilm.errors import DataError
from minilm.tensor import Tensor


class Squares(Dataset[int]):
    """i -> i * i; refuses `broken`, and takes longer for even numbers, so that threads overtake."""

    def __init__(self, size: int, broken: int = -1, pause: float = 0.0) -> None:
        self.size, self.broken, self.pause = size, broken, pause

    def __getitem__(self, index: int, /) -> int:
        if index == self.broken:
            raise KeyError("no such square")
        if self.pause and index % 2 == 0:
            time.sleep(self.pause)
        return index * index

    def __len__(self) -> int:
        return self.size


def workers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("minilm-data")]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert workers() == []


@settings(max_examples=60)
@given(
    size=st.integers(0, 61),
    batch_size=st.integers(1, 17),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    num_workers=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_every_item_once_in_an_order_of_seed_and_epoch(
    size: int, batch_size: int, drop_last: bool, shuffle: bool, num_workers: int, seed: int
) -> None:
    def passes(num_workers: int) -> list[list[list[int]]]:
        loader = DataLoader(range(size), batch_size, shuffle, None, None, num_workers, list, drop_last, seed=seed)
        epochs = [list(loader) for _ in range(2)]
        assert all(len(epoch) == len(loader) for epoch in epochs)
        return epochs

    epochs = passes(num_workers)
    assert epochs == passes(0)
    for epoch in epochs:
        seen = [i for batch in epoch for i in batch]
        assert len(set(seen)) == len(seen) == size - (size % batch_size if drop_last else 0)
        assert shuffle or seen == list(range(len(seen)))


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 13])
def test_lengths_and_batches_are_those_of_torch(torch: Any, batch_size: int, drop_last: bool) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
    for size in (1, 2, 3, 7, 12, 13, 14, 23):
        ours = DataLoader(Squares(size), **options)
        theirs = torch.utils.data.DataLoader(Squares(size), **options)
        assert len(ours) == len(theirs)
        assert [b.tolist() for b in ours] == [b.tolist() for b in theirs]


def test_batches_are_tensors() -> None:
    x = np.arange(35, dtype=np.float32).reshape(7, 5)
    loader = DataLoader(TensorDataset(Tensor(x), Tensor(np.arange(7))), batch_size=3)
    batches = list(loader)
    assert [type(part) for part in batches[0]] == [Tensor, Tensor]
    assert [rows.array.shape for rows, _ in batches] == [(3, 5), (3, 5), (1, 5)]
    np.testing.assert_array_equal(np.concatenate([rows.array for rows, _ in batches]), x)


def test_order_is_kept_when_threads_overtake() -> None:
    loader = DataLoader(Squares(23, pause=0.003), batch_size=1, num_workers=3, collate_fn=list)
    assert [batch for (batch,) in loader] == [i * i for i in range(23)]


def test_workers_work_side_by_side() -> None:
    together = threading.Barrier(3, timeout=10)

    class Meet(Squares):
        def __getitem__(self, index: int, /) -> int:
            together.wait()
            return index

    loader = DataLoader(Meet(6), num_workers=3, collate_fn=list)
    assert list(loader) == [[i] for i in range(6)]


def test_workers_do_not_run_far_ahead() -> None:
    asked: list[int] = []

    class Asked(Squares):
        def __getitem__(self, index: int, /) -> int:
            asked.append(index)
            return index

    batches = iter(DataLoader(Asked(1009), num_workers=2, prefetch_factor=3, collate_fn=list))
    next(batches)
    time.sleep(0.05)
    assert len(asked) <= 6
    del batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_item_that_fails_is_named(num_workers: int) -> None:
    loader = DataLoader(Squares(29, broken=17), 5, num_workers=num_workers, collate_fn=list)
    batches = iter(loader)
    assert [next(batches)[0] for _ in range(3)] == [0, 25, 100]
    with pytest.raises(DataError, match=r"item 17 of Squares: KeyError: 'no such square'") as caught:
        next(batches)
    assert isinstance(caught.value.__cause__, KeyError)
    assert workers() == []


@pytest.mark.parametrize("num_workers", [0, 2])
def test_collating_that_fails_names_its_items(num_workers: int) -> None:
    ragged = [np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(4)]
    loader = DataLoader(ragged, 2, num_workers=num_workers)
    with pytest.raises(DataError, match=r"collating items 2, 3 of list: ShapeError: .*\(3,\), \(4,"):
        list(loader)


def test_leaving_early_ends_the_threads() -> None:
    loader = DataLoader(Squares(1009, pause=0.001), num_workers=3, collate_fn=list)
    for batch in loader:
        if batch == [4]:
            break
    assert workers() == []

    def stumble() -> None:
        for _ in loader:
            assert len(workers()) > 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stumble()


def test_a_broken_sampler_ends_the_threads() -> None:
    def indices() -> Iterator[list[int]]:
        yield from ([i] for i in range(11))
        raise ZeroDivisionError

    loader = DataLoader(Squares(11), batch_sampler=indices(), num_workers=2, collate_fn=list)
    with pytest.raises(ZeroDivisionError):
        list(loader)


def test_own_samplers() -> None:
    items = "abcdef"
    assert list(DataLoader(items, 2, sampler=[5, 0, 0], collate_fn="".join)) == ["fa", "a"]
    batches = [[1, 2, 3], [0]]
    assert list(DataLoader(items, batch_sampler=batches, collate_fn="".join)) == ["bcd", "a"]
    assert len(DataLoader(items, batch_sampler=batches)) == 2


def test_set_epoch_resumes() -> None:
    first = DataLoader(range(31), 7, shuffle=True, seed=5, collate_fn=list)
    epochs = [list(first) for _ in range(3)]
    resumed = DataLoader(range(31), 7, shuffle=True, seed=5, collate_fn=list)
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2] != epochs[1]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"shuffle": True, "sampler": [0]}, "sampler and shuffle exclude"),
        ({"batch_size": 2, "batch_sampler": [[0]]}, "batch_sampler excludes"),
        ({"shuffle": True, "batch_sampler": [[0]]}, "batch_sampler excludes"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_options(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        DataLoader(range(5), **options)
