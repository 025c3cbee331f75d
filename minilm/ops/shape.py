"""Operations that arrange elements anew and compute nothing.

Where NumPy can show the same memory in the new shape, the result is a view.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import creation, dtypes
from minilm.device import Device, array_module
from minilm.errors import ShapeError
from minilm.ops.registry import Primitive, sample
from minilm.tensor import Tensor


def _axis(name: str, dim: int, ndim: int) -> int:
    """`dim` counted from the front. Errors: ShapeError if there is no such axis."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(f"{name}: there is no axis {dim} among {ndim}")
    return dim % max(ndim, 1)


class Alias(Primitive, shapes="(...) -> (...)", dtypes="keep", view=True, method=False):
    """The same values in the same memory, as a result of its own in the graph."""

    def forward(ctx, x):
        return x.view()

    def backward(ctx, dz):
        return dz

    def torch(torch, x):
        return x.view_as(x)


class Clone(Primitive, shapes="(...) -> (...)", dtypes="keep"):
    """A copy in memory of its own, through which gradients flow."""

    def forward(ctx, x):
        return x.copy(order="C")

    def backward(ctx, dz):
        return dz


class Cast(Primitive, shapes="(...) -> (...)", dtypes="keep", method=False):
    """The values in another element type; the gradient comes back in the old one."""

    samples = [sample((2, 3), dtype=np.dtype("float64")), sample((3,), dtype=np.dtype("float32"))]

    def forward(ctx, x, dtype):
        ctx.dtype = x.dtype
        return x.astype(dtype)

    def backward(ctx, dz):
        return cast(dz, ctx.dtype)

    def torch(torch, x, dtype):
        return x.to(dtype)


class Reshape(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True, spread=True):
    """The same elements in the same order under another shape; one size may be -1.

    A view where memory allows it, else a copy. Errors: ShapeError if the number of elements differs.
    """

    samples = [sample((2, 3, 5), shape=(5, 6)), sample((2, 3, 5), shape=(3, -1)), sample((), shape=(1, 1))]

    def forward(ctx, x, shape):
        ctx.shape = x.shape
        try:
            return x.reshape(shape)
        except ValueError:
            raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fit {shape}") from None

    def backward(ctx, dz):
        return reshape(dz, ctx.shape)


class Permute(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True, spread=True):
    """The axes in another order."""

    samples = [sample((2, 3, 5), dims=(2, 0, 1)), sample((2, 3, 5), dims=(0, -1, 1))]

    def forward(ctx, x, dims):
        axes = [_axis("permute", d, x.ndim) for d in dims]
        if sorted(axes) != list(range(x.ndim)):
            raise ShapeError(f"permute: {tuple(dims)} does not name each of the {x.ndim} axes of {x.shape} once")
        ctx.inverse = tuple(int(i) for i in np.argsort(axes))
        return x.transpose(axes)

    def backward(ctx, dz):
        return permute(dz, ctx.inverse)


class Expand(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True, spread=True):
    """Axes of size 1 repeated without copying, new axes in front; -1 keeps a size."""

    samples = [sample((3, 1), shape=(2, 3, 5)), sample((2, 1), shape=(-1, 3)), sample((), shape=(2,))]

    def forward(ctx, x, shape):
        wanted = list(shape)
        offset = len(wanted) - x.ndim
        for axis, size in enumerate(x.shape):
            if offset >= 0 and wanted[offset + axis] == -1:
                wanted[offset + axis] = size
        try:
            result = array_module(x).broadcast_to(x, wanted)
        except ValueError:
            raise ShapeError(f"expand: {x.shape} cannot be expanded to {tuple(shape)}") from None
        ctx.shape = x.shape
        # NumPy marks the view read-only; the engine itself refuses writes to shared elements.
        return np.lib.stride_tricks.as_strided(x, result.shape, result.strides)

    def backward(ctx, dz):
        from minilm.ops.reduction import sum_to_size

        return sum_to_size(dz, ctx.shape)

    def torch(torch, x, shape):
        return x.expand(shape)


alias, clone, cast, reshape = Alias.apply, Clone.apply, Cast.apply, Reshape.apply
permute, expand = Permute.apply, Expand.apply


def _to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """In another element type and/or on another device: `t.to(ml.float64)`, `t.to("cpu")`; itself if unchanged."""
    result = self
    kwargs.pop("non_blocking", None)  # to wait or not makes no difference to what comes out
    for target in (*args, *kwargs.values()):
        if target is None:
            continue
        if isinstance(target, Device) or (isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda")):
            moved = Device(target).receive(result.array)
            result = result if moved is result.array else Tensor(moved, result.requires_grad)
        elif isinstance(target, Tensor):
            result = _to(result, target.dtype, target.device)
        elif dtypes.checked(target) != result.dtype:
            result = cast(result, dtypes.checked(target))
    return result


def _contiguous(self: Tensor) -> Tensor:
    """The elements in memory in the order in which they are counted; itself if they are."""
    return self if self.is_contiguous() else clone(self)


def _type_as(self: Tensor, other: Tensor) -> Tensor:
    """In the element type of `other`."""
    return _to(self, other.dtype)


def _type(self: Tensor, dtype: Any) -> Tensor:
    """In another element type, as `to`; itself if it is that already."""
    return _to(self, dtypes.checked(dtype))


def _converting(dtype: np.dtype[Any]) -> Any:
    def method(self: Tensor) -> Tensor:
        return _to(self, dtype)

    method.__doc__ = f"In {dtype}; itself if it is already."
    return method


def _transposed(self: Tensor) -> Tensor:
    """All axes in reverse order; of a matrix its transpose."""
    return permute(self, tuple(range(self.ndim))[::-1])


def _matrices_transposed(self: Tensor) -> Tensor:
    """The last two axes exchanged: (..., N, M) to (..., M, N)."""
    if self.ndim < 2:
        raise ShapeError(f"mT: a tensor of shape {self.shape} holds no matrices")
    return permute(self, (*range(self.ndim - 2), -1, -2))


def _new(creator: Any) -> Any:
    """`x.new_zeros(2, 3)`: a tensor made by `creator`, in x's element type and on its device unless said."""

    def method(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        chosen = {"dtype": dtype or self.dtype, "device": device or self.device}
        return creator(*size, **chosen, requires_grad=requires_grad)

    method.__doc__ = f"`{creator.__name__}` in this element type and on this device unless others are given."
    return method


def _stride(self: Tensor, dim: int | None = None) -> Any:
    """How many elements lie between neighbours along each axis, or along `dim`."""
    steps = tuple(step // self.array.itemsize for step in self.array.strides)
    return steps if dim is None else steps[dim]


def _is_cuda(self: Tensor) -> bool:
    """Whether it lies on a GPU."""
    return self.device.type == "cuda"


# The methods that are no operations of their own: names for conversions and orders of axes.
METHODS: dict[str, Any] = {
    "to": _to,
    "contiguous": _contiguous,
    "type": _type,
    "type_as": _type_as,
    "float": _converting(dtypes.float32),
    "double": _converting(dtypes.float64),
    "half": _converting(dtypes.float16),
    "long": _converting(dtypes.int64),
    "int": _converting(dtypes.int32),
    "bool": _converting(dtypes.bool_),
    "short": _converting(dtypes.int16),
    "new_zeros": _new(creation.zeros),
    "new_ones": _new(creation.ones),
    "new_empty": _new(creation.empty),
    "new_full": _new(creation.full),
    "new_tensor": _new(creation.tensor),
    "nelement": Tensor.numel,
    "ndimension": Tensor.dim,
    "stride": _stride,
    "is_cuda": property(_is_cuda),
    "T": property(_transposed),
    "mT": property(_matrices_transposed),
}
for _name, _method in METHODS.items():
    setattr(Tensor, _name, _method)
