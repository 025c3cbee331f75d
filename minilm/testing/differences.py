"""Slopes of a function by moving its inputs: what the engine's gradients are held against.

    central     (f(x + h d) - f(x - h d)) / 2h      for any function; good to nine digits or so: a smaller h cancels
                                                    digits of f, a larger one sees the third derivative
    complex     Im f(x + i h d) / h                 for analytic functions that compute in complex numbers too; nothing
                                                    is subtracted, so h may be 1e-30 and all digits are good

Source: Squire & Trapp 1998, "Using complex variables to estimate derivatives of real functions".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
Values = list[Any]
Run = Callable[[Values], Array]

COMPLEX_STEP = 1e-30
METHODS = ("auto", "central", "complex")


class Differences:
    """The slopes of `run`, from a list of inputs to one flat array of outputs, at `values`.

    Args:
        active: the positions of the inputs that are moved.
        eps: the step of central differences, relative to values beyond 1.
        method: "central", "complex", or "auto": complex where that works and agrees with central differences along one
            random direction.

    Errors: ValueError for another method, and where "complex" was asked for and does not work.
    """

    def __init__(self, run: Run, values: Values, active: list[int], eps: float, method: str = "auto") -> None:
        if method not in METHODS:
            raise ValueError(f"the method is one of {', '.join(METHODS)}, not {method!r}")
        self.run, self.values, self.active, self.eps = run, values, active, eps
        self.at = run(values)
        self.method = "central"
        if method != "central":
            why = self._no_complex_step()
            if not why:
                self.method = "complex"
            elif method == "complex":
                raise ValueError(f"the complex step does not work here: {why}")

    def along(self, directions: dict[int, Array]) -> Array:
        """The slopes of all outputs where the inputs at these positions move in these directions."""
        return self._by_complex_step(directions) if self.method == "complex" else self.central(directions)

    def central(self, directions: dict[int, Array]) -> Array:
        """The same by central differences, whatever the method."""
        step = self.step(directions)
        above, below = (self.run(self._moved(directions, sign * step)) for sign in (1.0, -1.0))
        return _change(above, below) / (2 * step)

    def one_sided(self, directions: dict[int, Array]) -> tuple[Array, Array]:
        """The slopes before and behind the point: they differ where it is a kink."""
        step = self.step(directions)
        above, below = (self.run(self._moved(directions, sign * step)) for sign in (1.0, -1.0))
        return _change(self.at, below) / step, _change(above, self.at) / step

    def step(self, directions: dict[int, Array]) -> float:
        """How far to go: eps, more where the values that move are large."""
        moving = [np.abs(self.values[position][d != 0]).max(initial=0.0) for position, d in directions.items()]
        return self.eps * max(1.0, float(max(moving, default=1.0)))

    def _moved(self, directions: dict[int, Array], step: complex) -> Values:
        moved = list(self.values)
        for position, direction in directions.items():
            moved[position] = np.asarray(self.values[position] + step * direction)  # a 0-d sum is a scalar of NumPy's
        return moved

    def _by_complex_step(self, directions: dict[int, Array]) -> Array:
        return self._in_complex(directions).imag / COMPLEX_STEP

    def _in_complex(self, directions: dict[int, Array]) -> Array:
        """The outputs where these inputs have an imaginary part, and all active ones are complex: so are their sums."""
        still = {p: np.zeros(self.values[p].shape) for p in self.active if p not in directions}
        return self.run(self._moved({**directions, **still}, 1j * COMPLEX_STEP))

    def _no_complex_step(self) -> str:
        """Why the complex step cannot serve; "" where it can."""
        rng = np.random.default_rng(0)
        directions = {p: np.asarray(rng.standard_normal(self.values[p].shape)) for p in self.active}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # an imaginary part that is dropped is a warning
                moved = self._in_complex(directions)
        except Exception as error:  # anything: the function was not made for complex numbers
            return f"{type(error).__name__}: {error}"
        if moved.dtype.kind != "c" or moved.shape != self.at.shape:
            return "the outputs are not complex"
        slopes, wanted = moved.imag / COMPLEX_STEP, self.central(directions)
        scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
        if not np.allclose(moved.real, self.at, rtol=1e-12, atol=1e-13):
            return "the values are others"
        if not np.allclose(slopes, wanted, rtol=1e-5, atol=1e-6 * scale):
            return "the function is not analytic"
        return ""


def _change(above: Array, below: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.where(above == below, 0.0, above - below)  # an infinity that stays is no change
