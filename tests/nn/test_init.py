"""Initial values: their formulas beside PyTorch's, their distributions, and where they come from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError
from minilm.nn import init

SHAPE = (60, 90, 3)  # 16,200 numbers: a mean is known to 1 / 127 of a deviation
FAN_IN, FAN_OUT = 90 * 3, 60 * 3

GAINS = {"linear": 1.0, "relu": math.sqrt(2), "tanh": 5 / 3, "leaky_relu": math.sqrt(2 / (1 + 0.5**2))}

# Each with what its standard deviation must be, from the papers.
CASES: list[tuple[str, dict[str, Any], float]] = [
    ("uniform", {}, 1 / math.sqrt(12)),
    ("uniform", {"a": -3.0, "b": 2.0}, 5 / math.sqrt(12)),
    ("normal", {}, 1.0),
    ("normal", {"mean": 2.0, "std": 0.02}, 0.02),
    ("xavier_uniform", {}, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ("xavier_uniform", {"gain": 5 / 3}, 5 / 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ("xavier_normal", {}, math.sqrt(2 / (FAN_IN + FAN_OUT))),
    ("xavier_normal", {"gain": 0.5}, 0.5 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    *[
        (f"kaiming_{kind}", {"a": 0.5, "mode": mode, "nonlinearity": name}, GAINS[name] / math.sqrt(fan))
        for kind in ("uniform", "normal")
        for mode, fan in (("fan_in", FAN_IN), ("fan_out", FAN_OUT))
        for name in GAINS
    ],
    ("kaiming_uniform", {}, math.sqrt(2 / FAN_IN)),
    ("kaiming_normal", {}, math.sqrt(2 / FAN_IN)),
]


def drawn(name: str, options: dict[str, Any], seed: int = 1, dtype: Any = ml.float64) -> Any:
    tensor = ml.zeros(SHAPE, dtype=dtype)
    assert getattr(init, f"{name}_")(tensor, **options, generator=ml.Generator(seed)) is tensor
    return tensor.array


def mean_of(name: str, options: dict[str, Any]) -> float:
    if name == "uniform":
        return (options.get("a", 0.0) + options.get("b", 1.0)) / 2
    return options.get("mean", 0.0)


@pytest.mark.parametrize(("name", "options", "std"), CASES)
def test_mean_deviation_and_bounds(name: str, options: dict[str, Any], std: float) -> None:
    values = drawn(name, options)
    centred = (values - mean_of(name, options)) / std
    assert centred.mean() == pytest.approx(0, abs=4 / math.sqrt(values.size))
    assert centred.std() == pytest.approx(1, rel=0.025)
    bound = math.sqrt(3)
    if "uniform" in name:
        assert 0.99 * bound < np.abs(centred).max() <= bound * (1 + 1e-12)
        assert (np.abs(centred) < bound / 2).mean() == pytest.approx(0.5, abs=0.02)
    else:
        assert 3.3 < np.abs(centred).max() < 6.5
        assert (np.abs(centred) < 1).mean() == pytest.approx(0.6827, abs=0.015)
        assert (np.abs(centred) < 2).mean() == pytest.approx(0.9545, abs=0.008)


@pytest.mark.parametrize(("name", "options", "std"), CASES)
def test_the_spread_is_that_of_torch(torch: Any, name: str, options: dict[str, Any], std: float) -> None:
    tensor = torch.zeros(SHAPE, dtype=torch.float64)
    getattr(torch.nn.init, f"{name}_")(tensor, **options, generator=torch.Generator().manual_seed(0))
    ours, theirs = drawn(name, options), tensor.numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.035)
    assert ours.mean() == pytest.approx(theirs.mean(), abs=6 * std / math.sqrt(ours.size))


@pytest.mark.parametrize("dtype", [ml.float32, ml.float64])
@pytest.mark.parametrize(("name", "options", "std"), CASES[:6:2])
def test_the_same_seed_gives_the_same_numbers(name: str, options: dict[str, Any], std: float, dtype: Any) -> None:
    first = drawn(name, options, 1, dtype).copy()
    assert first.dtype == dtype
    assert np.array_equal(drawn(name, options, 1, dtype), first)
    assert not np.array_equal(drawn(name, options, 2, dtype), first)


def test_without_a_generator_the_default_one_serves() -> None:
    def model() -> Any:
        return nn.Sequential(nn.Linear(5, 7), nn.Embedding(5, 3), nn.MultiheadAttention(4, 2, add_bias_kv=True))

    def state(seed: int) -> list[Any]:
        ml.manual_seed(seed)
        return [t.array for t in model().state_dict().values()]

    assert all(np.array_equal(a, b) for a, b in zip(state(3), state(3)))
    assert not np.array_equal(state(3)[0], state(4)[0])


def test_a_generator_leaves_the_default_one_alone() -> None:
    before = ml.random.get_rng_state()
    for name, options, _ in CASES:
        drawn(name, options)
    assert ml.random.get_rng_state() == before


@pytest.mark.parametrize(("name", "options", "std"), CASES)
def test_a_parameter_is_overwritten_outside_of_any_graph(name: str, options: dict[str, Any], std: float) -> None:
    weight = nn.Parameter(ml.zeros(3, 5))
    memory = weight.array
    getattr(init, f"{name}_")(weight, **options)
    assert weight.array is memory
    assert memory.any()
    assert weight.requires_grad
    assert weight.is_leaf


def test_constants() -> None:
    weight = nn.Parameter(ml.zeros(2, 3))
    assert init.constant_(weight, 0.25) is weight
    assert weight.tolist() == [[0.25] * 3] * 2
    assert init.ones_(weight).tolist() == [[1] * 3] * 2
    assert init.zeros_(weight).tolist() == [[0] * 3] * 2
    assert weight.is_leaf


@pytest.mark.parametrize(
    "given",
    [("linear",), ("sigmoid",), ("tanh",), ("relu",), ("leaky_relu",), ("leaky_relu", 0.3), ("selu",)],
)
def test_gains_are_those_of_torch(torch: Any, given: Any) -> None:
    assert init.calculate_gain(*given) == torch.nn.init.calculate_gain(*given)


def test_what_makes_no_sense_is_refused() -> None:
    weight = ml.ones(2, 3)
    for call, number in [
        (lambda: init.uniform_(weight, 2.0, 1.0), "2.0.*1.0"),
        (lambda: init.normal_(weight, 0.0, -0.5), "-0.5"),
        (lambda: init.normal_(weight, 0.0, float("nan")), "nan"),
        (lambda: init.kaiming_normal_(weight, mode="fan"), "'fan'"),
        (lambda: init.kaiming_normal_(weight, nonlinearity="gelu"), "'gelu'"),
    ]:
        with pytest.raises(ConfigError, match=number):
            call()
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        with pytest.raises(ShapeError, match=r"\(3,\)"):
            getattr(init, name)(ml.ones(3))
    assert weight.tolist() == [[1] * 3] * 2


def test_a_truncated_normal_stays_inside_and_keeps_its_shape() -> None:
    ml.manual_seed(1)
    x = nn.init.trunc_normal_(ml.empty(20_000), mean=0.5, std=2.0, a=-1.0, b=4.0).array
    assert -1 <= x.min() < -0.99
    assert 3.99 < x.max() <= 4
    # Mean and deviation of four million numbers of the normal, cut off at -1 and 4.
    assert x.mean() == pytest.approx(1.0845, abs=0.04)
    assert x.std() == pytest.approx(1.2649, abs=0.04)
    with pytest.raises(ConfigError, match="too little"):
        nn.init.trunc_normal_(ml.empty(3), a=7.0, b=8.0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (3, 2, 2)])
def test_orthogonal_rows_or_columns_are_at_right_angles(shape: tuple[int, ...]) -> None:
    ml.manual_seed(1)
    w = nn.init.orthogonal_(ml.empty(*shape, dtype=ml.float64), gain=2.0).array.reshape(shape[0], -1)
    smaller = w if w.shape[0] <= w.shape[1] else w.T
    np.testing.assert_allclose(smaller @ smaller.T, 4 * np.eye(3), atol=1e-12)
    with pytest.raises(ShapeError):
        nn.init.orthogonal_(ml.empty(3))


def test_eye_is_that_of_torch(torch: Any) -> None:
    assert nn.init.eye_(ml.empty(2, 3)).tolist() == torch.nn.init.eye_(torch.empty(2, 3)).tolist()
    with pytest.raises(ShapeError, match="matrix"):
        nn.init.eye_(ml.empty(3))
