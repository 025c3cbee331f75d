"""Embedding beyond the walk: padding, repeats, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.errors import DtypeError
from minilm.ops.embedding import embedding
from minilm.tensor import Tensor
from minilm.testing import assert_same


def table(V=5, C=3):
    return Tensor(np.arange(V * C, dtype="float64").reshape(V, C), requires_grad=True)


@pytest.mark.parametrize("padding", [2, -3])
def test_the_padding_row_gets_no_gradient_and_repeats_add_up(padding, torch):
    weight, indices = table(), np.array([[2, 4, 2], [0, 4, 4]])
    dz = np.random.default_rng(0).normal(size=(2, 3, 3))
    embedding(Tensor(indices), weight, padding).backward(Tensor(dz))
    twin = torch.from_numpy(weight.array.copy()).requires_grad_()
    torch.nn.functional.embedding(torch.from_numpy(indices), twin, padding).backward(torch.from_numpy(dz))
    assert_same(weight.grad, twin.grad.numpy())
    assert not weight.grad.array[2].any()
    assert weight.grad.array[4].any()


def test_no_indices_give_no_rows_and_no_gradient():
    weight = table()
    y = embedding(Tensor(np.zeros((0, 2), "int64")), weight)
    assert y.shape == (0, 2, 3)
    y.sum().backward()
    assert not weight.grad.array.any()


def test_what_is_refused():
    with pytest.raises(IndexError, match=r"run from 0 to 5, the table has rows 0 ... 4"):
        embedding(Tensor(np.array([0, 5])), table())
    with pytest.raises(IndexError, match="from -1"):
        embedding(Tensor(np.array([-1, 2])), table())
    with pytest.raises(DtypeError, match="float64"):
        embedding(Tensor(np.array([0.0])), table())
