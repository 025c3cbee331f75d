"""Several tensors made one, and one made several."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import kernels
from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.kernels.constants import held_now
from minilm.modes import state
from minilm.ops.arrange import pad, transpose, unsqueeze
from minilm.ops.call import numpy_names
from minilm.ops.registry import Composite, Primitive, sample
from minilm.ops.shape import _axis, expand, reshape
from minilm.tensor import Tensor


class Cat(Primitive, shapes="(?)* -> (?)", method=False):
    """The inputs one after the other along `dim`; the other axes agree.

    Errors: ShapeError with the two shapes that do not.
    """

    samples = [sample((2, 3), (5, 3), dim=0), sample((2, 3), (2, 1), (2, 0), dim=-1), sample((7,), dim=0)]

    def forward(ctx, *xs, dim=0):
        axis = _axis("cat", dim, xs[0].ndim)
        for x in xs[1:]:
            if x.ndim != xs[0].ndim or any(a != b for i, (a, b) in enumerate(zip(x.shape, xs[0].shape)) if i != axis):
                raise ShapeError(f"cat: {xs[0].shape} and {x.shape} differ elsewhere than along axis {dim}")
        sizes = [x.shape[axis] for x in xs]
        ctx.axis, ctx.sizes = axis, sizes
        xp, first = array_module(xs[0]), xs[0]
        if xp is not np:
            return xp.concatenate(xs, axis)
        shape = (*first.shape[:axis], sum(sizes), *first.shape[axis + 1 :])
        return np.concatenate(xs, axis, out=kernels.empty(shape, first.dtype))

    def backward(ctx, dz):
        return tuple(split(dz, ctx.sizes, ctx.axis))

    def torch(torch, *xs, dim=0):
        return torch.cat(xs, dim)


class Stack(Composite, shapes="(?)* -> (?)", method=False):
    """The inputs, all of one shape, along a new axis `dim`."""

    samples = [sample((2, 3), (2, 3), dim=0), sample((2, 3), (2, 3), (2, 3), dim=-1), sample((), (), dim=0)]

    def definition(*xs, dim=0):
        for x in xs[1:]:
            if x.shape != xs[0].shape:
                raise ShapeError(f"stack: the shapes {xs[0].shape} and {x.shape} differ")
        return Cat.apply(*[unsqueeze(x, dim) for x in xs], dim=dim)

    def torch(torch, *xs, dim=0):
        return torch.stack(xs, dim)


def _at(axis: int, part: Any) -> Any:
    """The index that takes `part` of one axis; `...` makes it a view even of a single element."""
    return (*(slice(None),) * axis, part, ...)


def joined(parts: list[Tensor]) -> Tensor:
    """cat(parts) of parameters; made once while all of them are `Constants`, and one of these itself."""
    held = None if state.recording else held_now()
    if held is None:
        return Cat.apply(*parts)
    name = tuple([id(part.array) for part in parts])
    kept = held.get(name)
    if kept is None:
        kept = Cat.apply(*parts)
        if all(number in held for number in name):
            kept = held.setdefault(name, kept)  # the first one stays, should several threads come here
            held.setdefault(id(kept.array))
    return kept


class Split(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True):
    """Pieces of `split_size` along `dim` (the last may be shorter), or of the sizes in a list; views.

    Errors: ShapeError if listed sizes do not add up.
    """

    samples = [
        sample((2, 5), split_size=2, dim=1),
        sample((5, 3), split_size=[1, 4], dim=0),
        sample((2, 6), split_size=3, dim=-1),
    ]

    def forward(ctx, x, split_size, dim=0):
        ctx.axis = axis = _axis("split", dim, x.ndim)
        size = x.shape[axis]
        if isinstance(split_size, (list, tuple)):
            sizes = list(split_size)
        else:
            if split_size < 1:
                raise ShapeError(f"split: pieces of size {split_size} were asked for")
            sizes = [min(split_size, size - at) for at in range(0, size, split_size)] or [0]
        if sum(sizes) != size or min(sizes) < 0:
            raise ShapeError(f"split: the sizes {sizes} add up to {sum(sizes)}, axis {dim} of {x.shape} has {size}")
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return tuple(x[_at(axis, slice(end - n, end))] for n, end in zip(sizes, ends))

    def backward(ctx, *dz):
        return Cat.apply(*dz, dim=ctx.axis)

    def torch(torch, x, split_size, dim=0):
        return torch.split(x, split_size, dim)


class Unbind(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True):
    """The slices along `dim`, without that axis; views."""

    samples = [sample((2, 3), dim=0), sample((2, 3, 5), dim=-1)]

    def forward(ctx, x, dim=0):
        ctx.axis = axis = _axis("unbind", dim, x.ndim)
        return tuple(x[_at(axis, i)] for i in range(x.shape[axis]))

    def backward(ctx, *dz):
        return Stack.apply(*dz, dim=ctx.axis)


class Chunk(Composite, shapes="(...) -> (?)"):
    """At most `chunks` pieces of equal size along `dim`, the last perhaps shorter; of size 0, `chunks`."""

    samples = [sample((2, 6), chunks=3, dim=1), sample((7, 2), chunks=3, dim=0), sample((2, 5), chunks=4, dim=-1)]

    def definition(x, chunks, dim=0):
        if chunks < 1:
            raise ShapeError(f"chunk: {chunks} pieces were asked for")
        size = x.shape[_axis("chunk", dim, len(x.shape))]
        return split(x, -(-size // chunks) if size else [0] * chunks, dim)


split, unbind, chunk = Split.apply, Unbind.apply, Chunk.apply


@numpy_names
def cat(tensors: Any, dim: int = 0) -> Any:
    """The tensors one after the other along `dim`. Errors: ShapeError for an empty list or shapes that differ."""
    if not tensors:
        raise ShapeError("cat: the list of tensors is empty")
    return Cat.apply(*tensors, dim=dim)


@numpy_names
def stack(tensors: Any, dim: int = 0) -> Any:
    """The tensors, all of one shape, along a new axis `dim`. Errors: as `cat`."""
    if not tensors:
        raise ShapeError("stack: the list of tensors is empty")
    return Stack.apply(*tensors, dim=dim)


def hstack(tensors: Any) -> Any:
    """The tensors side by side: `cat` along axis 1, of vectors along their only one."""
    return cat(tensors, 0 if len(tensors[0].shape) <= 1 else 1)


def vstack(tensors: Any) -> Any:
    """The tensors below each other: `cat` along axis 0, with vectors as rows."""
    return cat([unsqueeze(x, 0) if len(x.shape) == 1 else x for x in tensors])


def meshgrid(*tensors: Any, indexing: str = "ij") -> Any:
    """A grid of the points that N vectors span: N tensors, the i-th with the i-th coordinate of each point.

    Args:
        indexing: "ij": the i-th vector along axis i; "xy": the first two axes exchanged, as pictures have them.
    """
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    if indexing not in ("ij", "xy"):
        raise ShapeError(f"meshgrid: indexing is 'ij' or 'xy', not {indexing!r}")
    sizes, grid = tuple(len(x) for x in tensors), []
    for axis, x in enumerate(tensors):
        wide = expand(reshape(x, (1,) * axis + (-1,) + (1,) * (len(sizes) - axis - 1)), sizes)
        grid.append(transpose(wide, 0, 1) if indexing == "xy" and len(sizes) > 1 else wide)
    return tuple(grid)


def pad_sequence(sequences: Any, batch_first: bool = False, padding_value: float = 0.0) -> Any:
    """Sequences (T_i, ...) of different lengths as one batch, filled up at the ends: (T, B, ...) or (B, T, ...)."""
    if not len(sequences):
        raise ShapeError("pad_sequence: the list of sequences is empty")
    longest = max(x.shape[0] for x in sequences)
    ends = [pad(x, (0, 0) * (len(x.shape) - 1) + (0, longest - x.shape[0]), value=padding_value) for x in sequences]
    return stack(ends, 0 if batch_first else 1)
