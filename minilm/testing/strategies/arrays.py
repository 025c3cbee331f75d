"""Strategies for arrays: shapes, values, and the ways in which they lie in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from minilm.tensor import Tensor
from minilm.testing.samples import LAYOUTS

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

FLOATS = ("float64", "float32")
SPECIALS = (0.0, -0.0, 1.0, -1.0, 1e-30, -1e30)
INFINITIES = (np.inf, -np.inf)
NOT_FINITE = (*INFINITIES, np.nan)
HUGE = (1e30, -1e30)  # their squares are infinite in float32
TINY = (1e-30, -1e-30)  # their squares are zero in float32


@st.composite
def shapes(draw: DrawFn, min_axes: int = 0, max_axes: int = 4, min_size: int = 0, max_size: int = 4) -> Shape:
    """A shape of `min_axes` to `max_axes` axes, each of `min_size` to `max_size` elements; seldom 0."""
    sizes = list(range(max(min_size, 1), max_size + 1)) * 3
    size = st.sampled_from([*sizes, 0] if min_size == 0 else sizes)
    return tuple(draw(size) for _ in range(draw(st.integers(min_axes, max_axes))))


@st.composite
def layouts(draw: DrawFn, array: Array) -> Array:
    """The same values as `array`, otherwise in memory.

    As it is, in Fortran order, with gaps, backwards, read-only, or at an address that is no multiple of an element's
    size (`minilm.testing.LAYOUTS`). Strides of zero need values that repeat: see `zero_strided`.
    """
    name = draw(st.sampled_from(["as it is", *LAYOUTS]))
    return array if name == "as it is" else LAYOUTS[name](array)


@st.composite
def zero_strided(draw: DrawFn, array: Array) -> Array:
    """An array of the same shape whose first elements along some axes stand for all: their stride is 0; read-only."""
    repeated = [draw(st.booleans()) for _ in array.shape]
    kept = tuple(slice(0, 1) if again and size else slice(None) for again, size in zip(repeated, array.shape))
    return np.broadcast_to(array[kept], array.shape)


@st.composite
def arrays(
    draw: DrawFn,
    shape: Shape | SearchStrategy[Shape] | None = None,
    dtype: Any = "float64",
    specials: Sequence[float] = SPECIALS,
    laid_out: bool = True,
    repeated: bool = False,
) -> Array:
    """A floating array: normal numbers, all different, with up to three of `specials` strewn in.

    It shrinks to a small array in C order without special values that counts 1, 2, 3 ...

    Args:
        shape: a shape or a strategy for it; any small shape by default, 0-d and 0-sized ones too.
        dtype: the element type; values are numbers that float32 can hold.
        specials: what may be strewn in, such as zeros, INFINITIES, NOT_FINITE, HUGE or TINY; () for nothing.
        laid_out: whether the array may lie in memory otherwise than in C order (see `layouts`).
        repeated: whether values may repeat along axes of stride 0 (see `zero_strided`).
    """
    chosen = draw(shapes() if shape is None else shape if isinstance(shape, SearchStrategy) else st.just(shape))
    array = _numbers(draw(st.integers(0, 2**16)), chosen).astype(dtype)
    if specials:
        array = draw(strewn(array, specials))
    if repeated and draw(st.booleans()):
        return draw(zero_strided(array))
    return draw(layouts(array)) if laid_out else array


@st.composite
def strewn(draw: DrawFn, array: Array, specials: Sequence[float], most: int = 3) -> Array:
    """A copy of `array` in C order with up to `most` of its elements replaced by one of `specials`."""
    array = array.copy()
    if array.size:
        place = st.tuples(st.integers(0, array.size - 1), st.sampled_from(list(specials)))
        for position, value in draw(st.lists(place, max_size=most)):
            array.reshape(-1)[position] = value
    return array


@st.composite
def tensors(
    draw: DrawFn,
    shape: Shape | SearchStrategy[Shape] | None = None,
    dtype: Any = "float64",
    requires_grad: bool = True,
    **options: Any,
) -> Tensor:
    """A leaf Tensor around one of `arrays`, whose options it takes."""
    return Tensor(draw(arrays(shape, dtype, **options)), requires_grad=requires_grad)


@st.composite
def broadcastable_shapes(draw: DrawFn, count: int = 2, max_axes: int = 4, max_size: int = 4) -> tuple[Shape, ...]:
    """`count` shapes that broadcast: a whole one, of which each keeps some axes, some of them as 1."""
    whole = draw(shapes(max_axes=max_axes, max_size=max_size))
    found = []
    for _ in range(count):
        kept = whole[draw(st.integers(0, len(whole))) :]
        found.append(tuple(1 if draw(st.booleans()) else size for size in kept))
    if draw(st.booleans()):
        found[draw(st.integers(0, count - 1))] = whole
    return tuple(found)


@st.composite
def broadcastable(
    draw: DrawFn,
    count: int = 2,
    dtype: Any = "float64",
    specials: Sequence[float] = SPECIALS,
    max_axes: int = 4,
    repeated: bool = False,
) -> tuple[Array, ...]:
    """`count` arrays whose shapes broadcast, each in a memory layout of its own; see `arrays`."""
    chosen = draw(broadcastable_shapes(count, max_axes))
    return tuple(draw(arrays(shape, dtype, specials, repeated=repeated)) for shape in chosen)


@st.composite
def matmul_operands(
    draw: DrawFn, dtype: Any = "float64", specials: Sequence[float] = (), repeated: bool = False
) -> tuple[Array, Array]:
    """Two operands for `@`: vectors (K,), matrices (N, K) and (K, M), or batches of them that broadcast."""
    N, K, M = (draw(st.integers(0, 4)) for _ in range(3))
    leads = draw(broadcastable_shapes(2, max_axes=2, max_size=3))
    x = (K,) if draw(st.booleans()) and not leads[0] else (*leads[0], N, K)
    y = (K,) if draw(st.booleans()) and not leads[1] else (*leads[1], K, M)
    return tuple(draw(arrays(shape, dtype, specials, repeated=repeated)) for shape in (x, y))  # type: ignore[return-value]


@st.composite
def masks(draw: DrawFn, shape: Shape | SearchStrategy[Shape], open_rows: bool = False) -> Array:
    """A boolean mask, True where something counts: everything, the past only, a padded batch, or any mask.

    Shrinks to True everywhere.

    Args:
        shape: a shape or a strategy for it; its last two axes are what looks (T) and what is looked at (S).
        open_rows: whether each row along the last axis has a True, so that a softmax over it has an answer.
    """
    chosen = draw(shape) if isinstance(shape, SearchStrategy) else shape
    kind = draw(st.sampled_from(["everything", "causal", "padding", "any"]))
    mask = np.ones(chosen, bool)
    if kind == "causal" and len(chosen) > 1:
        mask = np.tril(mask)
    elif kind == "padding" and len(chosen):
        lengths = draw(_integers(chosen[:-1], 0, chosen[-1]))
        mask = np.arange(chosen[-1]) < chosen[-1] - lengths[..., None]
    elif kind == "any":
        mask = ~draw(_integers(chosen, 0, 1)).astype(bool)
    if open_rows and mask.ndim and mask.shape[-1]:
        mask[..., 0] |= ~mask.any(-1)
    return mask


def arrays_BTC(
    B: SearchStrategy[int] | int | None = None,
    T: SearchStrategy[int] | int | None = None,
    C: SearchStrategy[int] | int | None = None,
    **options: Any,
) -> SearchStrategy[Array]:
    """An array (B, T, C): batch, time, channels. A size that is not given is 0 to 3, 0 to 5 and 1 to 7.

    Args:
        B, T, C: sizes, or strategies for them.
        options: those of `arrays`.
    """
    sizes = [_size(B, 0, 3), _size(T, 0, 5), _size(C, 1, 7)]
    return arrays(st.tuples(*sizes), **options)


@st.composite
def arrays_BHTD(draw: DrawFn, count: int = 3, **options: Any) -> tuple[Array, ...]:
    """Queries (B, H, T, D) and `count - 1` arrays of keys or values (B, H, S, D), for attention."""
    B, H, T, S, D = (draw(st.integers(low, high)) for low, high in ((0, 2), (1, 2), (0, 4), (0, 5), (1, 3)))
    return tuple(draw(arrays((B, H, T if i == 0 else S, D), **options)) for i in range(count))


def _numbers(seed: int, shape: Shape) -> Array:
    """Normal numbers that float32 can hold; for seed 0, to which examples shrink, 1, 2, 3 ... up to 16."""
    size = int(np.prod(shape))
    if seed == 0:
        return np.linspace(1, max(1, min(size, 16)), size, dtype=np.float32).reshape(shape)
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@st.composite
def _integers(draw: DrawFn, shape: Shape, low: int, high: int) -> Array:
    """Integers from `low` to `high`, both included; shrinks to `low` everywhere."""
    count = int(np.prod(shape))
    return np.asarray(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), np.int64).reshape(shape)


def _size(given: SearchStrategy[int] | int | None, low: int, high: int) -> SearchStrategy[int]:
    if given is None:
        return st.integers(low, high)
    return given if isinstance(given, SearchStrategy) else st.just(given)
