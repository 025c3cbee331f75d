"""New tensors: from data, from a rule, from nothing. Random ones are in minilm/random.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm import dtypes
from minilm.device import Device
from minilm.errors import DeviceError, DtypeError, MinilmError, ShapeError
from minilm.tensor import Tensor, _to_array

Shape = Any


def tensor(data: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """A new leaf tensor with a copy of `data` (numbers, nested lists, an array, a Tensor).

    Python floats become the default type (float32), integers int64; arrays keep their type.
    Errors: ShapeError for rows of different lengths, DtypeError for what is no number.
    """
    array = np.array(_to_array(data, dtype), copy=True)
    return Tensor(Device(device).receive(array), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = "cpu") -> Tensor:
    """`data` as a tensor, without a copy where that is possible."""
    if isinstance(data, Tensor) and (dtype is None or data.dtype == dtypes.checked(dtype)):
        return data.to(device)
    return Tensor(Device(device).receive(_to_array(data, dtype)))


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the memory of a NumPy array: a change of one is seen in the other."""
    if not isinstance(array, np.ndarray):
        raise DtypeError(f"from_numpy: a NumPy array was expected, not {type(array).__name__}")
    dtypes.checked(array.dtype)
    return Tensor(array)


def from_dlpack(source: Any) -> Tensor:
    """A tensor that shares the memory of any array with `__dlpack__` (PyTorch, JAX, CuPy, NumPy).

    Errors: DtypeError for what is no such array or has an element type that NumPy lacks (bfloat16),
    DeviceError for one on a GPU, BufferError where its owner does not share it (it requires a gradient).
    """
    if not hasattr(source, "__dlpack__"):
        raise DtypeError(f"from_dlpack: an array with __dlpack__ was expected, not {type(source).__name__}")
    if source.__dlpack_device__()[0] == 2:  # kDLCUDA
        raise DeviceError("from_dlpack: this array is on a GPU; copy it to the CPU first")
    try:
        array = np.from_dlpack(source)
    except MinilmError:
        raise
    except RuntimeError as error:
        raise DtypeError(
            f"from_dlpack: NumPy cannot share this array of {getattr(source, 'dtype', 'unknown type')} ({error})"
        ) from None
    return Tensor(array)


def zeros(*size: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of zeros; `zeros(2, 3)` or `zeros((2, 3))`."""
    return full(shape_of("zeros", size), 0.0, dtype=_floating(dtype), device=device, requires_grad=requires_grad)


def ones(*size: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of ones."""
    return full(shape_of("ones", size), 1.0, dtype=_floating(dtype), device=device, requires_grad=requires_grad)


def empty(*size: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor with whatever was in its memory before."""
    array = np.empty(shape_of("empty", size), _floating(dtype))
    return Tensor(Device(device).receive(array), requires_grad)


def full(size: Shape, fill_value: Any, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """A tensor of one value everywhere; its type is the value's unless given."""
    wanted = dtypes.of_scalar(fill_value) if dtype is None else dtypes.checked(dtype)
    array = np.full(shape_of("full", (size,)), fill_value, wanted)
    return Tensor(Device(device).receive(array), requires_grad)


def zeros_like(x: Tensor, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of x's shape and type."""
    return full(x.shape, 0, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def ones_like(x: Tensor, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of x's shape and type."""
    return full(x.shape, 1, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def full_like(x: Tensor, fill_value: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """One value everywhere, in x's shape and type."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def empty_like(x: Tensor, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uninitialised memory of x's shape and type."""
    return empty(x.shape, dtype=dtype or x.dtype, device=device or x.device, requires_grad=requires_grad)


def arange(
    start: Any, end: Any = None, step: Any = 1, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False
) -> Tensor:
    """start, start + step, ... up to but without `end`; integers give int64, floats the default type."""
    if end is None:
        start, end = 0, start
    if step == 0:
        raise ShapeError("arange: the step must not be 0")
    if dtype is None:
        whole = all(isinstance(v, (int, np.integer)) for v in (start, end, step))
        dtype = dtypes.int64 if whole else dtypes.get_default_dtype()
    array = np.arange(start, end, step).astype(dtypes.checked(dtype))
    return Tensor(Device(device).receive(array), requires_grad)


def linspace(
    start: float, end: float, steps: int, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False
) -> Tensor:
    """`steps` numbers at equal distances from `start` to `end`, both included."""
    array = np.linspace(start, end, steps, dtype=_floating(dtype))
    return Tensor(Device(device).receive(array), requires_grad)


def eye(n: int, m: int | None = None, dtype: Any = None, device: Any = "cpu", requires_grad: bool = False) -> Tensor:
    """Ones on the diagonal, zeros elsewhere: (n, m), m = n by default."""
    return Tensor(Device(device).receive(np.eye(n, m, dtype=_floating(dtype))), requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, device: Any = "cpu") -> Tensor:
    """The rows and columns of the lower triangle of a (row, col) matrix, row by row: (2, N), int64."""
    return Tensor(Device(device).receive(np.stack(np.tril_indices(row, offset, col))))


def triu_indices(row: int, col: int, offset: int = 0, device: Any = "cpu") -> Tensor:
    """The rows and columns of the upper triangle of a (row, col) matrix, row by row: (2, N), int64."""
    return Tensor(Device(device).receive(np.stack(np.triu_indices(row, offset, col))))


def shape_of(name: str, size: Sequence[Any]) -> tuple[int, ...]:
    """The shape from `f(2, 3)` or `f((2, 3))`. Errors: ShapeError for a negative size."""
    if len(size) == 1 and not isinstance(size[0], (int, np.integer)):
        size = tuple(size[0])
    shape = tuple(int(n) for n in size)
    if any(n < 0 for n in shape):
        raise ShapeError(f"{name}: a size cannot be negative: {shape}")
    return shape


def _floating(dtype: Any) -> np.dtype[Any]:
    return dtypes.get_default_dtype() if dtype is None else dtypes.checked(dtype)
