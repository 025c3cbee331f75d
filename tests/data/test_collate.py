"""default_collate against torch.utils.data.default_collate: same structure, dtypes and values."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

from minilm.data import default_collate
from minilm.errors import DataError, ShapeError
from minilm.tensor import Tensor

Point = namedtuple("Point", ["x", "y"])

BATCHES: list[list[Any]] = [
    [1, 2, 3],
    [1.5, 2.0],
    [True, False, True],
    ["ab", "c"],
    [b"ab", b"c"],
    [np.float32(1.5), np.float32(2)],
    [np.int16(3), np.int16(5)],
    [np.arange(6, dtype=np.int64).reshape(2, 3) + i for i in range(5)],
    [np.ones((0, 3), np.float32)] * 2,
    [(1, 2.5, "a"), (3, 4.5, "b")],
    [[1, 2], [3, 4], [5, 6]],
    [{"ids": np.arange(3), "label": 1}, {"ids": np.arange(3) * 2, "label": 0}],
    [OrderedDict(a=1, b=2.0), OrderedDict(a=3, b=4.0)],
    [Point(1, np.zeros(2)), Point(2, np.ones(2))],
    [(), ()],
    [{"deep": [({"x": 1},), (np.zeros(2, np.float32), 3)]}] * 3,
]


def same(ours: Any, theirs: Any, torch: Any) -> None:
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, Tensor)
        assert ours.array.dtype == theirs.numpy().dtype
        np.testing.assert_array_equal(ours.array, theirs.numpy(), strict=True)
        return
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for our, their in zip(ours, theirs, strict=True):
            same(our, their, torch)
    else:
        assert ours == theirs


@pytest.mark.parametrize("items", BATCHES, ids=str)
def test_as_torch_does(torch: Any, items: list[Any]) -> None:
    same(default_collate(items), torch.utils.data.default_collate(items), torch)


def test_tensors_are_stacked() -> None:
    rows = [Tensor(np.full((2, 3), i, np.float32)) for i in range(5)]
    batch = default_collate(rows)
    assert isinstance(batch, Tensor)
    np.testing.assert_array_equal(batch.array, np.stack([row.array for row in rows]), strict=True)


def test_gradients_flow_through_the_batch() -> None:
    rows = [Tensor(np.zeros(3)), Tensor(np.zeros(3), requires_grad=True)]
    batch = default_collate(rows)
    (batch * Tensor(np.arange(6.0).reshape(2, 3))).sum().backward()
    assert rows[1].grad is not None
    np.testing.assert_array_equal(rows[1].grad.array, [3, 4, 5])


@pytest.mark.parametrize(
    ("items", "error", "why"),
    [
        ([np.zeros(2), np.zeros(3)], ShapeError, r"\(2,\), \(3,\)"),
        ([(1, 2), (1,)], ShapeError, r"different lengths \[1, 2\]"),
        ([object(), object()], DataError, "items are object"),
        ([None], DataError, "items are NoneType"),
        ([], DataError, "no items"),
    ],
)
def test_what_cannot_be_collated(items: list[Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        default_collate(items)
