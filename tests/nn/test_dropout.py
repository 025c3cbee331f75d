"""Dropout: the share, the scaling, and where it does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError
from minilm.nn import functional as F

N = 40_000


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_in_training_a_share_p_is_zero_and_the_rest_is_scaled(p: float) -> None:
    ml.manual_seed(1)
    x = ml.Tensor(np.random.default_rng(0).uniform(1, 2, (N,)), requires_grad=True)
    y = nn.Dropout(p)(x)
    kept = y.array != 0
    assert (~kept).mean() == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / N))
    np.testing.assert_allclose(y.array[kept], x.array[kept] / (1 - p), rtol=1e-12)
    y.backward(ml.ones_like(y))
    np.testing.assert_allclose(x.grad.array, kept / (1 - p), rtol=1e-12)


def test_neighbours_are_dropped_independently() -> None:
    ml.manual_seed(1)
    kept = nn.Dropout(0.5)(ml.ones(200, 200)).array != 0
    for a, b in ((kept[1:], kept[:-1]), (kept[:, 1:], kept[:, :-1])):
        assert (a & b).mean() == pytest.approx(0.25, abs=0.015)


def test_in_evaluation_nothing_changes() -> None:
    x = ml.Tensor(np.random.default_rng(0).standard_normal((3, 5)), requires_grad=True)
    layer = nn.Dropout(0.7).eval()
    y = layer(x)
    assert np.array_equal(y.array, x.array)
    y.sum().backward()
    assert np.array_equal(x.grad.array, np.ones((3, 5)))
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25)"


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_are_those_of_torch(beside: Any, torch: Any, p: float) -> None:
    x = np.random.default_rng(0).standard_normal((3, 5))
    (y,) = beside(nn.Dropout(p), torch.nn.Dropout(p), x)
    assert y.array.any() == (p == 0)


def test_the_same_seed_drops_the_same_and_the_next_call_other_ones() -> None:
    layer, x = nn.Dropout(0.5), ml.ones(1000)
    ml.manual_seed(3)
    first, second = layer(x).array, layer(x).array
    ml.manual_seed(3)
    assert np.array_equal(layer(x).array, first)
    assert not np.array_equal(first, second)
    ml.manual_seed(4)
    assert not np.array_equal(layer(x).array, first)


def test_a_generator_of_its_own_leaves_the_default_one_alone() -> None:
    x = ml.ones(1000)
    first = F.dropout(x, 0.5, generator=ml.Generator(7)).array
    before = ml.random.get_rng_state()
    again = F.dropout(x, 0.5, generator=ml.Generator(7)).array
    assert ml.random.get_rng_state() == before
    assert np.array_equal(first, again)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(p: float) -> None:
    with pytest.raises(ConfigError, match=str(p)):
        nn.Dropout(p)
