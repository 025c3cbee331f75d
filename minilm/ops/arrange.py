"""More ways to arrange elements: most are names for reshape, permute and expand."""

from __future__ import annotations

import math

import numpy as np

from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.ops.registry import Composite, Primitive, options, sample
from minilm.ops.shape import _axis, expand, permute, reshape

SHAPE = "(...) -> (?)"


class View(Primitive, shapes=SHAPE, dtypes="keep", view=True, spread=True):
    """`reshape` that never copies.

    Errors: ShapeError where the elements do not lie in memory as the new shape needs them.
    """

    # only what is a view in any layout; the rest, and the refusals, in tests/ops/test_shape.py
    samples = [sample((2, 3, 5), shape=(2, 1, -1, 5)), sample((), shape=(1,))]

    def forward(ctx, x, shape):
        ctx.shape = x.shape
        try:
            z = x.reshape(shape)
        except ValueError:
            raise ShapeError(f"view: {x.size} elements of shape {x.shape} do not fit {tuple(shape)}") from None
        if x.size and not array_module(x).may_share_memory(x, z):
            raise ShapeError(f"view: {x.shape} as {tuple(shape)} would need a copy here; use reshape")
        return z

    def backward(ctx, dz):
        return reshape(dz, ctx.shape)

    def torch(torch, x, shape):
        return x.view(shape)


class Flatten(Composite, shapes=SHAPE):
    """The axes from start_dim to end_dim as one."""

    samples = [*options(start_dim=[0, 1, -2], end_dim=[-1]), sample((2, 3, 5), start_dim=0, end_dim=1), sample(())]

    def definition(x, start_dim=0, end_dim=-1):
        shape = x.shape
        start, end = _axis("flatten", start_dim, len(shape)), _axis("flatten", end_dim, len(shape))
        if not shape:
            return reshape(x, (1,))
        if start > end:
            raise ShapeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim} in {shape}")
        return reshape(x, (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :]))


class Squeeze(Composite, shapes=SHAPE):
    """Without the axes of size 1: all of them, or those among `dim`."""

    samples = [sample((2, 1, 3, 1)), sample((2, 1, 3, 1), dim=1), sample((2, 1, 3, 1), dim=(-1, 0)), sample(())]

    def definition(x, dim=None):
        shape = x.shape
        dims = range(len(shape)) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
        axes = {_axis("squeeze", d, len(shape)) for d in dims}
        return reshape(x, tuple(size for axis, size in enumerate(shape) if size != 1 or axis not in axes))


class Unsqueeze(Composite, shapes=SHAPE):
    """With a new axis of size 1 at `dim`."""

    samples = [sample((2, 3), dim=0), sample((2, 3), dim=-1), sample((2, 3), dim=1), sample((), dim=0)]

    def definition(x, dim):
        axis = _axis("unsqueeze", dim, len(x.shape) + 1)
        return reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))


class Transpose(Composite, shapes=SHAPE):
    """The axes dim0 and dim1 exchanged."""

    samples = [sample((2, 3, 5), dim0=0, dim1=2), sample((2, 3, 5), dim0=-1, dim1=1), sample((2,), dim0=0, dim1=0)]

    def definition(x, dim0, dim1):
        axes = list(range(len(x.shape)))
        if not axes:
            return x
        a, b = _axis("transpose", dim0, len(axes)), _axis("transpose", dim1, len(axes))
        axes[a], axes[b] = axes[b], axes[a]
        return permute(x, axes)


class Movedim(Composite, shapes=SHAPE):
    """The axis `source` at the place `destination`, or several, the others in their order.

    Errors: ShapeError for an axis that is not there or stands twice, or where there are not as many of one as of other.
    """

    samples = [sample((2, 3, 5), source=0, destination=-1), sample((2, 3, 5), source=2, destination=0)]

    def definition(x, source, destination):
        old, new = (
            [_axis("movedim", axis, len(x.shape)) for axis in (axes if isinstance(axes, (tuple, list)) else (axes,))]
            for axes in (source, destination)
        )
        if len(old) != len(new) or len({*old}) != len(old) or len({*new}) != len(new):
            raise ShapeError(f"movedim: {source} and {destination} must be as many axes, each of them once")
        axes = [axis for axis in range(len(x.shape)) if axis not in old]
        for place, axis in sorted(zip(new, old)):
            axes.insert(place, axis)
        return permute(x, axes)


class BroadcastTo(Composite, shapes=SHAPE):
    """`expand` by NumPy's name: the axes of size 1 repeated without copying."""

    samples = [sample((3, 1), shape=(2, 3, 5)), sample((), shape=(2, 3))]

    def definition(x, shape):
        return expand(x, shape)

    def torch(torch, x, shape):
        return torch.broadcast_to(x, shape)


class ExpandAs(Composite, shapes="(?), (?) -> (?)"):
    """x expanded to the shape of `other`."""

    samples = [sample((3, 1), (2, 3, 5))]

    def definition(x, other):
        return expand(x, other.shape)


class Repeat(Composite, shapes=SHAPE, spread=True):
    """The whole of x repeated along each axis, copied; more numbers than axes make new ones in front."""

    samples = [sample((2, 3), repeats=(2, 1, 3)), sample((3,), repeats=(2,)), sample((2, 3), repeats=(0, 2))]

    def definition(x, repeats):
        lead = len(repeats) - len(x.shape)
        if lead < 0:
            raise ShapeError(f"repeat: {len(repeats)} numbers for the {len(x.shape)} axes of {x.shape}")
        shape = (1,) * lead + tuple(x.shape)
        between = reshape(x, tuple(n for size in shape for n in (1, size)))
        wide = expand(between, tuple(n for times, size in zip(repeats, shape) for n in (times, size)))
        return reshape(wide, tuple(times * size for times, size in zip(repeats, shape)))

    def torch(torch, x, repeats):
        return x.repeat(repeats)


class Flip(Primitive, shapes=SHAPE, dtypes="keep", spread=True):
    """The order of the elements reversed along each of `dims`."""

    samples = [sample((2, 3, 5), dims=(0,)), sample((2, 3, 5), dims=(-1, 0)), sample((2, 3), dims=())]

    def forward(ctx, x, dims):
        ctx.dims = dims = dims if isinstance(dims, (tuple, list)) else (dims,)
        return array_module(x).flip(x, tuple(_axis("flip", d, x.ndim) for d in dims)).copy()

    def backward(ctx, dz):
        return flip(dz, ctx.dims)


class Roll(Primitive, shapes=SHAPE, dtypes="keep"):
    """The elements moved on by `shifts` along `dims`, those that fall off coming in at the front."""

    samples = [
        sample((2, 3, 5), shifts=1, dims=-1),
        sample((2, 3), shifts=(1, -2), dims=(0, 1)),
        sample((2, 3), shifts=2),
    ]

    def forward(ctx, x, shifts, dims=None):
        ctx.back = tuple(-s for s in shifts) if isinstance(shifts, (tuple, list)) else -shifts
        ctx.dims = dims
        return array_module(x).roll(x, shifts, dims)

    def backward(ctx, dz):
        return roll(dz, ctx.back, ctx.dims)


class Tril(Primitive, shapes="(..., N, M) -> (..., N, M)", dtypes="keep"):
    """The lower triangle: zero where column > row + diagonal."""

    samples = options(diagonal=[0, 1, -2])

    def forward(ctx, x, diagonal=0):
        ctx.diagonal = diagonal
        return array_module(x).tril(x, diagonal)

    def backward(ctx, dz):
        return tril(dz, ctx.diagonal)


class Triu(Primitive, shapes="(..., N, M) -> (..., N, M)", dtypes="keep"):
    """The upper triangle: zero where column < row + diagonal."""

    samples = options(diagonal=[0, 1, -2])

    def forward(ctx, x, diagonal=0):
        ctx.diagonal = diagonal
        return array_module(x).triu(x, diagonal)

    def backward(ctx, dz):
        return triu(dz, ctx.diagonal)


class Pad(Primitive, shapes=SHAPE, dtypes="keep", method=False):
    """A border of `value` around x; `pad` counts (before, after) from the last axis backwards, as in PyTorch."""

    samples = [
        sample((2, 3), pad=(1, 2)),
        sample((2, 3, 5), pad=(1, 0, 0, 2), value=-1.5),
        sample((0, 3), pad=(0, 0, 1, 1)),
    ]

    def forward(ctx, x, pad, mode="constant", value=None):
        if mode != "constant":
            raise ShapeError(f"pad: the mode {mode!r} is not there; 'constant' is")
        if len(pad) % 2 or len(pad) // 2 > x.ndim or min(pad, default=0) < 0:
            raise ShapeError(f"pad: {tuple(pad)} must be pairs of sizes, at most {x.ndim} for the shape {x.shape}")
        widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
        ctx.inside = tuple(slice(before, before + size) for (before, _), size in zip(widths, x.shape))
        return array_module(x).pad(x, widths, constant_values=x.dtype.type(value or 0))

    def backward(ctx, dz):
        return dz[ctx.inside]


class Diagonal(Primitive, shapes=SHAPE, dtypes="keep", view=True):
    """The elements with index dim1 + offset = index dim2, as a new last axis."""

    samples = [
        sample((3, 5)),
        sample((3, 5), offset=1),
        sample((2, 5, 3), offset=-1, dim1=-2, dim2=-1),
        sample((2, 3, 5), offset=2, dim1=2, dim2=0),
    ]

    def forward(ctx, x, offset=0, dim1=0, dim2=1):
        ctx.shape, ctx.call = x.shape, (offset, dim1, dim2)
        return _diagonal_view(x, offset, dim1, dim2)

    def backward(ctx, dz):
        return diagonal_scatter(dz, ctx.shape, *ctx.call)


class DiagonalScatter(Primitive, shapes=SHAPE, dtypes="keep", method=False, name="diagonal_scatter_zeros"):
    """Zeros of `shape` with x on the diagonal: what `diagonal` takes out, put back."""

    samples = [sample((3,), shape=(3, 5)), sample((2, 3), shape=(2, 5, 3), offset=0, dim1=-2, dim2=-1)]

    def forward(ctx, x, shape, offset=0, dim1=0, dim2=1):
        ctx.call = (offset, dim1, dim2)
        z = array_module(x).zeros(shape, x.dtype)
        _diagonal_view(z, offset, dim1, dim2)[...] = x
        return z

    def backward(ctx, dz):
        return diagonal(dz, *ctx.call)

    def torch(torch, x, shape, offset=0, dim1=0, dim2=1):
        return torch.diagonal_scatter(torch.zeros(shape, dtype=x.dtype), x, offset, dim1, dim2)


def _diagonal_view(x, offset, dim1, dim2):
    """NumPy's diagonal, writable where x is."""
    z = x.diagonal(offset, dim1, dim2)
    if isinstance(z, np.ndarray) and x.flags.writeable:
        z.setflags(write=True)
    return z


view, flatten, squeeze, unsqueeze = View.apply, Flatten.apply, Squeeze.apply, Unsqueeze.apply
transpose, movedim, broadcast_to, expand_as = Transpose.apply, Movedim.apply, BroadcastTo.apply, ExpandAs.apply
repeat, flip, roll, tril, triu, pad = Repeat.apply, Flip.apply, Roll.apply, Tril.apply, Triu.apply, Pad.apply
diagonal, diagonal_scatter = Diagonal.apply, DiagonalScatter.apply
