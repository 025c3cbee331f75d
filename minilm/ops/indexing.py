"""Elements by their positions: `x[...]` in all its forms, gather and scatter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm import kernels
from minilm.device import array_module
from minilm.errors import DtypeError, ShapeError
from minilm.modes import state
from minilm.ops.inplace import Copy, _broadcasts_to, check_writable, overwrite
from minilm.ops.registry import Composite, Primitive, sample
from minilm.ops.shape import _axis, expand, reshape
from minilm.tensor import Tensor

Index = Any


# --- x[index] -------------------------------------------------------------------------------------


def _plain_index(index: Index) -> Index:
    """The index in NumPy's terms: Tensors and lists in it become arrays."""
    if isinstance(index, tuple):
        return tuple(_plain_index(part) for part in index)
    if isinstance(index, Tensor):
        index = index.array
    if isinstance(index, list):
        index = np.asarray([_plain_index(part) for part in index] or np.zeros(0, np.int64))
    if hasattr(index, "dtype") and index.dtype.kind not in "iub":
        raise IndexError(f"an index must be integers or bools, not {index.dtype}")
    return index.item() if getattr(index, "ndim", None) == 0 and index.dtype.kind in "iu" else index


def _is_basic(index: Index) -> bool:
    """True for integers, slices, None and `...`: what NumPy answers with a view."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None
        or part is ...
        or isinstance(part, slice)
        or (isinstance(part, (int, np.integer)) and not isinstance(part, bool))
        for part in parts
    )


def _as_view(index: Index) -> Index:
    """A basic index that gives a view even of a single element (NumPy would give a scalar)."""
    parts = index if isinstance(index, tuple) else (index,)
    return parts if any(part is ... for part in parts) else (*parts, ...)


def _integers_first(x: Any, index: Index) -> tuple[Any, Index]:
    """An index with arrays as PyTorch reads it, for NumPy: a view of x, and the index into that.

    In x[0, :, [1, 2]] the array's axis stays where it is. NumPy counts the integer among the arrays, and because of the
    slice between them moves their axis to the front; so the view is x at the integers. For NumPy `...` stands between
    arrays even where it covers no axis; so it becomes the slices that it stands for.
    """
    parts = index if isinstance(index, tuple) else (index,)
    taken = [0 if part is None or part is ... else _axes_of(part) for part in parts]
    dots = [place for place, part in enumerate(parts) if part is ...]
    if len(dots) == 1 and (missing := x.ndim - sum(taken)) >= 0:
        parts = (*parts[: dots[0]], *[slice(None)] * missing, *parts[dots[0] + 1 :])
    if not any(_is_integer(part) for part in parts):
        return x, parts
    view: list[Any] = []
    rest: list[Any] = []
    for part in parts:
        if _is_integer(part):
            view.append(part)
        elif part is None or part is ... or isinstance(part, slice):
            view.append(part)
            rest.append(part if part is ... else slice(None))
        else:
            view += [slice(None)] * _axes_of(part)
            rest.append(part)
    return x[tuple(view)], tuple(rest)


def _axes_of(part: Any) -> int:
    """How many axes an integer, a slice or an array stands for: a mask for as many as it has."""
    return np.ndim(part) if not isinstance(part, slice) and np.asarray(part).dtype == bool else 1


def _is_integer(part: Any) -> bool:
    return isinstance(part, (int, np.integer)) and not isinstance(part, bool)


class Getitem(Primitive, shapes="(...) -> (?)", dtypes="keep", view=True, method=False):
    """z = x[index]: integers, slices, `...`, None (views); booleans, integer arrays, mixtures (copies).

    Errors: IndexError for a position that is not there.
    """

    samples = [
        sample((2, 3, 5), index=1),
        sample((2, 3, 5), index=(slice(None), -1)),
        sample((2, 3, 5), index=(..., slice(0, 5, 2))),
        sample((2, 3, 5), index=(None, 0, ..., None)),
        sample((5, 3), index=np.array([4, 0, 4])),
        sample((5, 3), index=(slice(1, 4), np.array([[2], [0]]))),
        sample((2, 3, 5), index=(np.array([1, 0]), slice(None), np.array([4, 4]))),
        sample((2, 3), index=np.array([[True, False, True], [False, False, True]])),
        sample((3, 2), index=np.array([False, True, True])),
    ]

    def forward(ctx, x, index):
        index = _plain_index(index)
        ctx.shape, ctx.index = x.shape, index
        if _is_basic(index):
            return x[_as_view(index)]
        part, rest = _integers_first(x, index)
        return part[rest]

    def backward(ctx, dz):
        return index_scatter(dz, ctx.index, ctx.shape)

    def torch(torch, x, index):
        parts = index if isinstance(index, tuple) else (index,)
        return x[parts]


class IndexScatter(Primitive, shapes="(...) -> (?)", dtypes="keep", method=False):
    """z = zeros of `shape`, with x added at `index`; a position that occurs twice gets both.

    It is what `getitem` takes out put back, and getitem is its gradient in turn.
    """

    samples = [
        sample((3,), index=np.array([4, 0, 4]), shape=(5,)),
        sample((2, 5), index=(slice(None), -1), shape=(2, 3, 5)),
    ]

    def forward(ctx, x, index, shape):
        ctx.index = index = _plain_index(index)
        xp = array_module(x)
        if not _is_basic(index) and getattr(index, "dtype", None) is not None and index.dtype.kind in "iu":
            return _scatter_rows(x, index, shape)
        z = xp.zeros(shape, x.dtype)
        if not _is_basic(index):
            part, rest = _integers_first(z, index)
            xp.add.at(part, rest, x)
            return z
        z[_as_view(index)] = x
        return z

    def backward(ctx, dz):
        return getitem(dz, ctx.index)

    def torch(torch, x, index, shape):
        parts = index if isinstance(index, tuple) else (index,)
        z = torch.zeros(shape, dtype=x.dtype)
        if all(torch.is_tensor(p) for p in parts):
            return z.index_put(parts, x, accumulate=True)
        z[index] = x
        return z


def _scatter_rows(x, index, shape):
    """The common case of an embedding: one array of row numbers."""
    inner = tuple(shape[1:])
    rows = x.reshape(index.size, math.prod(inner))
    return kernels.scatter_rows(rows, index.reshape(-1) % max(shape[0], 1), shape[0]).reshape(shape)


class IndexPut(Primitive, shapes="(?), (?) -> (?)", method=False):
    """z = x, but `value` (broadcast) at `index`; of a position that occurs twice the last value stays."""

    samples = [
        sample((5, 3), (2, 3), index=np.array([4, 0])),
        sample((5, 3), (), index=np.array([4, 0])),
        sample((2, 3), (3,), index=np.array([[True, False, True], [False, False, True]])),
    ]

    def forward(ctx, x, value, index):
        ctx.index = index = _plain_index(index)
        ctx.shape = shape = np.shape(value)
        z = x.copy()
        part, rest = _integers_first(z, index)
        try:
            part[rest] = value
        except ValueError:
            raise ShapeError(f"x[index] = value: a value of shape {shape} does not fit {part[rest].shape}") from None
        return z

    def backward(ctx, dz):
        from minilm.ops.reduction import sum_to_size

        dx = index_put(dz, 0.0, ctx.index) if ctx.needs[0] else None
        return dx, sum_to_size(getitem(dz, ctx.index), ctx.shape) if ctx.needs[1] else None

    def torch(torch, x, value, index):
        return x.index_put((index,), value)


getitem, index_scatter, index_put = Getitem.apply, IndexScatter.apply, IndexPut.apply


def _setitem(self: Tensor, index: Index, value: Any) -> None:
    """x[index] = value, tracked like every in-place change.

    Errors: ShapeError for a value that does not fit, IndexError for a position that is not there,
    AutogradError for a leaf that requires a gradient.
    """
    check_writable(self, "x[index] = value")
    index = _plain_index(index)
    given = value if isinstance(value, Tensor) else Tensor(value, dtype=None if hasattr(value, "dtype") else self.dtype)
    given = given.to(self.dtype)
    if given.ndim and given.shape[0] == 1:
        # axes of size 1 in front beyond the target's are no misfit; without them the way is the usual one
        given = reshape(given, given.shape[_leading_ones(given.shape) :])
    if not (state.recording and (self.requires_grad or given.requires_grad)):
        part, rest = (self.array, index) if _is_basic(index) else _integers_first(self.array, index)
        try:
            part[rest] = given.array
        except ValueError:
            raise ShapeError(
                f"x[index] = value: a value of shape {given.shape} does not fit {part[rest].shape}"
            ) from None
        if self._version is not None:
            self._version.bump("x[index] = value")
    elif _is_basic(index):
        target = getitem(self, index)
        if not _broadcasts_to(given.shape, target.shape):
            raise ShapeError(f"x[index] = value: a value of shape {given.shape} does not fit {target.shape}")
        overwrite(target, Copy.apply(target, given), "x[index] = value")
    else:
        overwrite(self, index_put(self, given, index), "x[index] = value")


def _leading_ones(shape: tuple[int, ...]) -> int:
    return next((at for at, size in enumerate(shape) if size != 1), len(shape))


Tensor.__getitem__ = getitem  # type: ignore[method-assign]
Tensor.__setitem__ = _setitem  # type: ignore[method-assign, assignment]


# --- along one axis -------------------------------------------------------------------------------


def _grid(index: Any, dim: int) -> Index:
    """An index for `x[...]` that picks `index` along `dim` and each element's own position elsewhere."""
    xp = array_module(index)
    return tuple(
        index if axis == dim else xp.arange(size).reshape([-1 if a == axis else 1 for a in range(index.ndim)])
        for axis, size in enumerate(index.shape)
    )


def _indices(name: str, index: Any) -> Any:
    """An index tensor as an array. Errors: DtypeError unless it holds integers."""
    array = index.array if isinstance(index, Tensor) else np.asarray(index)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"{name}: the index must be integers, not {array.dtype}")
    return array


def _along(name: str, x: Any, dim: int, index: Any) -> Index:
    """The grid for gather and scatter, checked against x. Errors: ShapeError, IndexError."""
    array = _indices(name, index)
    axis = _axis(name, dim, len(x.shape))
    if array.ndim != len(x.shape):
        raise ShapeError(f"{name}: the index {array.shape} must have as many axes as x {tuple(x.shape)}")
    if any(n > m for a, (n, m) in enumerate(zip(array.shape, x.shape)) if a != axis):
        raise ShapeError(
            f"{name}: the index {array.shape} reaches beyond x {tuple(x.shape)} elsewhere than along {dim}"
        )
    size = x.shape[axis] if len(x.shape) else 1
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise IndexError(f"{name}: index {array.min()} ... {array.max()} leaves 0 ... {size - 1} of axis {dim}")
    return _grid(array, axis) if array.ndim else ...


class IndexSelect(Composite, shapes="(...), (N) -> (?)", constants=("index",), method=False):
    """The slices of x along `dim` at the positions in `index` (N)."""

    domain = ("normal", "index:2")
    samples = [sample((2, 3, 5), (7,), dim=0), sample((3, 2), (3,), dim=-1)]

    def definition(x, index, dim):
        axis = _axis("index_select", dim, len(x.shape))
        return getitem(x, (*(slice(None),) * axis, _indices("index_select", index)))

    def torch(torch, x, index, dim):
        return torch.index_select(x, dim, index)


class Gather(Composite, shapes="(...), (...) -> (...)", constants=("index",), method=False):
    """z[i][j] = x[i][index[i][j]] for dim = 1, and so on: for each position of `index` one element of x."""

    domain = ("normal", "index:2")
    samples = [sample((2, 3), (2, 7), dim=1), sample((2, 3, 5), (2, 2, 5), dim=-2), sample((2, 3), (5, 2), dim=0)]

    def definition(x, index, dim):
        return getitem(x, _along("gather", x, dim, index))

    def torch(torch, x, index, dim):
        return torch.gather(x, dim, index)


class ScatterAdd(Composite, shapes="(...), (...), (...) -> (...)", constants=("index",), method=False):
    """z = x, with src[i][j] added at z[i][index[i][j]] for dim = 1, and so on."""

    domain = ("normal", "index:2", "normal")
    samples = [sample((2, 3), (2, 7), (2, 7), dim=1), sample((2, 3, 5), (2, 2, 3), (2, 2, 3), dim=1)]

    def definition(x, index, src, dim):
        grid = _along("scatter_add", x, dim, index)
        return x + index_scatter(_first(src, index), grid, tuple(x.shape))

    def torch(torch, x, index, src, dim):
        return torch.scatter_add(x, dim, index, src)


class Scatter(Composite, shapes="(...), (...), (...) -> (...)", constants=("index",), method=False):
    """z = x, with src[i][j] written to z[i][index[i][j]] for dim = 1, and so on; src may be a number."""

    domain = ("normal", "index:2", "normal")
    samples = [sample((3, 2), (1, 2), (1, 2), dim=0), sample((3, 5), (3, 1), (3, 1), dim=-1)]

    def definition(x, index, src, dim):
        grid = _along("scatter", x, dim, index)
        return index_put(x, _first(src, index) if hasattr(src, "shape") else src, grid)

    def torch(torch, x, index, src, dim):
        return torch.scatter(x, dim, index, src)


def _first(src: Any, index: Any) -> Any:
    """The part of `src` that `index` covers."""
    if any(n > m for n, m in zip(index.shape, src.shape)):
        raise ShapeError(f"scatter: the index {tuple(index.shape)} reaches beyond src {tuple(src.shape)}")
    return getitem(src, tuple(slice(0, n) for n in index.shape))


class IndexAdd(Composite, shapes="(...), (N), (...) -> (...)", constants=("index",), method=False):
    """z = x, with alpha times the slices of `source` along `dim` added at the positions in `index` (N)."""

    domain = ("normal", "index:2", "normal")
    samples = [sample((2, 3), (5,), (5, 3), dim=0), sample((3, 2), (3,), (3, 3), dim=-1)]

    def definition(x, index, source, dim, alpha=1):
        axis = _axis("index_add", dim, len(x.shape))
        where = (*(slice(None),) * axis, _indices("index_add", index))
        return x + index_scatter(source if alpha == 1 else source * alpha, where, tuple(x.shape))

    def torch(torch, x, index, source, dim, alpha=1):
        return torch.index_add(x, dim, index, source, alpha=alpha)


class TakeAlongDim(Composite, shapes="(...), (...) -> (...)", constants=("indices",)):
    """`gather` of x and an index that broadcast: NumPy's take_along_axis; without `dim`, of the flattened x."""

    domain = ("normal", "index:2")
    samples = [sample((2, 3), (2, 7), dim=1), sample((2, 3), (1, 3), dim=0), sample((2, 3), (5,))]

    def definition(x, indices, dim=None):
        array = _indices("take_along_dim", indices)
        if dim is None:
            return getitem(reshape(x, (-1,)), array.reshape(-1))
        axis = _axis("take_along_dim", dim, len(x.shape))
        other = np.broadcast_shapes(
            *(tuple(1 if a == axis else n for a, n in enumerate(shape)) for shape in (array.shape, tuple(x.shape)))
        )
        whole, grid = ((*other[:axis], size, *other[axis + 1 :]) for size in (x.shape[axis], array.shape[axis]))
        return getitem(x if tuple(x.shape) == whole else expand(x, whole), _grid(np.broadcast_to(array, grid), axis))


class MaskedSelect(Composite, shapes="(...), (...) -> (?)", constants=("mask",)):
    """The elements where the mask holds, in one row."""

    domain = ("normal", "bool")
    samples = [sample((2, 3), (2, 3)), sample((2, 3), (3,))]

    def definition(x, mask):
        array = mask.array if isinstance(mask, Tensor) else mask
        if array.dtype != bool:
            raise DtypeError(f"masked_select: the mask must be boolean, and this one is {array.dtype}")
        from minilm.ops.shape import expand

        shape = np.broadcast_shapes(tuple(x.shape), array.shape)
        return getitem(expand(x, shape), np.broadcast_to(array, shape))


class Nonzero(Primitive, shapes="(...) -> (?)", dtypes="keep", differentiable=False):
    """The positions of what is not 0, one row (ndim) each."""

    domain = "bool"

    def forward(ctx, x):
        return array_module(x).argwhere(x)


class OneHot(Primitive, shapes="(...) -> (?)", dtypes="keep", differentiable=False, method=False):
    """Rows of `num_classes` zeros with a 1 at each index: (...) to (..., num_classes), int64.

    Errors: DtypeError unless x holds integers; ShapeError for an index outside 0 ... num_classes - 1.
    """

    domain = "index:3"
    samples = [sample((2, 3), num_classes=5), sample((7,), num_classes=3)]

    def forward(ctx, x, num_classes=-1):
        if x.dtype.kind not in "iu":
            raise DtypeError(f"one_hot: indices must be integers, not {x.dtype}")
        if num_classes == -1 and not x.size:
            raise ShapeError("one_hot: with no indices the number of classes must be given")
        xp = array_module(x)
        classes = int(x.max()) + 1 if num_classes == -1 else num_classes
        if x.size and not (x.min() >= 0 and x.max() < classes):
            raise ShapeError(f"one_hot: index {x.min()} ... {x.max()} leaves 0 ... {classes - 1}")
        return (x[..., None] == xp.arange(classes)).astype(np.int64)


take_along_dim, masked_select = TakeAlongDim.apply, MaskedSelect.apply
nonzero, one_hot = Nonzero.apply, OneHot.apply


# --- with the axis second, as PyTorch has it ----------------------------------------------------------


def index_select(x: Any, dim: int, index: Any) -> Any:
    """The slices of x along `dim` at the positions in `index` (N)."""
    return IndexSelect.apply(x, index, dim)


def gather(x: Any, dim: int, index: Any) -> Any:
    """z[i][j] = x[i][index[i][j]] for dim = 1, and so on. Errors: IndexError for a position that is not there."""
    return Gather.apply(x, index, dim)


def scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    """x with src[i][j] written to z[i][index[i][j]] for dim = 1, and so on; src may be a number."""
    return Scatter.apply(x, index, src, dim)


def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """x with src[i][j] added at z[i][index[i][j]] for dim = 1, and so on."""
    return ScatterAdd.apply(x, index, src, dim)


def index_add(x: Any, dim: int, index: Any, source: Any, alpha: float = 1) -> Any:
    """x with alpha times the slices of `source` along `dim` added at the positions in `index` (N)."""
    return IndexAdd.apply(x, index, source, dim, alpha)
