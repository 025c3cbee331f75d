"""SGD step for step beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm.optim import SGD
from minilm.testing import assert_same

SETTINGS = [
    {},
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
]


def test_thirty_steps_of_five_groups_are_those_of_torch(torch: Any) -> None:
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal((2, 3)) for _ in SETTINGS]
    ours = [ml.Tensor(a.copy(), requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    first = SGD([{"params": [p], **s} for p, s in zip(ours, SETTINGS)], lr=0.1)
    second = torch.optim.SGD([{"params": [p], **s} for p, s in zip(theirs, SETTINGS)], lr=0.1)
    for step in range(30):
        for p, q in zip(ours, theirs):
            gradient = rng.standard_normal(p.shape)
            p.grad, q.grad = ml.Tensor(gradient), torch.tensor(gradient)
        first.step()
        second.step()
        if step == 10:
            first.param_groups[2]["lr"] = second.param_groups[2]["lr"] = 0.01
        for i, (p, q) in enumerate(zip(ours, theirs)):
            assert_same(p, q.detach().numpy(), rtol=1e-12, name=f"group {i} after step {step}")


@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_are_left_alone(settings: dict[str, Any]) -> None:
    w = ml.Tensor(np.arange(5.0), requires_grad=True)
    optimizer = SGD([w], lr=0.1, **settings)
    gradient = np.linspace(-1, 1, 5)
    w.grad = ml.Tensor(gradient.copy())
    for _ in range(3):
        optimizer.step()
    assert np.array_equal(w.grad.array, gradient)
