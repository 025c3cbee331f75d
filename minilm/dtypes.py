"""Element types, and the one table that says what type an operation on several of them has.

The rules are PyTorch's (documentation of `torch.result_type`), not NumPy's: a tensor's type is not
widened by a Python number of the same kind, an integer tensor and a floating one give the floating
type, and nothing turns into float64 that was not float64 before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.errors import DtypeError

bool_ = np.dtype("bool")
uint8 = np.dtype("uint8")
int8 = np.dtype("int8")
int16 = np.dtype("int16")
int32 = np.dtype("int32")
int64 = np.dtype("int64")
float16 = np.dtype("float16")
float32 = np.dtype("float32")
float64 = np.dtype("float64")

SUPPORTED = (bool_, uint8, int8, int16, int32, int64, float16, float32, float64)
FLOATING = (float16, float32, float64)

_default = float32

# Kinds in rising order: where kinds differ, the higher one decides and the lower have no say.
_KIND = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}

# Kinds that are computed in as they are. Tensors hold no complex numbers, but for one purpose: a derivative taken by
# a complex step (testing/differences.py) runs through the operations' forwards.
REAL_OR_COMPLEX = ("f", "c")


def get_default_dtype() -> np.dtype[Any]:
    """The floating type of what is made from Python numbers; float32 unless set otherwise."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Make `dtype` (float16, float32 or float64) the type of new floating tensors."""
    global _default
    wanted = np.dtype(dtype)
    if wanted not in FLOATING:
        raise DtypeError(f"the default dtype must be floating, and {wanted} is not")
    _default = wanted


def checked(dtype: Any) -> np.dtype[Any]:
    """`dtype` (a NumPy type, its name, or Python's float, int, bool) as one of SUPPORTED.

    Python's own types mean what they mean in PyTorch: float is the default dtype, int is int64.
    """
    if dtype is float:
        return _default
    try:
        found = np.dtype(dtype)
    except TypeError:
        raise DtypeError(f"there is no element type {dtype!r}: tensors hold {_names()}") from None
    if found not in SUPPORTED:
        raise DtypeError(f"tensors hold {_names()}; {found} is none of these")
    return found.newbyteorder("=")


def _names() -> str:
    return ", ".join(str(d) for d in SUPPORTED)


def of_scalar(value: Any) -> np.dtype[Any]:
    """The type that a Python number has by itself."""
    if isinstance(value, (bool, np.bool_)):
        return bool_
    if isinstance(value, (int, np.integer)):
        return int64
    if isinstance(value, (float, np.floating)):
        return _default
    raise DtypeError(f"a number or a tensor was expected, not {type(value).__name__}: {value!r}")


def result_type(operands: Any) -> np.dtype[Any]:
    """The type of an operation on `operands` (arrays, 0-d arrays and Python numbers), by PyTorch's rules.

    Three ranks: arrays with axes, 0-d arrays, Python numbers. The highest kind (bool < integer <
    floating) that occurs decides; among operands of that kind only the highest rank counts.
    """
    best: list[np.dtype[Any] | None] = [None, None, None]
    for value in operands:
        if isinstance(value, np.ndarray) or hasattr(value, "ndim"):
            rank, dtype = (0 if value.ndim else 1), value.dtype
        else:
            rank, dtype = 2, of_scalar(value)
        known = best[rank]
        best[rank] = dtype if known is None else _joined(known, dtype)
    result: np.dtype[Any] | None = None
    for candidate in best:  # a lower rank counts only where its kind is strictly higher
        if candidate is not None and (result is None or _KIND[candidate.kind] > _KIND[result.kind]):
            result = candidate
    if result is None:
        raise DtypeError("the type of nothing was asked for")
    return result


def _joined(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """The type of two operands of the same rank."""
    if a == b:
        return a
    if a.kind == "f" or b.kind == "f":
        if "c" in (a.kind, b.kind):
            return a if a.kind == "c" else b
        if a.kind == b.kind:
            return a if a.itemsize >= b.itemsize else b
        return a if a.kind == "f" else b  # int64 with float32 is float32; NumPy would say float64
    return np.promote_types(a, b)


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The floating type in which `dtype` is computed: itself, or the default for integers and bools."""
    return dtype if dtype.kind in REAL_OR_COMPLEX else _default
