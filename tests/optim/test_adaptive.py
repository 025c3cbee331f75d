"""RMSprop, Adagrad and Adadelta step for step beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import optim
from minilm.errors import ConfigError
from minilm.testing import assert_same

SETTINGS = {
    "RMSprop": [{}, {"alpha": 0.7, "eps": 1e-3}, {"momentum": 0.9, "weight_decay": 0.1}],
    "Adagrad": [{}, {"lr_decay": 0.1}, {"initial_accumulator_value": 0.5, "weight_decay": 0.1, "eps": 1e-3}],
    "Adadelta": [{}, {"rho": 0.5, "eps": 1e-3}, {"weight_decay": 0.1}],
}
EVERY = [(name, settings) for name, several in SETTINGS.items() for settings in several]


@pytest.mark.parametrize(("name", "settings"), EVERY, ids=str)
def test_twenty_steps_are_those_of_torch(torch: Any, name: str, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    start = rng.standard_normal((2, 3))
    mine, other = ml.Tensor(start.copy(), requires_grad=True), torch.tensor(start, requires_grad=True)
    first = getattr(optim, name)([mine], lr=0.1, **settings)
    second = getattr(torch.optim, name)([other], lr=0.1, **settings)
    for step in range(20):
        gradient = rng.standard_normal((2, 3))
        mine.grad, other.grad = ml.Tensor(gradient.copy()), torch.tensor(gradient)
        first.step()
        second.step()
        assert_same(mine, other.detach().numpy(), rtol=1e-11, name=f"after step {step}")
        assert np.array_equal(mine.grad.array, gradient)
    again = getattr(optim, name)([ml.Tensor(mine.array.copy(), requires_grad=True)], lr=0.1, **settings)
    again.load_state_dict(first.state_dict())
    again.param_groups[0]["params"][0].grad = mine.grad
    again.step()
    first.step()
    assert np.array_equal(again.param_groups[0]["params"][0].array, mine.array)


@pytest.mark.parametrize("name", SETTINGS)
def test_first_settings_are_those_of_torch(torch: Any, name: str) -> None:
    mine = getattr(optim, name)([ml.zeros(3, requires_grad=True)])
    other = getattr(torch.optim, name)([torch.zeros(3, requires_grad=True)])
    for key, value in mine.defaults.items():
        assert value == other.defaults[key], key


@pytest.mark.parametrize(
    ("name", "setting"), [("RMSprop", {"alpha": 1.1}), ("Adagrad", {"lr": -1}), ("Adadelta", {"rho": 2})]
)
def test_impossible_settings_are_refused(name: str, setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        getattr(optim, name)([ml.zeros(3, requires_grad=True)], **setting)
