"""Schedules: pure functions from the number of a step to a factor on the learning rate.

    schedule = warmup_cosine(warmup_steps=100, total_steps=2000, floor=0.1)
    schedule(0), schedule(100), schedule(2000)          # 1/101, 1.0, 0.1

They compose: `warmup(100, cosine(1900, 0.1))` is the same function. `LambdaLR` lets one drive an optimiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from minilm.errors import ConfigError

Schedule = Callable[[int], float]


def constant(factor: float = 1.0) -> Schedule:
    """The same factor at every step."""
    return lambda step: factor


def linear(total_steps: int, start: float = 1.0, end: float = 0.0) -> Schedule:
    """A straight line from `start` at step 0 to `end` at step `total_steps`, and `end` from there on."""
    _check_steps("total_steps", total_steps)
    return lambda step: start + (end - start) * _progress(step, total_steps)


def cosine(total_steps: int, floor: float = 0.0) -> Schedule:
    """Half a cosine wave from 1 at step 0 to `floor` at step `total_steps`, and `floor` from there on.

    floor + (1 - floor) (1 + cos(pi step / total_steps)) / 2;  Loshchilov & Hutter 2017, equation 5
    """
    _check_steps("total_steps", total_steps)
    _check_floor(floor)
    return lambda step: floor + (1 - floor) * (1 + math.cos(math.pi * _progress(step, total_steps))) / 2


def warmup(warmup_steps: int, then: Schedule) -> Schedule:
    """(step + 1) / (warmup_steps + 1) while step < warmup_steps; after that `then`, counted from there.

    The first step is not wasted on a factor of 0, and the last before `then` is still below 1.
    """
    if warmup_steps < 0:
        raise ConfigError(f"warmup_steps must be at least 0, not {warmup_steps}")
    return lambda step: (step + 1) / (warmup_steps + 1) * then(0) if step < warmup_steps else then(step - warmup_steps)


def warmup_constant(warmup_steps: int) -> Schedule:
    """Rise over `warmup_steps`, then stay."""
    return warmup(warmup_steps, constant())


def warmup_linear(warmup_steps: int, total_steps: int, floor: float = 0.0) -> Schedule:
    """Rise over `warmup_steps`, then fall in a straight line to `floor` at step `total_steps`."""
    _check_floor(floor)
    return warmup(warmup_steps, linear(_remaining(warmup_steps, total_steps), 1.0, floor))


def warmup_cosine(warmup_steps: int, total_steps: int, floor: float = 0.0) -> Schedule:
    """Rise over `warmup_steps`, then fall along half a cosine wave to `floor` at step `total_steps`."""
    return warmup(warmup_steps, cosine(_remaining(warmup_steps, total_steps), floor))


def warmup_inverse_sqrt(warmup_steps: int) -> Schedule:
    """Rise in a straight line to 1 in `warmup_steps` steps, then fall like 1 / sqrt(step), with no end.

    min((step + 1) / w, sqrt(w / (step + 1))), w = warmup_steps: `noam` without its scale.
    """
    _check_steps("warmup_steps", warmup_steps)
    return lambda step: min((step + 1) / warmup_steps, math.sqrt(warmup_steps / (step + 1)))


def noam(d_model: int, warmup_steps: int = 4000) -> Schedule:
    """The learning rate itself, for an optimiser's lr of 1: larger models learn more slowly.

    1 / sqrt(d_model) min(1 / sqrt(t), t / warmup_steps^1.5), where the first step is t = 1 and here 0

    Source: Vaswani et al. 2017, equation 3 (section 5.3).
    """
    if d_model < 1:
        raise ConfigError(f"d_model must be at least 1, not {d_model}")
    shape, peak = warmup_inverse_sqrt(warmup_steps), 1 / math.sqrt(d_model * warmup_steps)
    return lambda step: peak * shape(step)


def _progress(step: int, total_steps: int) -> float:
    """How far along, from 0 to 1."""
    return min(max(step, 0) / total_steps, 1.0)


def _remaining(warmup_steps: int, total_steps: int) -> int:
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(f"warm-up of {warmup_steps} steps does not fit into {total_steps} steps")
    return total_steps - warmup_steps


def _check_steps(name: str, steps: int) -> None:
    if not steps > 0:
        raise ConfigError(f"{name} must be above 0, not {steps}")


def _check_floor(floor: float) -> None:
    if not 0 <= floor <= 1:
        raise ConfigError(f"floor must lie between 0 and 1, not {floor}")
