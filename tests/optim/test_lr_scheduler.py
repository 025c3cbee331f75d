"""Schedulers, beside PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm.errors import CheckpointError, ConfigError
from minilm.optim import SGD, lr_scheduler, warmup_cosine

KINDS = {
    "LambdaLR": {"lr_lambda": [lambda s: 0.9**s, lambda s: 1 / (1 + s)]},
    "ConstantLR": {"factor": 0.25, "total_iters": 4},
    "LinearLR": {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 7},
    "CosineAnnealingLR": {"T_max": 11, "eta_min": 0.01},
    "StepLR": {"step_size": 3, "gamma": 0.5},
    "MultiStepLR": {"milestones": [2, 5, 6], "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.9},
    "CosineAnnealingWarmRestarts": {"T_0": 2, "T_mult": 2, "eta_min": 0.01},
}
OURS = {name: getattr(lr_scheduler, name) for name in KINDS}
ConstantLR, CosineAnnealingLR, LambdaLR, LinearLR = (
    OURS[name] for name in ("ConstantLR", "CosineAnnealingLR", "LambdaLR", "LinearLR")
)


def optimizer() -> SGD:
    a, b = (ml.zeros(3, requires_grad=True) for _ in range(2))
    return SGD([{"params": [a]}, {"params": [b], "lr": 0.4}], lr=0.1)


@pytest.mark.parametrize("name", KINDS)
def test_the_rates_are_those_of_torch(torch: Any, name: str) -> None:
    mine = optimizer()
    a, b = (torch.zeros(3, requires_grad=True) for _ in range(2))
    other = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.4}], lr=0.1)
    scheduler = OURS[name](mine, **KINDS[name])
    reference = getattr(torch.optim.lr_scheduler, name)(other, **KINDS[name])
    for _ in range(10):
        rates = [group["lr"] for group in mine.param_groups]
        assert rates == pytest.approx([group["lr"] for group in other.param_groups], rel=1e-12)
        assert scheduler.get_last_lr() == rates
        mine.step()
        other.step()
        scheduler.step()
        reference.step()
    assert scheduler.last_epoch == reference.last_epoch
    assert scheduler.base_lrs == reference.base_lrs


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_scheduler_goes_on_alike(name: str) -> None:
    whole, first, second = (OURS[name](optimizer(), **KINDS[name]) for _ in range(3))
    for _ in range(5):
        whole.step()
        first.step()
    second.optimizer.param_groups[0]["initial_lr"] = 77.0
    second.base_lrs[0] = 77.0
    second.load_state_dict(first.state_dict())
    for _ in range(4):
        assert [g["lr"] for g in second.optimizer.param_groups] == [g["lr"] for g in whole.optimizer.param_groups]
        whole.step()
        second.step()


def test_going_on_from_a_step_needs_the_first_rates() -> None:
    known = optimizer()
    LambdaLR(known, lambda s: 0.5**s)
    assert LambdaLR(known, lambda s: 0.5**s, last_epoch=2).get_last_lr() == [0.0125, 0.05]
    with pytest.raises(ConfigError, match="initial_lr"):
        LambdaLR(optimizer(), lambda s: 1.0, last_epoch=2)


def test_one_schedule_serves_all_groups() -> None:
    scheduler = LambdaLR(optimizer(), warmup_cosine(1, 5, floor=0.5))
    seen = [scheduler.get_last_lr()]
    for _ in range(5):
        scheduler.step()
        seen.append(scheduler.get_last_lr())
    factor = [0.5, 1.0, 0.75 + math.sqrt(2) / 8, 0.75, 0.75 - math.sqrt(2) / 8, 0.5]
    np.testing.assert_allclose(seen, np.outer(factor, [0.1, 0.4]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="3 schedules for 2 groups"):
        LambdaLR(optimizer(), [lambda s: 1.0] * 3)
    with pytest.raises(ConfigError):
        CosineAnnealingLR(optimizer(), 0)
    with pytest.raises(ConfigError):
        ConstantLR(optimizer(), factor=1.5)
    with pytest.raises(ConfigError):
        LinearLR(optimizer(), start_factor=0.0)
    scheduler = ConstantLR(optimizer())
    before = scheduler.state_dict()
    for state in ([], {}, {"last_epoch": 3, "base_lrs": [0.1]}):
        with pytest.raises(CheckpointError):
            scheduler.load_state_dict(state)  # type: ignore[arg-type]
    assert scheduler.state_dict() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 1},
        {"patience": 0, "factor": 0.5, "threshold": 0.2, "cooldown": 1},
        {"patience": 1, "mode": "max", "threshold_mode": "abs", "threshold": 0.3, "min_lr": 0.01},
    ],
    ids=str,
)
def test_a_plateau_lowers_the_rates_as_in_torch(torch: Any, settings: dict[str, Any]) -> None:
    mine, w = optimizer(), torch.zeros(3, requires_grad=True)
    other = torch.optim.SGD([w], lr=0.1)
    scheduler = lr_scheduler.ReduceLROnPlateau(mine, **settings)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **settings)
    resumed = lr_scheduler.ReduceLROnPlateau(optimizer(), **settings)
    for step, metric in enumerate([3.0, 2.9, 2.7, 2.0, 1.9, 2.1, 2.2, 1.95, 2.0, 2.5, 1.2, 1.3, 1.25, 1.4]):
        scheduler.step(ml.tensor(metric))
        reference.step(metric)
        assert scheduler.get_last_lr()[0] == pytest.approx(other.param_groups[0]["lr"], rel=1e-12), step
        if step == 6:
            resumed.load_state_dict(scheduler.state_dict())
            assert resumed.state_dict() == scheduler.state_dict()


def test_a_plateau_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ConfigError, match="'least'"):
        lr_scheduler.ReduceLROnPlateau(optimizer(), mode="least")
    with pytest.raises(CheckpointError, match="best"):
        lr_scheduler.ReduceLROnPlateau(optimizer()).load_state_dict({})
    with pytest.raises(ConfigError, match="step_size"):
        lr_scheduler.StepLR(optimizer(), 0)
    with pytest.raises(ConfigError, match="T_0"):
        lr_scheduler.CosineAnnealingWarmRestarts(optimizer(), 0)
