"""Elements by their size: sorting, and the largest ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minilm import kernels
from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.ops.indexing import _grid, index_scatter
from minilm.ops.registry import Primitive, options, sample
from minilm.ops.shape import _axis


class Sorted(NamedTuple):
    """What `sort` and `topk` give."""

    values: Any
    indices: Any


def _order(x: Any, axis: int, descending: bool) -> Any:
    """The indices that sort x along an axis; equal elements keep their order, also when descending."""
    xp = array_module(x)
    if not descending:
        return xp.argsort(x, axis, kind="stable")
    backwards = xp.argsort(xp.flip(x, axis), axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(backwards, axis)


class Sort(Primitive, shapes="(...) -> (...)", dtypes="keep", smooth=False):
    """The elements in rising (or falling) order along `dim`, and where each was; equals keep their order."""

    domain = "distinct"
    samples = options(dim=[-1, 0], descending=[False, True])
    result = Sorted

    def forward(ctx, x, dim=-1, descending=False, stable=True):
        ctx.shape = x.shape
        if not x.ndim:
            ctx.grid = ...
            return x.copy(), np.zeros((), np.int64)
        axis = _axis("sort", dim, x.ndim)
        indices = _order(x, axis, descending)
        ctx.grid = grid = _grid(indices, axis)
        return x[grid], indices

    def backward(ctx, dvalues, _):
        return index_scatter(dvalues, ctx.grid, ctx.shape)

    def torch(torch, x, dim=-1, descending=False):
        return torch.sort(x, dim=dim, descending=descending, stable=True)


class Argsort(Primitive, shapes="(...) -> (...)", dtypes="keep", differentiable=False):
    """The indices that sort x along `dim`; equals keep their order."""

    samples = options(dim=[-1, 0], descending=[False, True])

    def forward(ctx, x, dim=-1, descending=False, stable=True):
        return _order(x, _axis("argsort", dim, x.ndim), descending) if x.ndim else np.zeros((), np.int64)


class Largest(Primitive, shapes="(..., C) -> (?)", dtypes="float", differentiable=False, method=False):
    """The `count` largest elements of each row, in order, and where each was: `topk` without gradient or NaN.

    Of equal ones the first come first. Errors: ShapeError if there are fewer.
    """

    domain = "distinct"
    samples = [sample((2, 3, 67), count=5), sample((7,), count=0), sample((3, 7), count=7), sample((2, 300), count=3)]
    result = Sorted

    def forward(ctx, x, count):
        if not 0 <= count <= x.shape[-1]:
            raise ShapeError(f"largest: {count} elements were asked for, a row of {x.shape} has fewer")
        return kernels.largest(x, count)

    def torch(torch, x, count):
        return torch.topk(x.detach(), count)


class Topk(Primitive, shapes="(...) -> (?)", dtypes="keep", smooth=False):
    """The k largest (or smallest) elements along `dim`, in order, and where each was.

    Errors: ShapeError if there are fewer than k.
    """

    domain = "distinct"
    samples = [*options(k=[2], dim=[-1, 1], largest=[True, False]), sample((7,), k=0), sample((7,), k=7)]
    result = Sorted

    def forward(ctx, x, k, dim=-1, largest=True, sorted=True):
        axis = _axis("topk", dim, x.ndim)
        if not 0 <= k <= (x.shape[axis] if x.ndim else 1):
            raise ShapeError(f"topk: {k} elements were asked for, axis {dim} of {x.shape} has fewer")
        ctx.shape = x.shape
        if not x.ndim:
            ctx.grid = ...
            return x.copy(), np.zeros((), np.int64)
        indices = _order(x, axis, largest)[(slice(None),) * axis + (slice(0, k),)]
        ctx.grid = grid = _grid(indices, axis)
        return x[grid], indices

    def backward(ctx, dvalues, _):
        return index_scatter(dvalues, ctx.grid, ctx.shape)


sort, argsort, topk, largest = Sort.apply, Argsort.apply, Topk.apply, Largest.apply
