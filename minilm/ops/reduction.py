"""Operations that make many elements one: sums, means, extremes."""

from __future__ import annotations

import builtins
import math
from typing import Any, NamedTuple

import numpy as np

from minilm import dtypes, kernels
from minilm.device import array_module
from minilm.errors import DtypeError, ShapeError
from minilm.ops.arrange import flip, movedim, squeeze
from minilm.ops.indexing import getitem, take_along_dim
from minilm.ops.joining import cat
from minilm.ops.pointwise import exp, sqrt, square
from minilm.ops.registry import Composite, Primitive, Sample, options, sample
from minilm.ops.selection import abs, eq, maximum, minimum, ne, sign, where  # noqa: A004
from minilm.ops.shape import _axis, cast, expand, reshape

DIMS = [None, 0, -1, (0, 2)]


def _axes(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes that `dim` (None, an int or several) means, counted from the front."""
    if dim is None or dim == ():
        return tuple(range(ndim))
    axes = tuple(_axis(name, d, ndim) for d in (dim if isinstance(dim, (tuple, list)) else (dim,)))
    return axes if ndim else ()


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
        ctx.shape, ctx.kept, ctx.dtype = x.shape, _kept(x.shape, axes), x.dtype
        if dtype is None:
            dtype = x.dtype if x.dtype.kind in dtypes.REAL_OR_COMPLEX else "int64"
        if axes == (0,) and x.ndim == 2 and dtype == x.dtype and not keepdim:  # the gradient of every bias
            return kernels.sum_rows(x)
        return array_module(x).sum(x, axis=axes, keepdims=keepdim, dtype=dtype)

    def backward(ctx, dz):
        dz = dz if dz.dtype == ctx.dtype else cast(dz, ctx.dtype)
        return expand(reshape(dz, ctx.kept), ctx.shape)


sum = Sum.apply


def sum_to_size(x: Any, shape: tuple[int, ...]) -> Any:
    """Sum x over the axes along which something of `shape` was broadcast to x's shape: broadcasting undone."""
    lead = len(x.shape) - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + axis for axis, size in enumerate(shape) if size == 1 and x.shape[lead + axis] != 1
    )
    return reshape(sum(x, axes, True), tuple(shape)) if axes else x


class Mean(Composite, shapes="(...) -> (?)"):
    """z = sum of x / the number of elements"""

    samples = options(dim=DIMS, keepdim=[False, True])

    def definition(x, dim=None, keepdim=False):
        if x.dtype.kind not in dtypes.REAL_OR_COMPLEX:
            raise DtypeError(f"mean: the elements are {x.dtype}; convert them first: x.float().mean()")
        count = math.prod(x.shape[axis] for axis in _axes("mean", dim, len(x.shape)))
        return sum(x, dim, keepdim) / count


class Var(Composite, shapes="(...) -> (?)"):
    """z = sum of (x - mean)^2 / (N - correction);  correction 1 (Bessel's) by default, as in PyTorch"""

    samples = options(dim=DIMS, correction=[0, 1], keepdim=[False, True])

    def definition(x, dim=None, correction=1, keepdim=False, unbiased=None):
        if isinstance(dim, bool):  # PyTorch's other meaning of this place: x.var(False)
            dim, unbiased = None, dim
        if unbiased is not None:
            correction = int(unbiased)
        correction = 1 if correction is None else correction
        count = math.prod(x.shape[axis] for axis in _axes("var", dim, len(x.shape)))
        total = sum(square(x - mean(x, dim, True)), dim, keepdim)
        if count > correction:
            return total / (count - correction)
        return total * (math.inf if count > 1 else math.nan)  # what total / 0 is, said without a warning

    def torch(torch, x, dim=None, correction=1, keepdim=False):
        return torch.var(x, dim, correction=correction, keepdim=keepdim)


class Std(Composite, shapes="(...) -> (?)"):
    """z = sqrt(var);  where the variance is 0 the gradient is 0, not infinite, as in PyTorch"""

    samples = options(dim=DIMS, correction=[0, 1])

    def definition(x, dim=None, correction=1, keepdim=False, unbiased=None):
        variance = var(x, dim, correction, keepdim, unbiased)
        constant = eq(variance, 0)
        return where(constant, 0.0, sqrt(where(constant, 1.0, variance)))

    def torch(torch, x, dim=None, correction=1, keepdim=False):
        return torch.std(x, dim, correction=correction, keepdim=keepdim)


class Amax(Primitive, shapes="(...) -> (?)", smooth=False):
    """z = the largest x;  the gradient is shared equally among equals"""

    domain = "distinct"
    samples = options(dim=DIMS, keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False):
        axes = _axes("amax", dim, x.ndim)
        z = _checked_extreme("amax", x, axes).max(axes, keepdims=True)
        ctx.save(x, z)
        return z if keepdim else z.squeeze(axes)

    def backward(ctx, dz):
        return _shared(dz, *ctx.saved)

    def torch(torch, x, dim=None, keepdim=False):
        return torch.amax(x, () if dim is None else dim, keepdim)


class Amin(Primitive, shapes="(...) -> (?)", smooth=False):
    """z = the smallest x;  the gradient is shared equally among equals"""

    domain = "distinct"
    samples = options(dim=DIMS, keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False):
        axes = _axes("amin", dim, x.ndim)
        z = _checked_extreme("amin", x, axes).min(axes, keepdims=True)
        ctx.save(x, z)
        return z if keepdim else z.squeeze(axes)

    def backward(ctx, dz):
        return _shared(dz, *ctx.saved)

    def torch(torch, x, dim=None, keepdim=False):
        return torch.amin(x, () if dim is None else dim, keepdim)


def _checked_extreme(name: str, x: Any, axes: tuple[int, ...]) -> Any:
    """x, if it has elements to compare. Errors: ShapeError."""
    if builtins.any(x.shape[axis] == 0 for axis in axes):
        raise ShapeError(f"{name}: among no elements (shape {x.shape}, axes {axes}) none is extreme")
    return x


def _shared(dz: Any, x: Any, z: Any) -> Any:
    """dz divided equally among the elements of x that equal their extreme z."""
    extreme = where(eq(x, z), array_module(x).ones((), x.dtype), 0.0)
    return reshape(dz, z.shape) / sum_to_size(extreme, z.shape) * extreme


class Argmax(Primitive, shapes="(...) -> (?)", differentiable=False):
    """z = the index of the largest x along `dim`, of the first one among equals; in the flattened x by default"""

    samples = options(dim=[None, 0, -1], keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False):
        axes = None if dim is None else _axis("argmax", dim, x.ndim)
        _checked_extreme("argmax", x, _axes("argmax", dim, x.ndim))
        return array_module(x).argmax(x, axes, keepdims=keepdim)


class Argmin(Primitive, shapes="(...) -> (?)", differentiable=False):
    """z = the index of the smallest x along `dim`, of the first one among equals"""

    samples = options(dim=[None, 0, -1], keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False):
        axes = None if dim is None else _axis("argmin", dim, x.ndim)
        _checked_extreme("argmin", x, _axes("argmin", dim, x.ndim))
        return array_module(x).argmin(x, axes, keepdims=keepdim)


class Extreme(NamedTuple):
    """What `max` and `min` along an axis give."""

    values: Any
    indices: Any


class Max(Composite, shapes="(...) -> (?)", smooth=False):
    """The largest x; along `dim` with its indices, `(values, indices)`; of two tensors, each pair's larger one."""

    domain = "distinct"
    samples = [Sample(), *options(dim=[0, -1], keepdim=[False, True])]

    def definition(x, dim=None, keepdim=False):
        return _max_or_min(x, dim, keepdim, amax, argmax, maximum)


class Min(Composite, shapes="(...) -> (?)", smooth=False):
    """The smallest x; along `dim` with its indices, `(values, indices)`; of two tensors, each pair's smaller one."""

    domain = "distinct"
    samples = [Sample(), *options(dim=[0, -1], keepdim=[False, True])]

    def definition(x, dim=None, keepdim=False):
        return _max_or_min(x, dim, keepdim, amin, argmin, minimum)


def _max_or_min(x: Any, dim: Any, keepdim: bool, whole: Any, argument: Any, pairwise: Any) -> Any:
    if dim is None:
        return whole(x)
    if hasattr(dim, "dtype"):
        return pairwise(x, dim)
    if not x.shape:
        return Extreme(reshape(x, ()), argument(x))
    indices = argument(x, dim, True)
    values = take_along_dim(x, indices, dim)
    return Extreme(values, indices) if keepdim else Extreme(squeeze(values, dim), squeeze(indices, dim))


class Prod(Composite, shapes="(...) -> (?)"):
    """z = product of x along `dim` (everything by default)

    Halves are multiplied with each other until one is left: log N steps, and right where x has zeros,
    at which dz z / x would divide by zero.
    """

    samples = [Sample(), *options(dim=[0, -1], keepdim=[False, True]), sample((0, 3), dim=0), sample((1, 3), dim=0)]

    def definition(x, dim=None, keepdim=False):
        x = x if x.dtype.kind in dtypes.REAL_OR_COMPLEX else cast(x, np.dtype("int64"))
        axis = 0 if dim is None else _axis("prod", dim, len(x.shape))
        z = reshape(x, (-1,)) if dim is None or not x.shape else movedim(x, axis, 0)
        if not z.shape[0]:
            z = sum(z, 0, True) + 1  # of nothing: 1, wherever there is a result
        while z.shape[0] > 1:
            half = z.shape[0] // 2
            paired = getitem(z, slice(0, half)) * getitem(z, slice(half, 2 * half))
            z = cat([paired, getitem(z, slice(2 * half, None))]) if z.shape[0] % 2 else paired
        if keepdim and dim is not None and x.shape:
            return movedim(z, 0, axis)
        return getitem(z, 0)

    def torch(torch, x, dim=None, keepdim=False):
        return torch.prod(x) if dim is None else torch.prod(x, dim, keepdim)


class Cumsum(Primitive, shapes="(...) -> (...)", dtypes="keep"):
    """z_i = x_1 + ... + x_i along `dim`;  dx = the sum of dz from i on"""

    samples = options(dim=[0, -1])

    def forward(ctx, x, dim):
        ctx.axis = axis = _axis("cumsum", dim, x.ndim)
        if not x.ndim:
            return x.copy()
        return array_module(x).cumsum(x, axis, dtype=x.dtype if x.dtype.kind in dtypes.REAL_OR_COMPLEX else "int64")

    def backward(ctx, dz):
        if not dz.shape:
            return dz
        return flip(cumsum(flip(dz, (ctx.axis,)), ctx.axis), (ctx.axis,))


class Logsumexp(Primitive, shapes="(...) -> (?)", dtypes="float"):
    """z = ln sum e^x along `dim`;  dx = dz e^(x - z)

    The largest x is taken out first, so that nothing overflows; a row of -infinity gives -infinity, and
    gradients of 0.
    """

    samples = [*options(dim=[0, -1, (0, 2)], keepdim=[False, True])]

    def forward(ctx, x, dim, keepdim=False):
        xp, axes = array_module(x), _axes("logsumexp", dim, x.ndim)
        largest = x.max(axes, keepdims=True) if x.size else xp.zeros(_kept(x.shape, axes), x.dtype)
        finite = xp.where(xp.isfinite(largest), largest, x.dtype.type(0))
        with np.errstate(divide="ignore"):  # the logarithm of 0 is what a row of -infinity asks for
            z = xp.log(xp.exp(x - finite).sum(axes, keepdims=True)) + finite
        ctx.kept = z.shape
        z = z if keepdim else z.squeeze(axes)
        ctx.save(x, z)
        return z

    def backward(ctx, dz):
        x, z = ctx.saved
        z = reshape(z, ctx.kept)
        return reshape(dz, ctx.kept) * exp(x - where(eq(z, -math.inf), 0.0, z))


class EuclideanNorm(Primitive, shapes="(...) -> (?)", dtypes="float", method=False, title="norm"):
    """z = sqrt(sum of x^2) along `dim`;  dx = dz x / z, and 0 where z is 0"""

    samples = options(dim=DIMS, keepdim=[False, True])

    def forward(ctx, x, dim=None, keepdim=False):
        axes = _axes("norm", dim, x.ndim)
        z = array_module(x).sqrt((x * x).sum(axes, keepdims=True))
        ctx.kept = z.shape
        z = z if keepdim else z.squeeze(axes)
        ctx.save(x, z)
        return z

    def backward(ctx, dz):
        x, z = ctx.saved
        z = reshape(z, ctx.kept)
        zero = eq(z, 0)
        return x * where(zero, 0.0, reshape(dz, ctx.kept) / where(zero, 1.0, z))

    def torch(torch, x, dim=None, keepdim=False):
        return torch.norm(x, 2, dim, keepdim)


class Norm(Composite, shapes="(...) -> (?)"):
    """z = (sum of |x|^p)^(1/p) along `dim`; the largest |x| for p = infinity, the smallest for -infinity"""

    domain = "distinct"
    samples = options(p=[1, 2, 3.0, math.inf, -math.inf], dim=[None, -1, (0, 2)])

    def definition(x, p=2, dim=None, keepdim=False):
        if p in (2, "fro"):
            return euclidean_norm(x, dim, keepdim)
        if p in (math.inf, -math.inf):
            unknown = ne(x, x)  # NaN makes the norm NaN, whose slope is 0, as in PyTorch
            z = (amax if p > 0 else amin)(where(unknown, 0.0, abs(x)), dim, keepdim)
            return where(any(unknown, dim, keepdim), math.nan, z)
        if p == 1:
            return sum(abs(x), dim, keepdim)
        if p == 0:
            return sum(sign(abs(x)), dim, keepdim)
        total = sum(abs(x) ** p, dim, keepdim)
        zero = eq(total, 0)  # where the root's slope is infinite; the norm's is taken as 0, as in PyTorch
        return where(zero, 0.0, where(zero, 1.0, total) ** (1 / p))


class All(Primitive, shapes="(...) -> (?)", dtypes="keep", differentiable=False):
    """z = whether every x is true (not 0) along `dim`"""

    domain = "bool"
    samples = options(dim=[None, 0, -1], keepdim=[False])

    def forward(ctx, x, dim=None, keepdim=False):
        return array_module(x).all(x, axis=_axes("all", dim, x.ndim), keepdims=keepdim)

    def torch(torch, x, dim=None, keepdim=False):
        return torch.all(x) if dim is None else torch.all(x, dim, keepdim)


class Any_(Primitive, shapes="(...) -> (?)", dtypes="keep", differentiable=False, name="any"):  # noqa: N801
    """z = whether some x is true (not 0) along `dim`"""

    domain = "bool"
    samples = options(dim=[None, 0, -1], keepdim=[False])

    def forward(ctx, x, dim=None, keepdim=False):
        return array_module(x).any(x, axis=_axes("any", dim, x.ndim), keepdims=keepdim)

    def torch(torch, x, dim=None, keepdim=False):
        return torch.any(x) if dim is None else torch.any(x, dim, keepdim)


mean, var, std, amax, amin = Mean.apply, Var.apply, Std.apply, Amax.apply, Amin.apply
argmax, argmin, max, min = Argmax.apply, Argmin.apply, Max.apply, Min.apply
prod, cumsum, logsumexp = Prod.apply, Cumsum.apply, Logsumexp.apply
euclidean_norm, norm, all, any = EuclideanNorm.apply, Norm.apply, All.apply, Any_.apply
