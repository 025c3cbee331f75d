"""Schedules as functions of the step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import ConfigError
from minilm.optim.schedule import (
    constant,
    cosine,
    linear,
    noam,
    warmup,
    warmup_constant,
    warmup_cosine,
    warmup_inverse_sqrt,
    warmup_linear,
)


def test_the_cosine_with_warm_up_at_its_corners() -> None:
    schedule = warmup_cosine(100, 2000, floor=0.1)
    assert schedule(0) == pytest.approx(1 / 101)
    assert schedule(99) == pytest.approx(100 / 101)
    assert schedule(100) == 1.0
    assert schedule(1050) == pytest.approx(0.55)
    assert schedule(2000) == pytest.approx(0.1)
    assert schedule(10**6) == pytest.approx(0.1)
    quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert schedule(100 + 475) == pytest.approx(quarter)


def test_the_others_at_their_corners() -> None:
    fall = warmup_linear(4, 24, floor=0.2)
    assert [fall(s) for s in (0, 3, 4, 14, 24, 99)] == pytest.approx([0.2, 0.8, 1.0, 0.6, 0.2, 0.2])
    flat = warmup_constant(3)
    assert [flat(s) for s in (0, 1, 2, 3, 77)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    rise = linear(5, 0.5, 2.0)
    assert [rise(s) for s in (0, 2, 5, 9)] == pytest.approx([0.5, 1.1, 2.0, 2.0])
    assert constant(0.3)(17) == 0.3
    assert warmup(2, constant(0.3))(0) == pytest.approx(0.1)


STEPS = st.integers(0, 10_000)


@given(warm=STEPS, rest=st.integers(1, 10_000), floor=st.floats(0, 1), step=STEPS)
def test_schedules_rise_then_fall_between_floor_and_one(warm: int, rest: int, floor: float, step: int) -> None:
    for schedule in (warmup_cosine(warm, warm + rest, floor), warmup_linear(warm, warm + rest, floor)):
        now, later = schedule(step), schedule(step + 1)
        assert 0 <= now <= 1
        if step < warm:
            assert 0 < now < later
        else:
            assert floor - 1e-12 <= later <= now + 1e-12


def test_schedules_compose() -> None:
    whole, parts = warmup_cosine(10, 50, 0.2), warmup(10, cosine(40, 0.2))
    assert [whole(s) for s in range(60)] == [parts(s) for s in range(60)]


@pytest.mark.parametrize("arguments", [(-1, 10), (10, 10), (11, 10), (2, 10, -0.1), (2, 10, 1.1)])
def test_impossible_schedules_are_refused(arguments: tuple[float, ...]) -> None:
    for kind in (warmup_cosine, warmup_linear):
        with pytest.raises(ConfigError):
            kind(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        linear(0)
    with pytest.raises(ConfigError):
        cosine(-3)
    with pytest.raises(ConfigError):
        warmup_constant(-1)


def test_noam_is_equation_3_of_the_paper() -> None:
    rate = noam(512, 4000)
    for t in (1, 2, 3999, 4000, 4001, 100_000):
        assert rate(t - 1) == pytest.approx(512**-0.5 * min(t**-0.5, t * 4000**-1.5), rel=1e-12)
    assert rate(3999) == pytest.approx(7.0e-4, rel=0.01)  # the peak of their base model


def test_the_inverse_root_rises_to_1_and_falls_to_a_half_in_four_times_as_many_steps() -> None:
    shape = warmup_inverse_sqrt(10)
    assert [shape(s) for s in (0, 4, 9, 39, 159)] == pytest.approx([0.1, 0.5, 1.0, 0.5, 0.25])
    for wrong in (0, -3):
        with pytest.raises(ConfigError, match=f"warmup_steps must be above 0, not {wrong}"):
            warmup_inverse_sqrt(wrong)
    with pytest.raises(ConfigError, match="d_model must be at least 1, not 0"):
        noam(0)
