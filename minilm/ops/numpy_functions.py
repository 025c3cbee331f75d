"""minilm's counterparts of NumPy's functions, under NumPy's conventions; numpy_bridge.py calls them.

Each takes the parameters that it understands, under NumPy's names: what else is given is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minilm import dtypes
from minilm.ops import arrange, indexing, joining, matmul, ordering, pointwise, reduction, selection, shape
from minilm.ops.einsum import einsum
from minilm.tensor import Tensor, wrap

Axis = Any  # None, a number or a tuple of numbers

# Element-wise functions. (`array * t` is np.multiply, `array < t` is np.less, and so on.)
UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: pointwise.add,
    np.subtract: pointwise.sub,
    np.multiply: pointwise.mul,
    np.divide: pointwise.div,
    np.power: pointwise.pow,
    np.remainder: pointwise.remainder,
    np.negative: pointwise.neg,
    np.positive: shape.clone,
    np.reciprocal: lambda x: pointwise.div(1.0, x),
    np.exp: pointwise.exp,
    np.exp2: lambda x: pointwise.exp(x * math.log(2.0)),
    np.expm1: pointwise.expm1,
    np.log: pointwise.log,
    np.log2: lambda x: pointwise.log(x) / math.log(2.0),
    np.log10: lambda x: pointwise.log(x) / math.log(10.0),
    np.log1p: pointwise.log1p,
    np.sqrt: pointwise.sqrt,
    np.square: pointwise.square,
    np.sin: pointwise.sin,
    np.cos: pointwise.cos,
    np.tan: lambda x: pointwise.sin(x) / pointwise.cos(x),
    np.tanh: pointwise.tanh,
    np.matmul: matmul.matmul,
    np.absolute: selection.abs,
    np.fabs: selection.abs,
    np.sign: selection.sign,
    np.floor: selection.floor,
    np.ceil: selection.ceil,
    np.rint: selection.round,
    np.maximum: selection.maximum,
    np.minimum: selection.minimum,
    np.floor_divide: selection.floor_divide,
    np.equal: selection.eq,
    np.not_equal: selection.ne,
    np.less: selection.lt,
    np.less_equal: selection.le,
    np.greater: selection.gt,
    np.greater_equal: selection.ge,
    np.isnan: selection.isnan,
    np.isinf: selection.isinf,
    np.isfinite: selection.isfinite,
    np.logical_and: selection.logical_and,
    np.logical_or: selection.logical_or,
    np.logical_not: selection.logical_not,
    np.bitwise_and: selection.bitwise_and,
    np.bitwise_or: selection.bitwise_or,
    np.bitwise_xor: selection.bitwise_xor,
    np.invert: selection.bitwise_not,
}

# Their results are truths, counts, shapes or text: there is no gradient to lose.
WITHOUT_SLOPE = {
    np.allclose, np.array_equal, np.array_equiv, np.isclose, np.count_nonzero,
    np.shape, np.ndim, np.size, np.iscomplexobj, np.isrealobj, np.result_type, np.can_cast,
    np.shares_memory, np.may_share_memory, np.array_repr, np.array_str, np.array2string,
}  # fmt: skip

FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def _serves(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter what follows as the counterpart of NumPy's `functions`; its parameters are those it understands."""

    def enter(counterpart: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = counterpart
        return counterpart

    return enter


def _tensor(value: Any) -> Tensor:
    """Arrays, lists and numbers as Tensors."""
    return value if isinstance(value, Tensor) else Tensor(value)


def _axes(name: str, axis: Axis) -> Axis:
    """`axis` as a `dim`. Errors: TypeError for (), which means no axis to NumPy and all of them to PyTorch."""
    if isinstance(axis, (tuple, list)) and not axis:
        raise TypeError(f"{name}: axis=() reduces nothing in NumPy and everything in PyTorch; leave the call out")
    return axis


def _floating(a: Any) -> Any:
    """Integers as floats, as NumPy's mean and variance see them."""
    return a if a.dtype.kind == "f" else a.to(dtypes.get_default_dtype())


# --- reducing ------------------------------------------------------------------------------------


@_serves(np.sum)
def _sum(a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    return reduction.sum(a if dtype is None else a.to(dtype), _axes("np.sum", axis), keepdims)


@_serves(np.mean)
def _mean(a: Any, axis: Axis = None, dtype: Any = None, *, keepdims: bool = False) -> Any:
    return reduction.mean(_floating(a) if dtype is None else a.to(dtype), _axes("np.mean", axis), keepdims)


@_serves(np.var)
def _var(a: Any, axis: Axis = None, *, ddof: int = 0, correction: int = 0, keepdims: bool = False) -> Any:
    return reduction.var(_floating(a), _axes("np.var", axis), ddof or correction, keepdims)


@_serves(np.std)
def _std(a: Any, axis: Axis = None, *, ddof: int = 0, correction: int = 0, keepdims: bool = False) -> Any:
    return reduction.std(_floating(a), _axes("np.std", axis), ddof or correction, keepdims)


@_serves(np.max, np.amax)
def _max(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.amax(a, _axes("np.max", axis), keepdims)


@_serves(np.min, np.amin)
def _min(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.amin(a, _axes("np.min", axis), keepdims)


@_serves(np.prod)
def _prod(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    axes = range(a.ndim) if axis is None else _axes("np.prod", axis)
    for one in sorted((d % max(a.ndim, 1) for d in ((axes,) if isinstance(axes, int) else axes)), reverse=True):
        a = reduction.prod(a, one, keepdims)
    return a


@_serves(np.all)
def _all(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.all(a, _axes("np.all", axis), keepdims)


@_serves(np.any)
def _any(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.any(a, _axes("np.any", axis), keepdims)


REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: _sum,
    np.multiply: _prod,
    np.maximum: _max,
    np.minimum: _min,
    np.logical_and: _all,
    np.logical_or: _any,
}


@_serves(np.argmax)
def _argmax(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.argmax(a, axis, keepdims)


@_serves(np.argmin)
def _argmin(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return reduction.argmin(a, axis, keepdims)


@_serves(np.cumsum)
def _cumsum(a: Any, axis: Axis = None) -> Any:
    return reduction.cumsum(shape.reshape(a, (-1,)) if axis is None else a, 0 if axis is None else axis)


@_serves(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Any:
    if ord is not None and (isinstance(axis, tuple) or (axis is None and x.ndim != 1)):
        raise TypeError("np.linalg.norm: norms of matrices are not there; t.norm(p, dim) gives those of vectors")
    return reduction.norm(_floating(x), 2 if ord is None else ord, axis, keepdims)


@_serves(np.trace)
def _trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return reduction.sum(arrange.diagonal(a, offset, axis1, axis2), -1)


# --- arranging -----------------------------------------------------------------------------------


@_serves(np.reshape)
def _reshape(a: Any, shape_: Any = None, *, newshape: Any = None, shape: Any = None) -> Any:
    wanted = next(s for s in (shape_, shape, newshape) if s is not None)
    return arrange.reshape(a, (wanted,) if isinstance(wanted, (int, np.integer)) else tuple(wanted))


@_serves(np.ravel)
def _ravel(a: Any) -> Any:
    return shape.reshape(a, (-1,))


@_serves(np.transpose)
def _transpose(a: Any, axes: Any = None) -> Any:
    return shape.permute(a, tuple(range(a.ndim))[::-1] if axes is None else tuple(axes))


@_serves(np.matrix_transpose)
def _matrix_transpose(x: Any) -> Any:
    return x.mT


@_serves(np.swapaxes)
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return arrange.transpose(a, axis1, axis2)


@_serves(np.moveaxis)
def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    if isinstance(source, int):
        return arrange.movedim(a, source, destination)
    order = [d for d in range(a.ndim) if d not in {s % a.ndim for s in source}]
    for place, one in sorted((d % a.ndim, s % a.ndim) for d, s in zip(destination, source)):
        order.insert(place, one)
    return shape.permute(a, order)


@_serves(np.squeeze)
def _squeeze(a: Any, axis: Axis = None) -> Any:
    axes = () if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if any(a.shape[d] != 1 for d in axes):
        raise ValueError(f"np.squeeze: axis {axis} of {a.shape} has not size 1")
    return arrange.squeeze(a, axis)


@_serves(np.expand_dims)
def _expand_dims(a: Any, axis: Axis) -> Any:
    axes = axis if isinstance(axis, (tuple, list)) else (axis,)
    for one in sorted(d % (a.ndim + len(axes)) for d in axes):
        a = arrange.unsqueeze(a, one)
    return a


@_serves(np.broadcast_to)
def _broadcast_to(array: Any, shape: Any) -> Any:
    return arrange.broadcast_to(array, (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape))


@_serves(np.tile)
def _tile(A: Any, reps: Any) -> Any:
    reps = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    return arrange.repeat(A, (1,) * (A.ndim - len(reps)) + reps)


@_serves(np.flip)
def _flip(m: Any, axis: Axis = None) -> Any:
    return arrange.flip(m, tuple(range(m.ndim)) if axis is None else axis)


@_serves(np.roll)
def _roll(a: Any, shift: Any, axis: Axis = None) -> Any:
    return arrange.roll(a, shift, axis)


@_serves(np.tril)
def _tril(m: Any, k: int = 0) -> Any:
    return arrange.tril(m, k)


@_serves(np.triu)
def _triu(m: Any, k: int = 0) -> Any:
    return arrange.triu(m, k)


@_serves(np.diagonal)
def _diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return arrange.diagonal(a, offset, axis1, axis2)


@_serves(np.pad)
def _pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    if not isinstance(constant_values, (int, float)):
        raise TypeError("np.pad: constant_values must be one number here")
    widths = np.broadcast_to(np.asarray(pad_width, int), (array.ndim, 2))
    return arrange.pad(array, [int(n) for pair in widths[::-1] for n in pair], mode, constant_values)


@_serves(np.copy)
def _copy(a: Any) -> Any:
    return shape.clone(a)


# --- joining and choosing ------------------------------------------------------------------------


@_serves(np.concatenate)
def _concatenate(arrays: Any, axis: Axis = 0) -> Any:
    parts = [_tensor(x) for x in arrays]
    if axis is None:
        return joining.cat([shape.reshape(x, (-1,)) for x in parts])
    return joining.cat(parts, axis)


@_serves(np.stack)
def _stack(arrays: Any, axis: int = 0) -> Any:
    return joining.stack([_tensor(x) for x in arrays], axis)


@_serves(np.vstack)
def _vstack(tup: Any) -> Any:
    return joining.cat([x if x.ndim > 1 else shape.reshape(x, (1, -1)) for x in map(_tensor, tup)], 0)


@_serves(np.hstack)
def _hstack(tup: Any) -> Any:
    parts = [x if x.ndim else shape.reshape(x, (1,)) for x in map(_tensor, tup)]
    return joining.cat(parts, 0 if parts[0].ndim == 1 else 1)


@_serves(np.split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    size = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        if size % indices_or_sections:
            raise ValueError(f"np.split: {size} elements do not make {indices_or_sections} equal parts")
        sizes = [size // int(indices_or_sections)] * int(indices_or_sections)
    else:
        ends = [slice(None, int(i)).indices(size)[1] for i in indices_or_sections]
        starts = [0, *ends]
        sizes = [max(end - start, 0) for start, end in zip(starts, [*ends, size])]
    return list(joining.split(ary, sizes, axis))


@_serves(np.where)
def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        return _nonzero(_tensor(condition))
    condition = _tensor(condition)
    return selection.where(condition if condition.dtype == dtypes.bool_ else selection.ne(condition, 0), x, y)


@_serves(np.nonzero)
def _nonzero(a: Any) -> Any:
    return tuple(wrap(index) for index in np.nonzero(a.array))


@_serves(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    if all(isinstance(x, (int, float, type(None))) for x in (low, high)) and not (low is None and high is None):
        return selection.clamp(a, low, high)
    a = a if low is None else selection.maximum(a, low)
    return a if high is None else selection.minimum(a, high)


@_serves(np.round, np.around)
def _round(a: Any, decimals: int = 0) -> Any:
    return selection.round(a) if decimals == 0 else selection.round(a * 10.0**decimals) / 10.0**decimals


@_serves(np.sort)
def _sort(a: Any, axis: int = -1) -> Any:
    return ordering.sort(a, axis).values


@_serves(np.argsort)
def _argsort(a: Any, axis: int = -1) -> Any:
    return ordering.argsort(a, axis)


@_serves(np.take)
def _take(a: Any, indices: Any, axis: Any = None) -> Any:
    a = _tensor(a)
    if axis is None:
        return shape.reshape(a, (-1,))[indices]
    return a[(slice(None),) * (axis % a.ndim) + (indices,)]


@_serves(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    return indexing.take_along_dim(_tensor(arr), indices, axis)


# --- products ------------------------------------------------------------------------------------


@_serves(np.dot)
def _dot(a: Any, b: Any) -> Any:
    a, b = _tensor(a), _tensor(b)
    if not a.ndim or not b.ndim:
        return a * b
    if b.ndim <= 2:
        return matmul.matmul(a, b)
    return _tensordot(a, b, ((a.ndim - 1,), (b.ndim - 2,)))


@_serves(np.inner)
def _inner(a: Any, b: Any) -> Any:
    a, b = _tensor(a), _tensor(b)
    return a * b if not a.ndim or not b.ndim else _tensordot(a, b, ((a.ndim - 1,), (b.ndim - 1,)))


@_serves(np.outer)
def _outer(a: Any, b: Any) -> Any:
    return matmul.outer(*(shape.reshape(_tensor(x), (-1,)) for x in (a, b)))


@_serves(np.tensordot)
def _tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    a, b = _tensor(a), _tensor(b)
    left, right = (range(-axes, 0), range(axes)) if isinstance(axes, int) else axes
    left, right = ([d] if isinstance(d, int) else list(d) for d in (left, right))
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    of_a, of_b = list(letters[: a.ndim]), list(letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(left, right):
        of_b[j] = of_a[i]
    kept = [c for c in of_a if c not in of_b] + [c for c in of_b if c not in of_a]
    return einsum(f"{''.join(of_a)},{''.join(of_b)}->{''.join(kept)}", a, b)


@_serves(np.einsum)
def _einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Any:
    return einsum(subscripts, *(_tensor(x) for x in operands))


# --- new tensors of a tensor's shape -------------------------------------------------------------


@_serves(np.zeros_like, np.empty_like)
def _zeros_like(a: Any, dtype: Any = None) -> Any:
    return wrap(np.zeros_like(a.array, dtype))


@_serves(np.ones_like)
def _ones_like(a: Any, dtype: Any = None) -> Any:
    return wrap(np.ones_like(a.array, dtype))


@_serves(np.full_like)
def _full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    return wrap(np.full_like(a.array, _tensor(fill_value).numpy(), dtype))
