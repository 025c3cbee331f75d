"""Confidence intervals: what a measure on this many examples says about others of their kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError


@dataclass(frozen=True)
class Measure:
    """A value with its confidence interval, and how that was computed."""

    value: float
    low: float
    high: float
    confidence: float
    method: str

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.confidence:.0%}: {self.low:.4f} to {self.high:.4f}, {self.method})"


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Measure:
    """A share, successes / n, with Wilson's score interval, which holds near 0 and 1 and for small n too.

        centre = (p + z^2 / 2n) / (1 + z^2 / n)
        half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)

    It takes the n for independent. Errors: DataError unless 0 <= successes <= n, n > 0 and 0 < confidence < 1.

    Source: Wilson 1927; Brown, Cai & DasGupta 2001, who recommend it.
    """
    _check(n, confidence)
    if not 0 <= successes <= n:
        raise DataError(f"wilson_interval: {successes} of {n} is no share")
    p, z = successes / n, NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 / (1 + z * z / n)
    centre = scale * (p + z * z / (2 * n))
    half = scale * z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 and 1 the formula ends there exactly, but for rounding.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Measure(p, low, high, confidence, "Wilson score interval")


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    of: str = "examples",
) -> Measure:
    """A statistic of n examples with its percentile bootstrap interval.

    statistic: from the numbers of examples, (n,), to a value. It is called with 0 .. n - 1 once, for the value, and
        with n numbers drawn with replacement `resamples` times; the interval holds the middle `confidence` of these.
        Draws for which it is NaN (a measure that is not defined there) are left out.
    of: what the n are, for the method's words. They are taken for independent.

    The same seed gives the same interval. Errors: DataError unless n > 0, resamples > 0 and 0 < confidence < 1.

    Source: Efron & Tibshirani 1993, chapter 13.
    """
    _check(n, confidence)
    if resamples < 1:
        raise DataError(f"bootstrap_interval: resamples is {resamples}")
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)], dtype=np.float64)
    values = values[~np.isnan(values)]
    low, high = (math.nan, math.nan)
    if len(values):
        low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    method = f"percentile bootstrap over {of}, {resamples} resamples"
    return Measure(float(statistic(np.arange(n))), float(low), float(high), confidence, method)


def bootstrap_mean(scores: Any, of: str = "examples", **options: Any) -> Measure:
    """The mean of one score an example, with its bootstrap interval; options as of `bootstrap_interval`."""
    array = np.asarray(scores, dtype=np.float64)
    return bootstrap_interval(lambda drawn: float(array[drawn].mean()), len(array), of=of, **options)


def _check(n: int, confidence: float) -> None:
    if n < 1:
        raise DataError("there are no examples, so there is nothing to measure")
    if not 0 < confidence < 1:
        raise DataError(f"the confidence is {confidence}; it must be between 0 and 1")
