"""Operations that make many elements one: sums, means, extremes."""

from __future__ import annotations

from typing import Any

from minilm.device import array_module
from minilm.ops.registry import Primitive, options
from minilm.ops.shape import _axis, expand, reshape


def _axes(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `dim` (None, an int or several) means, counted from the front."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    return tuple(_axis(name, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,)) if ndim)


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with the reduced axes as 1."""
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


class Sum(Primitive, shapes="(...) -> (?)", dtypes="keep"):
    """z = sum of x along `dim` (all axes by default);  dx = dz, repeated

    Integers and bools are added as int64.
    """

    samples = options(dim=[None, 0, -1, (0, 2)], keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False, dtype=None):
        axes = _axes("sum", dim, x.ndim)
        ctx.shape, ctx.kept = x.shape, _kept(x.shape, axes)
        if dtype is None:
            dtype = x.dtype if x.dtype.kind == "f" else "int64"
        return array_module(x).sum(x, axis=axes, keepdims=keepdim, dtype=dtype)

    def backward(ctx, dz):
        return expand(reshape(dz, ctx.kept), ctx.shape)


sum = Sum.apply


def sum_to_size(x: Any, shape: tuple[int, ...]) -> Any:
    """Sum x over the axes along which something of `shape` was broadcast to x's shape: broadcasting undone."""
    lead = len(x.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + axis for axis, size in enumerate(shape) if size == 1 and x.shape[lead + axis] != 1
    )
    return reshape(sum(x, axes, True), tuple(shape)) if axes else x
