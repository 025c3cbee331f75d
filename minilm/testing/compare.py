"""Are two arrays the same? Tolerances by dtype, and failures that say where and by how much."""

from __future__ import annotations

from typing import Any

import numpy as np

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
    a, e = _array(actual), _array(expected)
    if a.shape != e.shape:
        raise AssertionError(f"{name}: shape {a.shape} where {e.shape} was expected")
    if dtype and a.dtype != e.dtype:
        raise AssertionError(f"{name}: dtype {a.dtype} where {e.dtype} was expected")
    kinds = [x.dtype for x in (a, e) if x.dtype.kind == "f"]
    if not kinds:
        wrong = a != e
        error = np.abs(a.astype(np.float64) - e.astype(np.float64))
    else:
        rtol = max(RTOL[kind] for kind in kinds) if rtol is None else rtol
        wide_a, wide_e = a.astype(np.float64), e.astype(np.float64)
        magnitude = np.abs(wide_e[np.isfinite(wide_e)])
        if atol is None:
            atol = rtol * float(magnitude.max(initial=0.0))
        with np.errstate(invalid="ignore"):
            error = np.abs(wide_a - wide_e)
            same = (wide_a == wide_e) | (np.isnan(wide_a) & np.isnan(wide_e))
            wrong = ~(same | (error <= atol + rtol * np.where(np.isfinite(wide_e), np.abs(wide_e), 0.0)))
    if not wrong.any():
        return
    error = np.where(wrong, np.nan_to_num(error, nan=np.inf), -1.0)
    worst = np.unravel_index(int(error.argmax()), error.shape)
    index = tuple(int(i) for i in worst)
    distance = f", {ulp_distance(a[worst], e[worst])} ulp apart" if kinds else ""
    bounds = f" (rtol {rtol:.3g}, atol {atol:.3g})" if kinds else ""
    raise AssertionError(
        f"{name}: {int(wrong.sum())} of {wrong.size} elements of shape {a.shape} differ{bounds}; worst at {index}: "
        f"{a[worst]!r} where {e[worst]!r} was expected, {error[worst]:.6g} off{distance}"
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


def _array(value: Any) -> np.ndarray[Any, Any]:
    array = getattr(value, "array", value)
    return np.asarray(array.detach().numpy() if hasattr(array, "detach") else array)
