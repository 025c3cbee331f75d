"""Are two arrays the same? Tolerances by dtype, and failures that say where and by how much."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm.pytorch import as_array

# The relative error that a short chain of correctly rounded operations may leave, with some room.
RTOL = {np.dtype("float16"): 4e-3, np.dtype("float32"): 2e-5, np.dtype("float64"): 1e-11}


def assert_same(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    dtype: bool = True,
    name: str = "value",
) -> None:
    """Raise AssertionError unless `actual` and `expected` agree in shape, dtype and values.

    Two values agree where |actual - expected| <= atol + rtol |expected|; NaN agrees with NaN,
    infinity with the infinity of its sign. Integers and bools must be equal.

    Args:
        actual, expected: Tensors, arrays or numbers.
        rtol: by default that of the coarser floating type of the two.
        atol: by default rtol times the largest finite magnitude in `expected`: what a sum of values
            of that size can lose.
        dtype: whether the element types must be the same too.
        name: what the values are, for the message.
    """
    found = difference(actual, expected, rtol, atol)
    if dtype and found.shapes_agree and found.dtypes[0] != found.dtypes[1]:
        raise AssertionError(f"{name}: dtype {found.dtypes[0]} where {found.dtypes[1]} was expected")
    if not found.agrees:
        raise AssertionError(f"{name}: {found}")


@dataclass(frozen=True)
class Difference:
    """How two arrays differ: where most, and by how much.

    Attributes:
        agrees: whether all of it lies within the tolerances.
        error: the largest |actual - expected|: among the elements beyond the tolerances, if there are any; infinite
            beside NaN or infinity. relative: the same as a share of the largest finite magnitude expected.
        index: where that is; None where there are no elements, or the shapes differ.
        ulp: how many floating numbers lie between the two there, or a word; None for integers.
        wrong: how many elements are beyond the tolerances.
    """

    agrees: bool
    error: float
    relative: float
    index: tuple[int, ...] | None
    ulp: int | str | None
    wrong: int
    values: tuple[Any, Any]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[Any, Any]
    rtol: float
    atol: float

    @property
    def shapes_agree(self) -> bool:
        """Whether the two have one shape."""
        return self.shapes[0] == self.shapes[1]

    def __str__(self) -> str:
        if not self.shapes_agree:
            return f"shape {self.shapes[0]} where {self.shapes[1]} was expected"
        distance, bounds = "", ""
        if self.ulp is not None:
            distance, bounds = f", {self.ulp} ulp apart", f" (rtol {self.rtol:.3g}, atol {self.atol:.3g})"
        return (
            f"{self.wrong} of {math.prod(self.shapes[0])} elements of shape {self.shapes[0]} differ{bounds}; "
            f"worst at {self.index}: {self.values[0]!r} where {self.values[1]!r} was expected, "
            f"{self.error:.6g} off{distance}"
        )


def difference(actual: Any, expected: Any, rtol: float | None = None, atol: float | None = None) -> Difference:
    """How `actual` and `expected` differ; the arguments are those of `assert_same`."""
    a, e = as_array(actual), as_array(expected)
    shapes, dtypes = (a.shape, e.shape), (a.dtype, e.dtype)
    kinds = [x.dtype for x in (a, e) if x.dtype.kind == "f"]
    rtol = max((RTOL[kind] for kind in kinds), default=0.0) if rtol is None else rtol
    if a.shape != e.shape:
        return Difference(False, math.inf, math.inf, None, None, 0, (None, None), shapes, dtypes, rtol, atol or 0.0)
    if not a.size:
        return Difference(True, 0.0, 0.0, None, None, 0, (None, None), shapes, dtypes, rtol, atol or 0.0)
    wide_a, wide_e = a.astype(np.float64), e.astype(np.float64)
    largest = float(np.abs(wide_e[np.isfinite(wide_e)]).max(initial=0.0))
    atol = rtol * largest if atol is None else atol
    if kinds:
        with np.errstate(invalid="ignore"):
            error = np.abs(wide_a - wide_e)
            same = (wide_a == wide_e) | (np.isnan(wide_a) & np.isnan(wide_e))
            wrong = ~(same | (error <= atol + rtol * np.where(np.isfinite(wide_e), np.abs(wide_e), 0.0)))
        error = np.where(same, 0.0, np.nan_to_num(error, nan=np.inf))
    else:
        wrong, error = a != e, np.abs(wide_a - wide_e)
    ranked = np.where(wrong, error, -1.0) if wrong.any() else error
    worst = np.unravel_index(int(ranked.argmax()), error.shape)
    most = float(error[worst])
    return Difference(
        agrees=not wrong.any(),
        error=most,
        relative=most / largest if largest else most,
        index=tuple(int(i) for i in worst),
        ulp=ulp_distance(a[worst], e[worst]) if kinds else None,
        wrong=int(wrong.sum()),
        values=(a[worst], e[worst]),
        shapes=shapes,
        dtypes=dtypes,
        rtol=rtol,
        atol=atol,
    )


def ulp_distance(a: Any, b: Any) -> int | str:
    """How many floating numbers of the coarser type lie from a to b; a word where one is not finite."""
    a, b = np.asarray(a), np.asarray(b)
    floating = [x.dtype for x in (a, b) if x.dtype.kind == "f"]
    kind = min(floating, key=lambda d: d.itemsize, default=np.dtype("float64"))
    if not (np.isfinite(a) and np.isfinite(b)):
        return 0 if a == b else "uncountably many"
    return abs(_rank(kind.type(a)) - _rank(kind.type(b)))


def _rank(value: Any) -> int:
    """The number of floating values from 0 to `value`, negative below 0: neighbours differ by 1."""
    bits = int(value.view(f"u{value.dtype.itemsize}"))
    sign = 1 << (8 * value.dtype.itemsize - 1)
    return -(bits - sign) if bits & sign else bits
