"""AdamW and Adam step for step beside PyTorch's, and the update's own properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import kernels
from minilm.optim import Adam, AdamW
from minilm.testing import assert_same

SHAPES = [(2, 3), (5,), (7, 1, 2)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [AdamW, Adam])
def test_forty_steps_of_three_groups_are_those_of_torch(torch: Any, kind: Any, dtype: str) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in SHAPES]
    settings = [{}, {"lr": 0.03, "betas": (0.8, 0.95)}, {"weight_decay": 0.3, "eps": 1e-3}]
    ours = [ml.Tensor(a.copy(), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    first = kind([{"params": [p], **s} for p, s in zip(ours, settings)], lr=0.1, weight_decay=0.05)
    reference = getattr(torch.optim, kind.__name__)
    second = reference([{"params": [p], **s} for p, s in zip(theirs, settings)], lr=0.1, weight_decay=0.05)
    for step in range(40):
        for i, (p, q) in enumerate(zip(ours, theirs)):
            gradient = (rng.standard_normal(p.shape) * 10.0 ** rng.integers(-3, 3)).astype(dtype)
            skipped = step % 5 == 2 and i == 1
            p.grad = None if skipped else ml.Tensor(gradient)
            q.grad = None if skipped else torch.tensor(gradient)
        first.step()
        second.step()
        if step == 20:
            first.param_groups[0]["lr"] = second.param_groups[0]["lr"] = 0.01
    for i, (p, q) in enumerate(zip(ours, theirs)):
        assert_same(p, q.detach().numpy(), rtol=1e-4 if dtype == "float32" else 1e-12, name=f"parameter {i}")
        assert first.state[p]["step"] == int(second.state[q]["step"])


def test_the_decay_is_decoupled() -> None:
    w = ml.Tensor(np.array([4.0]), requires_grad=True)
    w.grad = ml.Tensor(np.array([0.0]))
    AdamW([w], lr=0.5, weight_decay=0.25).step()
    assert w.item() == 4.0 * (1 - 0.5 * 0.25)


def test_the_first_step_has_the_size_of_lr() -> None:
    # The bias corrections make m / sqrt(v) = g / |g|, whatever the size of g.
    gradient = np.array([1e-4, -1e4, 3.0])
    w = ml.Tensor(np.zeros(3), requires_grad=True)
    w.grad = ml.Tensor(gradient)
    AdamW([w], lr=0.01, weight_decay=0.0).step()
    np.testing.assert_allclose(w.array, -0.01 * np.sign(gradient), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_kernel_works_in_place_on_any_layout(dtype: str) -> None:
    rng = np.random.default_rng(0)
    plain = [np.abs(rng.standard_normal((5, 3))).astype(dtype) for _ in range(4)]
    turned = [np.asfortranarray(a) if i % 2 else a.copy() for i, a in enumerate(plain)]
    ids = [a.ctypes.data for a in turned]
    settings = (0.1, 0.9, 0.99, 1e-6, 0.01, 3)
    kernels.adamw(*[[a] for a in plain], *settings)
    kernels.adamw(*[[a] for a in turned], *settings)
    for a, b in zip(plain, turned):
        assert a.dtype == dtype
        assert np.array_equal(a, b)
    assert [a.ctypes.data for a in turned] == ids


def test_the_kernel_leaves_the_gradient_alone() -> None:
    param, grad, m, v = (np.ones(3) * k for k in range(1, 5))
    kernels.adamw([param], [grad], [m], [v], 0.1, 0.9, 0.99, 1e-6, 0.01, 1)
    assert np.array_equal(grad, np.full(3, 2.0))
    np.testing.assert_allclose(m, 0.9 * 3 + 0.1 * 2)
    np.testing.assert_allclose(v, 0.99 * 4 + 0.01 * 4)
