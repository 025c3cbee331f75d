"""Parameter: a leaf that requires a gradient, and stays one."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import AutogradError


def test_a_parameter_is_a_leaf_that_requires_a_gradient() -> None:
    p = nn.Parameter(ml.ones(2))
    assert p.requires_grad
    assert p.is_leaf
    assert isinstance(p, ml.Tensor)
    assert not nn.Parameter(ml.ones(2), requires_grad=False).requires_grad
    assert repr(p).startswith("Parameter containing:\ntensor([1., 1.]")
    assert nn.Parameter(ml.ones(2, requires_grad=True) * 3).is_leaf


def test_what_is_computed_from_it_is_a_plain_tensor() -> None:
    p = nn.Parameter(ml.ones(2))
    for result in (p * 2, p.detach(), p[0], p.reshape(1, 2)):
        assert type(result) is ml.Tensor
    (p * ml.tensor([3.0, 5.0])).sum().backward()
    assert p.grad.tolist() == [3, 5]
    assert type(p.grad) is ml.Tensor


def test_it_shares_the_memory_it_is_given_and_its_copy_does_not() -> None:
    array = np.ones(3)
    p = nn.Parameter(array)
    assert np.shares_memory(p.array, array)
    twin = copy.deepcopy(p)
    assert type(twin) is nn.Parameter
    assert twin.requires_grad
    assert not np.shares_memory(twin.array, array)
    assert not copy.deepcopy(nn.Parameter(array, requires_grad=False)).requires_grad


def test_whole_numbers_cannot_be_learnt() -> None:
    with pytest.raises(AutogradError, match="int64"):
        nn.Parameter(ml.tensor([1, 2]))
    assert nn.Parameter(ml.tensor([1, 2]), requires_grad=False).dtype == ml.int64
