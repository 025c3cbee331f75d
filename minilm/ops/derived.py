"""Operations that are one or two lines in others, under the names by which PyTorch's programs call them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minilm.device import array_module
from minilm.errors import ShapeError
from minilm.ops.arrange import diagonal, diagonal_scatter, transpose, unsqueeze, view
from minilm.ops.indexing import getitem, index_put
from minilm.ops.joining import chunk
from minilm.ops.matmul import bmm, mm
from minilm.ops.pointwise import cos, sigmoid, sin
from minilm.ops.reduction import norm, sum  # noqa: A004
from minilm.ops.registry import Composite, options, sample
from minilm.ops.selection import abs, clamp, isinf, isnan, le, logical_and, logical_not, ne  # noqa: A004
from minilm.ops.selection import eq as equals
from minilm.ops.shape import _axis, expand, permute, reshape

SHAPE = "(...) -> (?)"


# --- arithmetic -----------------------------------------------------------------------------------


class Lerp(Composite, shapes="(...), (...), (...) -> (...)", inplace=True):
    """z = x + weight (end - x): a straight line from x at weight 0 to end at weight 1"""

    def definition(x, end, weight):
        return x + weight * (end - x)


class Addmm(Composite, shapes="(...), (N, K), (K, M) -> (N, M)"):
    """z = beta x + alpha a b, a product of matrices and what it is added to"""

    samples = [sample((2, 5), (2, 3), (3, 5), beta=0.5, alpha=2.0), sample((5,), (2, 3), (3, 5))]

    def definition(x, a, b, beta=1, alpha=1):
        return _scaled(x, beta) + _scaled(mm(a, b), alpha)

    def torch(torch, x, a, b, beta=1, alpha=1):
        return torch.addmm(x, a, b, beta=beta, alpha=alpha)


class Baddbmm(Composite, shapes="(...), (B, N, K), (B, K, M) -> (B, N, M)"):
    """z_b = beta x_b + alpha a_b c_b for each of B pairs of matrices"""

    samples = [sample((7, 2, 5), (7, 2, 3), (7, 3, 5), beta=0.5, alpha=2.0), sample((2, 5), (7, 2, 3), (7, 3, 5))]

    def definition(x, a, b, beta=1, alpha=1):
        return _scaled(x, beta) + _scaled(bmm(a, b), alpha)

    def torch(torch, x, a, b, beta=1, alpha=1):
        return torch.baddbmm(x, a, b, beta=beta, alpha=alpha)


def _scaled(x: Any, factor: Any) -> Any:
    return x if isinstance(factor, (int, float)) and factor == 1 else x * factor


class Tan(Composite, shapes="(...) -> (...)"):
    """z = sin x / cos x"""

    domain = "unit"

    def definition(x):
        return sin(x) / cos(x)


class Addcmul(Composite, shapes="(...), (...), (...) -> (...)", inplace=True):
    """z = x + value a b"""

    samples = options(value=[1, 0.3])

    def definition(x, a, b, value=1):
        return x + _scaled(a * b, value)

    def torch(torch, x, a, b, value=1):
        return torch.addcmul(x, a, b, value=value)


class Addcdiv(Composite, shapes="(...), (...), (...) -> (...)", inplace=True):
    """z = x + value a / b"""

    domain = ("normal", "normal", "nonzero")
    samples = options(value=[1, 0.3])

    def definition(x, a, b, value=1):
        return x + _scaled(a / b, value)

    def torch(torch, x, a, b, value=1):
        return torch.addcdiv(x, a, b, value=value)


class Glu(Composite, shapes="(...) -> (?)", method=False):
    """z = a s(b) with the sigmoid s, where a and b are the halves of x along `dim`

    Source: Dauphin, Fan, Auli & Grangier 2017, equation 1. Errors: ShapeError for an odd axis.
    """

    samples = [sample((2, 6)), sample((4, 3), dim=0)]

    def definition(x, dim=-1):
        axis = _axis("glu", dim, len(x.shape))
        if not x.shape or x.shape[axis] % 2:
            raise ShapeError(f"glu: axis {dim} of {tuple(x.shape)} has no halves")
        a, b = chunk(x, 2, axis)
        return a * sigmoid(b)

    def torch(torch, x, dim=-1):
        return torch.nn.functional.glu(x, dim)


class ClampMin(Composite, shapes="(...) -> (...)", smooth=False, inplace=True):
    """z = x, but at least `min`"""

    domain = "distinct"
    samples = options(min=[-0.31])

    def definition(x, min):
        return clamp(x, min)


class ClampMax(Composite, shapes="(...) -> (...)", smooth=False, inplace=True):
    """z = x, but at most `max`"""

    domain = "distinct"
    samples = options(max=[0.53])

    def definition(x, max):
        return clamp(x, None, max)


class Trace(Composite, shapes="(N, M) -> ()"):
    """z = the sum of the diagonal"""

    def definition(x):
        return sum(diagonal(x))


class Normalize(Composite, shapes=SHAPE, method=False):
    """z = x / max(|x|_p, eps) along `dim`: rows of length 1"""

    samples = [sample((2, 3, 5)), sample((2, 3, 5), p=1.0, dim=-1), sample((3, 5), dim=0, eps=2.5)]

    def definition(x, p=2.0, dim=1, eps=1e-12):
        return x / clamp(norm(x, p, dim, True), eps)

    def torch(torch, x, p=2.0, dim=1, eps=1e-12):
        return torch.nn.functional.normalize(x, p, dim, eps)


class CosineSimilarity(Composite, shapes="(...), (...) -> (?)", method=False):
    """z = x y / (max(|x|, eps) max(|y|, eps)) along `dim`: the cosine of the angle between two rows"""

    samples = [
        sample((2, 3, 5), (2, 3, 5)),
        sample((2, 3, 5), (5,), dim=-1),
        sample((2, 3, 5), (2, 3, 1), dim=1),
        sample((3, 5), (2, 3, 5), dim=1),
    ]

    def definition(x, y, dim=1, eps=1e-8):
        shape = np.broadcast_shapes(x.shape, y.shape)
        x, y = expand(x, shape), expand(y, shape)
        return sum(x / clamp(norm(x, 2, dim, True), eps) * (y / clamp(norm(y, 2, dim, True), eps)), dim)

    def torch(torch, x, y, dim=1, eps=1e-8):
        return torch.nn.functional.cosine_similarity(x, y, dim, eps)


# --- truth ----------------------------------------------------------------------------------------


class LogicalXor(Composite, shapes="(...), (...) -> (...)", differentiable=False):
    """z = whether just one of x and y is true, where 0 is false"""

    domain = "bool"

    def definition(x, y):
        return ne(ne(x, 0), ne(y, 0))


class CountNonzero(Composite, shapes=SHAPE, differentiable=False):
    """z = how many elements are not 0, along `dim`"""

    samples = options(dim=[None, 0, -1])

    def definition(x, dim=None):
        return sum(ne(x, 0), dim)

    def torch(torch, x, dim=None):
        return torch.count_nonzero(x.detach(), dim)


class Isclose(Composite, shapes="(...), (...) -> (...)", differentiable=False):
    """z = (|x - y| <= atol + rtol |y|)"""

    samples = options(rtol=[1e-5, 0.5], atol=[1e-8, 0.3])

    def definition(x, y, rtol=1e-5, atol=1e-8, equal_nan=False):
        near = le(abs(x - y), abs(y) * rtol + atol)
        near = equals(x, y) | logical_and(near, logical_not(isinf(y)))
        return near | logical_and(isnan(x), isnan(y)) if equal_nan else near

    def torch(torch, x, y, rtol=1e-5, atol=1e-8):
        return torch.isclose(x.detach(), y.detach(), rtol, atol)


# --- shapes ---------------------------------------------------------------------------------------


class T(Composite, shapes=SHAPE, name="t"):
    """The transpose of a matrix; a vector as it is."""

    samples = [sample((2, 3)), sample((3,))]

    def definition(x):
        if len(x.shape) > 2:
            raise ShapeError(f"t: a matrix was expected, not {tuple(x.shape)}; transpose(-2, -1) exchanges two axes")
        return permute(x, tuple(range(len(x.shape)))[::-1])


class Swapaxes(Composite, shapes=SHAPE):
    """`transpose` by NumPy's name: the axes axis0 and axis1 exchanged."""

    samples = [sample((2, 3, 5), axis0=0, axis1=-1)]

    def definition(x, axis0, axis1):
        return transpose(x, axis0, axis1)


class ViewAs(Composite, shapes="(?), (?) -> (?)", constants=("other",)):
    """x as a view in the shape of `other`."""

    samples = [sample((2, 3), (2, 1, 3))]  # what is a view in any layout

    def definition(x, other):
        return view(x, other.shape)

    def torch(torch, x, other):
        return x.view_as(other)


class ReshapeAs(Composite, shapes="(?), (?) -> (?)", constants=("other",)):
    """x in the shape of `other`."""

    samples = [sample((2, 3), (3, 2))]

    def definition(x, other):
        return reshape(x, other.shape)

    def torch(torch, x, other):
        return x.reshape_as(other)


class Unflatten(Composite, shapes=SHAPE):
    """The axis `dim` as several of `sizes`, one of which may be -1."""

    samples = [sample((2, 6), dim=1, sizes=(2, 3)), sample((6, 5), dim=0, sizes=(-1, 2))]

    def definition(x, dim, sizes):
        axis = _axis("unflatten", dim, len(x.shape))
        sizes, size = tuple(sizes), x.shape[axis]
        known = math.prod(n for n in sizes if n != -1)
        if sizes.count(-1) > 1 or (size % known if -1 in sizes and known else size != known):
            raise ShapeError(f"unflatten: axis {dim} of {tuple(x.shape)} has {size} elements, which do not fit {sizes}")
        sizes = tuple(size // known if n == -1 else n for n in sizes)
        return reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))

    def torch(torch, x, dim, sizes):
        return torch.unflatten(x, dim, sizes)


class Narrow(Composite, shapes=SHAPE):
    """`length` slices along `dim`, from `start` on; a view."""

    samples = [sample((2, 5), dim=1, start=1, length=3), sample((5, 2), dim=0, start=-2, length=2)]

    def definition(x, dim, start, length):
        axis = _axis("narrow", dim, len(x.shape))
        first = start + x.shape[axis] if start < 0 else start
        if not 0 <= first <= first + length <= x.shape[axis]:
            raise ShapeError(f"narrow: axis {dim} of {tuple(x.shape)} has no {length} slices from {start} on")
        return getitem(x, (*(slice(None),) * axis, slice(first, first + length)))

    def torch(torch, x, dim, start, length):
        return torch.narrow(x, dim, start, length)


class Select(Composite, shapes=SHAPE):
    """The slice number `index` along `dim`, without that axis; a view."""

    samples = [sample((2, 5), dim=1, index=-1), sample((2, 3, 5), dim=0, index=1)]

    def definition(x, dim, index):
        return getitem(x, (*(slice(None),) * _axis("select", dim, len(x.shape)), index))

    def torch(torch, x, dim, index):
        return torch.select(x, dim, index)


class Tile(Composite, shapes=SHAPE, spread=True):
    """The whole of x repeated along each axis, as `repeat` does; fewer numbers than axes mean the last axes."""

    samples = [sample((2, 3), dims=(2,)), sample((2, 3), dims=(2, 1, 3))]

    def definition(x, dims):
        dims = (dims,) if isinstance(dims, int) else tuple(dims)
        dims = (1,) * (len(x.shape) - len(dims)) + dims
        shape = (1,) * (len(dims) - len(x.shape)) + tuple(x.shape)
        between = reshape(x, tuple(n for size in shape for n in (1, size)))
        wide = expand(between, tuple(n for times, size in zip(dims, shape) for n in (times, size)))
        return reshape(wide, tuple(times * size for times, size in zip(dims, shape)))

    def torch(torch, x, dims):
        return torch.tile(x, dims)


class RepeatInterleave(Composite, shapes=SHAPE):
    """Each slice along `dim` repeated in place: `repeats` times, or as often as a tensor (N) says for each.

    Without `dim` the elements in their order.
    """

    samples = [sample((2, 3), repeats=2), sample((2, 3), repeats=3, dim=1), sample((2, 3), repeats=2, dim=0)]

    def definition(x, repeats, dim=None, output_size=None):
        if dim is None:
            x, dim = reshape(x, (-1,)), 0
        axis = _axis("repeat_interleave", dim, len(x.shape))
        if not isinstance(repeats, int):
            counts = np.asarray(getattr(repeats, "array", repeats))
            return getitem(x, (*(slice(None),) * axis, np.repeat(np.arange(x.shape[axis]), counts)))
        wide = unsqueeze(x, axis + 1)
        wide = expand(wide, (*x.shape[: axis + 1], repeats, *x.shape[axis + 1 :]))
        return reshape(wide, (*x.shape[:axis], x.shape[axis] * repeats, *x.shape[axis + 1 :]))

    def torch(torch, x, repeats, dim=None):
        return torch.repeat_interleave(x, repeats, dim)


class Diag(Composite, shapes=SHAPE):
    """Of a vector the matrix with it on the diagonal; of a matrix its diagonal."""

    samples = [sample((3,)), sample((3,), diagonal=-1), sample((3, 5)), sample((3, 5), diagonal=1)]

    def definition(x, diagonal=0):
        if len(x.shape) == 2:
            return _diagonal(x, diagonal)
        if len(x.shape) != 1:
            raise ShapeError(f"diag: a vector or a matrix was expected, not {tuple(x.shape)}")
        size = x.shape[0] + np.abs(diagonal)
        return diagonal_scatter(x, (int(size), int(size)), diagonal)

    def torch(torch, x, diagonal=0):
        return torch.diag(x, diagonal)


_diagonal = diagonal  # which is an option's name above


class IndexFill(Composite, shapes="(...), (N) -> (...)", constants=("index",), method=False):
    """x with the slices along `dim` at the positions in `index` (N) set to `value`."""

    domain = ("normal", "index:2")
    samples = [sample((3, 5), (2,), dim=0, value=-1.5), sample((3, 5), (3,), dim=-1, value=2.0)]

    def definition(x, index, dim, value):
        return index_put(x, value, (*(slice(None),) * _axis("index_fill", dim, len(x.shape)), index))

    def torch(torch, x, index, dim, value):
        return torch.index_fill(x, dim, index, value)


def index_fill(x: Any, dim: int, index: Any, value: float) -> Any:
    """x with the slices along `dim` at the positions in `index` (N) set to `value`."""
    return IndexFill.apply(x, index, dim, value)


def unique(x: Any, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False) -> Any:
    """The different elements of x in rising order, (N); with where each element of x went and how often it occurs."""
    from minilm.tensor import Tensor

    array = x.array
    values, inverse, counts = array_module(array).unique(array, return_inverse=True, return_counts=True)
    results = [values, inverse.reshape(array.shape), counts]
    found = tuple(Tensor(r) for r, wanted in zip(results, (True, return_inverse, return_counts)) if wanted)
    return found if len(found) > 1 else found[0]


def bincount(x: Any, weights: Any = None, minlength: int = 0) -> Any:
    """How often each of 0, 1, ... occurs in x (N), or the sum of its weights. Errors: ValueError below 0."""
    from minilm.tensor import Tensor

    given = None if weights is None else weights.array
    return Tensor(array_module(x.array).bincount(x.array, given, minlength))


addcmul, addcdiv, glu, tan = Addcmul.apply, Addcdiv.apply, Glu.apply, Tan.apply
lerp, addmm, baddbmm, trace = Lerp.apply, Addmm.apply, Baddbmm.apply, Trace.apply
clamp_min, clamp_max = ClampMin.apply, ClampMax.apply
normalize, cosine_similarity = Normalize.apply, CosineSimilarity.apply
logical_xor, count_nonzero, isclose = LogicalXor.apply, CountNonzero.apply, Isclose.apply
t, swapaxes, view_as, reshape_as, unflatten = T.apply, Swapaxes.apply, ViewAs.apply, ReshapeAs.apply, Unflatten.apply
narrow, select, tile, repeat_interleave, diag = (
    Narrow.apply, Select.apply, Tile.apply, RepeatInterleave.apply, Diag.apply
)  # fmt: skip
