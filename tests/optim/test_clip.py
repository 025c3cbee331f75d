"""Clipping, beside PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minilm as ml
from minilm import kernels
from minilm.errors import AutogradError, ConfigError
from minilm.optim import clip_grad_norm_, clip_grad_value_
from minilm.testing import assert_same

SHAPES = [(2, 3), (5,), (), (0, 7)]


def with_gradients(arrays: list[Any]) -> list[Any]:
    parameters = [ml.Tensor(np.zeros_like(a), requires_grad=True) for a in arrays]
    for p, a in zip(parameters, arrays):
        p.grad = ml.Tensor(a.copy())
    return parameters


def draw(scale: float = 1.0, dtype: str = "float64") -> list[Any]:
    rng = np.random.default_rng(7)
    return [(rng.standard_normal(shape) * scale).astype(dtype) for shape in SHAPES]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("max_norm", [0.0, 0.1, 1.0, 1e3])
def test_norm_and_scaled_gradients_are_those_of_torch(torch: Any, max_norm: float, norm_type: float) -> None:
    arrays = draw()[:3] if norm_type == math.inf else draw()  # torch has no largest of nothing
    parameters = with_gradients(arrays)
    others = [torch.zeros(a.shape, dtype=torch.float64, requires_grad=True) for a in arrays]
    for q, a in zip(others, arrays):
        q.grad = torch.tensor(a)
    norm = clip_grad_norm_(parameters, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(others, max_norm, norm_type)
    assert_same(norm, expected.numpy())
    for p, q in zip(parameters, others):
        assert_same(p.grad, q.grad.numpy(), rtol=1e-12)


@given(max_norm=st.floats(1e-3, 1e3), scale=st.floats(1e-6, 1e6))
def test_the_norm_afterwards_is_at_most_max_norm(max_norm: float, scale: float) -> None:
    parameters = with_gradients(draw(scale))
    before = float(clip_grad_norm_(parameters, max_norm))
    after = math.sqrt(sum(float((p.grad.array**2).sum()) for p in parameters))
    assert after <= max_norm * (1 + 1e-12)
    if before < 0.999 * max_norm:
        assert after == pytest.approx(before, rel=1e-14)


def test_large_float32_gradients_do_not_overflow() -> None:
    (p,) = with_gradients([np.full((3, 5), 1e30, np.float32)])
    norm = clip_grad_norm_(p, 1.0)
    assert norm.dtype == "float32"
    assert norm.item() == pytest.approx(1e30 * math.sqrt(15), rel=1e-6)
    assert np.linalg.norm(p.grad.array) == pytest.approx(1.0, rel=1e-5)


def test_the_sum_of_squares_loses_nothing_in_long_arrays() -> None:
    x = np.full(1_000_003, 0.1, np.float32)
    assert kernels.square_sum([x]) == pytest.approx(float(np.float32(0.1)) ** 2 * x.size, rel=1e-12)
    assert kernels.square_sum([x[::-7].reshape(-1, 1).T]) == pytest.approx(float(np.float32(0.1)) ** 2 * x[::-7].size)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(torch: Any, bad: float) -> None:
    arrays = draw()
    arrays[1][2] = bad
    parameters = with_gradients(arrays)
    with pytest.raises(AutogradError, match=f"{bad}"):
        clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    assert all(np.array_equal(p.grad.array, a, equal_nan=True) for p, a in zip(parameters, arrays))
    others = [torch.zeros(a.shape, dtype=torch.float64, requires_grad=True) for a in arrays]
    for q, a in zip(others, arrays):
        q.grad = torch.tensor(a)
    with np.errstate(invalid="ignore"):
        norm = clip_grad_norm_(parameters, 1.0)
    assert_same(norm, torch.nn.utils.clip_grad_norm_(others, 1.0).numpy())
    for p, q in zip(parameters, others):
        assert_same(p.grad, q.grad.numpy())


def test_a_shared_gradient_is_scaled_once_and_no_gradient_is_no_error() -> None:
    p, q = with_gradients([np.array([3.0]), np.array([4.0])])
    q.grad = p.grad
    assert clip_grad_norm_([p, q, p], 1.5).item() == pytest.approx(3.0)
    assert p.grad.item() == pytest.approx(1.5, rel=1e-5)
    assert clip_grad_norm_([ml.zeros(3, requires_grad=True)], 1.0).item() == 0.0


def test_values_are_cut_as_by_torch(torch: Any) -> None:
    arrays = draw()
    parameters = with_gradients(arrays)
    clip_grad_value_(parameters, 0.5)
    for p, a in zip(parameters, arrays):
        assert np.array_equal(p.grad.array, torch.clamp(torch.tensor(a), -0.5, 0.5).numpy())


@pytest.mark.parametrize("limit", [-1.0, math.nan])
def test_impossible_limits_are_refused(limit: float) -> None:
    parameters = with_gradients(draw())
    with pytest.raises(ConfigError, match="max_norm"):
        clip_grad_norm_(parameters, limit)
    with pytest.raises(ConfigError, match="clip_value"):
        clip_grad_value_(parameters, limit)
    with pytest.raises(ConfigError, match="norm_type"):
        clip_grad_norm_(parameters, 1.0, limit)


def test_a_graph_that_saved_a_gradient_finds_out() -> None:
    x = ml.Tensor(np.array([2.0, 3.0]), requires_grad=True)
    (x**3).sum().backward(create_graph=True)
    penalty = x.grad.square().sum()
    clip_grad_norm_([x], 1.0)
    with pytest.raises(AutogradError, match="clip_grad_norm_"):
        penalty.backward()


@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 20_001])
def test_the_norm_counts_every_element(size, every_backend):
    """Kernels work in pieces: none of them may lose an element at its end."""
    p = ml.zeros(size, requires_grad=True)
    p.grad = ml.ones(size)
    assert clip_grad_norm_([p], float("inf")).item() == pytest.approx(size**0.5, rel=1e-6)
