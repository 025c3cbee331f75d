"""Embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, DtypeError, ShapeError


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("padding", [None, 0, 3, -1])
@pytest.mark.parametrize("lead", [(3,), (2, 5), (), (0,), (2, 3, 40)])
def test_embedding_is_that_of_torch(beside: Any, torch: Any, lead: Any, padding: int | None, dtype: str) -> None:
    # Among 11 rows the larger leads repeat some, whose gradients must add up.
    indices = np.random.default_rng(1).integers(0, 11, lead)
    ours, theirs = nn.Embedding(11, 7, padding), torch.nn.Embedding(11, 7, padding)
    (y,) = beside(ours, theirs, np.asarray(indices), dtype=dtype)
    assert y.shape == (*lead, 7)
    assert ours.padding_idx == theirs.padding_idx
    assert repr(ours) == repr(theirs)


def test_embedding_begins_standard_normal() -> None:
    ml.manual_seed(0)
    values = nn.Embedding(200, 50).weight.array
    assert values.mean() == pytest.approx(0, abs=0.04)
    assert values.std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("padding", [2, -1])
def test_the_padding_row_is_zero_and_stays_out_of_the_gradient(padding: int) -> None:
    layer = nn.Embedding(5, 3, padding_idx=padding)
    row = padding % 5
    others = [i for i in range(5) if i != row]
    assert not layer.weight.array[row].any()
    assert layer.weight.array[others].all()
    layer(ml.tensor([0, row, row, 1])).sum().backward()
    assert layer.weight.grad.array[:, 0].tolist() == [0 if i == row else float(i < 2) for i in range(5)]
    layer.reset_parameters()
    assert not layer.weight.array[row].any()


def test_an_embedding_around_given_vectors_shares_them(torch: Any) -> None:
    vectors = ml.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    frozen = nn.Embedding.from_pretrained(vectors)
    assert frozen(ml.tensor([2, 0])).tolist() == [[5, 6], [1, 2]]
    assert np.shares_memory(frozen.weight.array, vectors.array)
    assert not frozen.weight.requires_grad
    learning = nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=1)
    assert learning.weight.requires_grad
    theirs = torch.nn.Embedding.from_pretrained(torch.tensor(vectors.array), freeze=False, padding_idx=1)
    assert repr(learning) == repr(theirs)
    # The given vector of the padding token is kept.
    assert learning(ml.tensor([1])).tolist() == theirs(torch.tensor([1])).tolist() == [[3, 4]]
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        nn.Embedding.from_pretrained(ml.zeros(3))


@pytest.mark.parametrize(("indices", "wrong"), [([0, 5], "5"), ([-1, 2], "-1")])
def test_a_token_outside_the_table_is_refused(indices: list[int], wrong: str) -> None:
    with pytest.raises(IndexError, match=f"{wrong}.* 4"):
        nn.Embedding(5, 3)(ml.tensor(indices))


def test_what_is_no_token_and_no_row_is_refused() -> None:
    with pytest.raises(DtypeError, match="float32"):
        nn.Embedding(5, 3)(ml.tensor([0.0, 1.0]))
    for padding in (5, -6):
        with pytest.raises(ConfigError, match=f"{padding}.* 5"):
            nn.Embedding(5, 3, padding_idx=padding)


def test_int32_tokens_pick_the_same_rows() -> None:
    layer = nn.Embedding(5, 3)
    tokens = np.array([[4, 0], [2, 2]])
    assert layer(ml.Tensor(tokens.astype("int32"))).tolist() == layer(ml.Tensor(tokens)).tolist()


def test_a_table_may_be_empty() -> None:
    assert nn.Embedding(0, 3)(ml.zeros(2, 0, dtype=ml.int64)).shape == (2, 0, 3)
    assert nn.Embedding(3, 0)(ml.tensor([1, 2])).shape == (2, 0)
    with pytest.raises(IndexError):
        nn.Embedding(0, 3)(ml.tensor([0]))
