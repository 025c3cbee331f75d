"""LayerNorm and RMSNorm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError

SHAPES = [((2, 3, 7), 7), ((2, 3, 7), (7,)), ((2, 3, 5, 7), (5, 7)), ((7,), 7), ((2, 3, 5), (2, 3, 5)), ((0, 7), 7)]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "options",
    [{}, {"eps": 0.1}, {"bias": False}, {"elementwise_affine": False}, {"elementwise_affine": False, "bias": True}],
)
@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
def test_layer_norm_is_that_of_torch(
    beside: Any, torch: Any, shape: Any, normalized: Any, options: Any, dtype: str
) -> None:
    x = (3 * np.random.default_rng(1).standard_normal(shape) + 2).astype(dtype)
    beside(nn.LayerNorm(normalized, **options), torch.nn.LayerNorm(normalized, **options), x)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"elementwise_affine": False}])
@pytest.mark.parametrize(("shape", "normalized"), SHAPES)
def test_rms_norm_is_that_of_torch(
    beside: Any, torch: Any, shape: Any, normalized: Any, options: Any, dtype: str
) -> None:
    x = (3 * np.random.default_rng(1).standard_normal(shape) + 2).astype(dtype)
    ours, theirs = nn.RMSNorm(normalized, **options), torch.nn.RMSNorm(normalized, **options)
    beside(ours, theirs, x)
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_rms_norm_without_eps_takes_that_of_the_type(beside: Any, torch: Any, dtype: str) -> None:
    # Rows so small that eps decides: another eps would give another size altogether.
    scale = float(np.sqrt(np.finfo(dtype).eps))
    x = (scale * np.random.default_rng(1).standard_normal((3, 7))).astype(dtype)
    beside(nn.RMSNorm(7), torch.nn.RMSNorm(7), x)


def test_a_row_is_brought_to_mean_zero_and_deviation_one() -> None:
    x = ml.Tensor(5 * np.random.default_rng(1).standard_normal((3, 1001)) - 40)
    y = nn.LayerNorm(1001, dtype=ml.float64)(x).array
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(-1), 1, rtol=1e-6)
    z = nn.RMSNorm(1001, dtype=ml.float64)(x).array
    np.testing.assert_allclose((z**2).mean(-1), 1, rtol=1e-12)


def test_the_scale_begins_at_one_and_the_shift_at_zero() -> None:
    layer = nn.LayerNorm((2, 3))
    assert layer.weight.tolist() == [[1.0] * 3] * 2
    assert layer.bias.tolist() == [[0.0] * 3] * 2
    layer.weight.detach().fill_(7)
    layer.bias.detach().fill_(7)
    layer.reset_parameters()
    assert layer.weight.array.min() == layer.weight.array.max() == 1
    assert not layer.bias.array.any()
    assert nn.RMSNorm(3).weight.tolist() == [1.0] * 3


def test_what_is_left_out_is_no_parameter(torch: Any) -> None:
    for options in ({}, {"bias": False}, {"elementwise_affine": False}):
        ours, theirs = nn.LayerNorm(3, **options), torch.nn.LayerNorm(3, **options)
        assert list(ours.state_dict()) == list(theirs.state_dict())
    assert not list(nn.RMSNorm(3, elementwise_affine=False).parameters())


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("shape", "normalized"), [((2, 5), 7), ((5,), (2, 5)), ((3, 5), (2, 5)), ((), 5)])
def test_rows_of_another_length_are_refused(kind: Any, shape: Any, normalized: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        kind(normalized)(ml.zeros(shape))
    message = str(caught.value)
    assert str(shape) in message
    assert str((normalized,) if isinstance(normalized, int) else normalized) in message
    assert "\n" not in message


def test_layer_norm_says_what_it_is() -> None:
    assert repr(nn.LayerNorm(7)) == "LayerNorm((7,), eps=1e-05, elementwise_affine=True)"


@pytest.mark.parametrize("options", [{}, {"eps": 0.1}, {"affine": False}])
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (2, 6, 5), (3, 6)])
def test_group_norm_is_that_of_torch(beside: Any, torch: Any, shape: Any, options: Any) -> None:
    x = 3 * np.random.default_rng(1).standard_normal(shape) + 2
    for groups in (1, 3):
        beside(nn.GroupNorm(groups, 6, **options), torch.nn.GroupNorm(groups, 6, **options), x)
    with pytest.raises(ConfigError, match="4 groups"):
        nn.GroupNorm(4, 6)
    with pytest.raises(ShapeError, match="2 groups"):
        nn.GroupNorm(2, 4)(ml.zeros(2, 5))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_rows_without_channels_have_gradients_without_channels(name, every_backend):
    """And no warning of a division by zero."""
    x = ml.zeros(3, 0, requires_grad=True)
    getattr(nn.functional, name)(x, (0,)).sum().backward()
    assert x.grad.shape == (3, 0)
