"""Linear, Identity and Flatten."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(2,), (), (2, 3, 7), (0,)])
def test_linear_is_that_of_torch(beside: Any, torch: Any, lead: Any, bias: bool, dtype: str) -> None:
    x = np.random.default_rng(1).standard_normal((*lead, 5)).astype(dtype)
    (y,) = beside(nn.Linear(5, 11, bias), torch.nn.Linear(5, 11, bias), x)
    assert y.shape == (*lead, 11)


def test_linear_takes_rows_that_are_not_contiguous(beside: Any, torch: Any) -> None:
    x = np.random.default_rng(1).standard_normal((5, 3, 2)).transpose(2, 1, 0)
    beside(nn.Linear(5, 7), torch.nn.Linear(5, 7), x)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(("inputs", "outputs"), [(0, 3), (5, 0)])
def test_linear_may_have_nothing_to_do(beside: Any, torch: Any, inputs: int, outputs: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, inputs))
    beside(nn.Linear(inputs, outputs), torch.nn.Linear(inputs, outputs), x)


def test_linear_begins_uniform_within_one_over_the_root_of_its_inputs() -> None:
    ml.manual_seed(0)
    layer = nn.Linear(64, 300)
    bound = 1 / math.sqrt(64)
    for parameter in (layer.weight, layer.bias):
        values = parameter.array
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.98 * bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    old = layer.weight.array.copy()
    layer.reset_parameters()
    assert not np.array_equal(layer.weight.array, old)


def test_linear_without_bias_has_one_parameter() -> None:
    layer = nn.Linear(3, 2, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]


def test_linear_of_a_wrong_size_is_one_error_with_the_numbers() -> None:
    with pytest.raises(ShapeError, match=r"5.*7|7.*5") as caught:
        nn.Linear(5, 3)(ml.zeros(2, 7))
    assert "linear" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="-1"):
        nn.Linear(-1, 3)


def test_linear_is_made_in_the_type_that_is_asked_for() -> None:
    layer = nn.Linear(3, 2, dtype=ml.float64)
    assert [p.dtype for p in layer.parameters()] == [ml.float64] * 2
    assert nn.Linear(3, 2).weight.dtype == ml.float32


def test_linear_says_what_it_is(torch: Any) -> None:
    assert repr(nn.Linear(3, 2)) == repr(torch.nn.Linear(3, 2))
    assert repr(nn.Linear(3, 2, bias=False)) == repr(torch.nn.Linear(3, 2, bias=False))


def test_identity_gives_back_the_very_same() -> None:
    x = ml.zeros(2, 3)
    assert nn.Identity(7, what="ever")(x) is x
    assert not list(nn.Identity(7).parameters())


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (-2, -1), (2, 2)])
def test_flatten_is_that_of_torch(beside: Any, torch: Any, axes: Any) -> None:
    x = np.random.default_rng(2).standard_normal((2, 3, 5, 7))
    beside(nn.Flatten(*axes), torch.nn.Flatten(*axes), x)
    assert repr(nn.Flatten(*axes)) == repr(torch.nn.Flatten(*axes))


def test_unflatten_is_that_of_torch(beside: Any, torch: Any) -> None:
    x = np.random.default_rng(1).standard_normal((2, 6))
    beside(nn.Unflatten(1, (2, -1)), torch.nn.Unflatten(1, (2, -1)), x)
    assert repr(nn.Unflatten(1, (2, 3))) == repr(torch.nn.Unflatten(1, (2, 3)))
