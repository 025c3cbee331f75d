"""The smallest input on which a check still fails: shorter axes first, then simpler numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Values = list[Any]


def smallest(fails: Callable[[Values], bool], values: Values, tries: int = 300, seconds: float = 5.0) -> Values:
    """The last of ever smaller values on which `fails` is true; `values` themselves if there are none.

    Greedy: the first smaller candidate that fails is taken, and the search goes on from there, as long as tries and
    time last. An error of the function counts as not failing: axes may depend on each other in ways unknown here.
    """
    end = time.monotonic() + seconds
    kept = list(values)
    found = True
    while found:
        found = False
        for candidate in _smaller(kept):
            if tries <= 0 or time.monotonic() > end:
                return kept
            tries -= 1
            try:
                found = fails(candidate)
            except Exception:
                continue
            if found:
                kept = candidate
                break
    return kept


def _smaller(values: Values) -> Iterator[Values]:
    """Candidates, the boldest first."""
    arrays = [i for i, v in enumerate(values) if isinstance(v, np.ndarray)]
    for size in sorted({n for i in arrays for n in values[i].shape if n > 1}, reverse=True):
        for fewer in dict.fromkeys((1, 2, size // 2, size - 1)):
            if 0 < fewer < size:
                yield [_cut(v, size, fewer) if i in arrays else v for i, v in enumerate(values)]
    for i in arrays:
        for axis, size in enumerate(values[i].shape):
            for fewer in dict.fromkeys((1, size - 1)):
                if 0 < fewer < size:
                    part = (slice(None),) * axis + (slice(fewer),)
                    yield [v[part].copy() if j == i else v for j, v in enumerate(values)]
    for i in arrays:
        if values[i].dtype.kind == "f":
            for simpler in _simpler(values[i]):
                yield [simpler if j == i else v for j, v in enumerate(values)]


def _cut(x: Any, size: int, fewer: int) -> Any:
    """Every axis of that size shortened."""
    return x[tuple(slice(fewer if n == size else None) for n in x.shape)].copy()


def _simpler(x: Any) -> Iterator[Any]:
    """Numbers with fewer digits; nothing is yielded that is as x was."""
    whole = np.where(np.round(x) == 0, np.sign(x) + (x == 0), np.round(x))  # zeros hide factors
    counting = 1.0 + np.arange(x.size, dtype=np.float64).reshape(x.shape)
    for other in (np.ones_like(x), counting, whole, np.round(x, 1)):
        if _digits(other) < _digits(x):
            yield other


def _digits(x: Any) -> tuple[int, float]:
    """How much there is to read, then how large the numbers are."""
    return sum(len(f"{v:.17g}") for v in x.ravel().tolist()), float(np.abs(x).sum())
