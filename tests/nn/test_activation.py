"""The activations as modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError

CASES: list[tuple[str, dict[str, Any]]] = [
    ("ReLU", {}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.3}),
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("SiLU", {}),
    ("Tanh", {}),
    ("Sigmoid", {}),
    ("Softplus", {}),
    ("Softplus", {"beta": 1.7, "threshold": 0.9}),
    ("ELU", {"alpha": 0.3}),
    ("LogSigmoid", {}),
    ("GLU", {"dim": 0}),
    ("Softmax", {"dim": -1}),
    ("Softmax", {"dim": 0}),
    ("LogSoftmax", {"dim": 1}),
    ("LogSoftmax", {"dim": -2}),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_each_is_that_of_torch(beside: Any, torch: Any, name: str, options: Any, dtype: str) -> None:
    x = (3 * np.random.default_rng(1).standard_normal((2, 3, 5))).astype(dtype)
    beside(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), x)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_far_from_zero_they_stay_those_of_torch(beside: Any, torch: Any, name: str, options: Any) -> None:
    x = np.array([[-800.0, -40.0, -7.0, 0.0], [800.0, 40.0, 7.0, 1e-9]])
    (y,) = beside(getattr(nn, name)(**options), getattr(torch.nn, name)(**options), x)
    assert np.isfinite(y.array).all()


def test_softplus_bends_at_its_threshold_where_torchs_does(beside: Any, torch: Any) -> None:
    """At 0.5 itself the slope is still that of the logarithm, 0.62; behind it 1."""
    x = np.array([0.25, 0.5, 0.75])
    options = {"beta": 1.0, "threshold": 0.5}
    beside(nn.Softplus(**options), torch.nn.Softplus(**options), x)


@pytest.mark.parametrize("name", ["LeakyReLU", "GELU", "Softmax", "LogSoftmax", "Tanh", "SiLU"])
def test_each_says_what_it_is(torch: Any, name: str) -> None:
    options = {"dim": -1} if "Softmax" in name else {}
    assert repr(getattr(nn, name)(**options)) == repr(getattr(torch.nn, name)(**options))


def test_relu_can_be_written_over_its_input(beside: Any, torch: Any) -> None:
    ours, theirs = (m.Sequential(m.Linear(5, 7), m.ReLU(inplace=True)) for m in (nn, torch.nn))
    beside(ours, theirs, np.random.default_rng(1).standard_normal((3, 5)))
    assert repr(ours) == repr(theirs)
    x = ml.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x) is x
    assert x.tolist() == [0.0, 2.0]


def test_none_of_them_learns() -> None:
    for name, options in CASES:
        assert not getattr(nn, name)(**options).state_dict()


def test_an_approximation_that_is_unknown_is_refused() -> None:
    with pytest.raises(ConfigError, match="sigmoid"):
        nn.GELU("sigmoid")


def test_softmax_rows_are_shares() -> None:
    y = nn.Softmax(-1)(ml.Tensor(np.random.default_rng(1).standard_normal((2, 3, 5)))).array
    np.testing.assert_allclose(y.sum(-1), 1, rtol=1e-14)
    assert (y > 0).all()
