"""Strategies for the package hypothesis, which invents shapes, values, memory layouts and indices.

    from hypothesis import given
    from minilm.testing import strategies

    @given(strategies.broadcastable(2))
    def test_add(arrays):
        x, y = arrays                       # two arrays of any shapes that broadcast
        assert_same(Tensor(x) + Tensor(y), x + y)

Shapes include 0-d, 0-sized and size-1 ones; arrays may lie in memory in any order, backwards, with gaps,
and read-only. Names end in the axes where an array has named ones: `arrays_BTC`. A failing example
shrinks to small shapes, plain layouts and no special values.

This is the only module that imports hypothesis (`pip install minilm[test]`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from minilm.testing.samples import LAYOUTS

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

FLOATS = ("float64", "float32")
INFINITIES = (np.inf, -np.inf)
SPECIALS = (0.0, -0.0, 1.0, -1.0, 1e-30, -1e30)


@st.composite
def shapes(draw: DrawFn, min_axes: int = 0, max_axes: int = 4, min_size: int = 0, max_size: int = 4) -> Shape:
    """A shape of `min_axes` to `max_axes` axes, each of `min_size` to `max_size` elements; seldom 0."""
    sizes = list(range(max(min_size, 1), max_size + 1)) * 3
    size = st.sampled_from([*sizes, 0] if min_size == 0 else sizes)
    return tuple(draw(size) for _ in range(draw(st.integers(min_axes, max_axes))))


@st.composite
def layouts(draw: DrawFn, array: Array) -> Array:
    """The same values as `array`, in C or Fortran order, with gaps, backwards, or read-only."""
    name = draw(st.sampled_from(["as it is", *LAYOUTS]))
    return array if name == "as it is" else LAYOUTS[name](array)


@st.composite
def arrays(
    draw: DrawFn,
    shape: Shape | SearchStrategy[Shape] | None = None,
    dtype: Any = "float64",
    specials: Sequence[float] = SPECIALS,
    laid_out: bool = True,
) -> Array:
    """A floating array: normal numbers, all different, with up to three of `specials` strewn in.

    Args:
        shape: a shape or a strategy for it; any small shape by default.
        dtype: the element type; values are numbers that float32 can hold.
        specials: what may be strewn in, such as zeros, infinities or NaN; () for nothing.
        laid_out: whether the array may lie in memory otherwise than in C order.
    """
    chosen = draw(shapes() if shape is None else shape if isinstance(shape, SearchStrategy) else st.just(shape))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    array = np.asarray(rng.standard_normal(chosen)).astype(np.float32).astype(dtype)
    if specials and array.size:
        place = st.tuples(st.integers(0, array.size - 1), st.sampled_from(specials))
        for position, value in draw(st.lists(place, max_size=3)):
            array.reshape(-1)[position] = value
    return draw(layouts(array)) if laid_out else array


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
    draw: DrawFn, count: int = 2, dtype: Any = "float64", specials: Sequence[float] = SPECIALS, max_axes: int = 4
) -> tuple[Array, ...]:
    """`count` arrays whose shapes broadcast, each in a memory layout of its own; see `arrays`."""
    chosen = draw(broadcastable_shapes(count, max_axes))
    return tuple(draw(arrays(shape, dtype, specials)) for shape in chosen)


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


@st.composite
def matrices(draw: DrawFn, dtype: Any = "float64", specials: Sequence[float] = ()) -> tuple[Array, Array]:
    """Two operands for `@`: vectors, matrices or batches that broadcast, inner sizes alike."""
    N, K, M = (draw(st.integers(0, 4)) for _ in range(3))
    leads = draw(broadcastable_shapes(2, max_axes=2, max_size=3))
    x = (K,) if draw(st.booleans()) and not leads[0] else (*leads[0], N, K)
    y = (K,) if draw(st.booleans()) and not leads[1] else (*leads[1], K, M)
    return draw(arrays(x, dtype, specials)), draw(arrays(y, dtype, specials))


@st.composite
def axes(draw: DrawFn, ndim: int) -> Any:
    """What a reduction takes as `dim`: None, one axis, or several, counted from either end."""
    signed = st.integers(-ndim, ndim - 1) if ndim else st.sampled_from([0, -1])
    kind = draw(st.sampled_from(["all", "one", "several"]))
    if kind == "all":
        return None
    if kind == "one":
        return draw(signed)
    return tuple(draw(st.lists(signed, unique_by=lambda d: d % max(ndim, 1), min_size=1, max_size=max(ndim, 1))))


@st.composite
def basic_indices(draw: DrawFn, shape: Shape, negative_steps: bool = True) -> Any:
    """An index for an array of `shape` made of integers, slices, None and one `...`."""
    return draw(_indices(shape, False, negative_steps))


@st.composite
def indices(draw: DrawFn, shape: Shape) -> Any:
    """An index for an array of `shape` with everything: also integer arrays and boolean masks; no negative steps."""
    return draw(_indices(shape, True, False))


@st.composite
def _indices(draw: DrawFn, shape: Shape, advanced: bool, negative_steps: bool) -> Any:
    """Goes through the axes, and chooses for each what selects from it."""
    common = draw(shapes(max_axes=2, max_size=3)) if advanced else ()
    masks = advanced and len(common) == 1  # a mask must pick as many elements as the arrays beside it have
    if advanced and shape and draw(st.integers(0, 7)) == 7:
        axes = draw(st.integers(1, len(shape)))
        return draw(_masks(shape[:axes], draw(st.integers(0, 2))))
    parts: list[Any] = []
    at = 0
    dots = draw(st.booleans())
    end = max(0, len(shape) - draw(st.sampled_from([0, 0, 0, 1, 2])))
    while at < end:
        size = shape[at]
        kinds = ["slice"]
        if size:
            kinds.append("integer")
        if advanced and (size or 0 in common):
            kinds.append("array")
        if masks and common[0] <= size:
            kinds.append("mask")
        if draw(st.integers(0, 5)) == 5:
            parts.append(None)
        kind = draw(st.sampled_from(kinds))
        if kind == "slice":
            parts.append(draw(_slices(size, negative_steps)))
        elif kind == "integer":
            parts.append(draw(st.integers(-size, size - 1)))
        elif kind == "array":
            parts.append(draw(_positions(size, draw(_broadcastable_to(common)) if size else common)))
        else:
            parts.append(draw(_masks((size,), common[0])))
        at += 1
    if dots:
        rest = len(shape) - end
        place = draw(st.integers(0, len(parts))) if not rest else len(parts)
        parts.insert(place, ...)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@st.composite
def _broadcastable_to(draw: DrawFn, shape: Shape) -> Shape:
    """A shape that broadcasts to `shape`: its last axes, some of them as 1."""
    kept = shape[draw(st.integers(0, len(shape))) :]
    return tuple(1 if size != 0 and draw(st.booleans()) else size for size in kept)


@st.composite
def _slices(draw: DrawFn, size: int, negative_steps: bool) -> slice:
    bound = st.none() | st.integers(-size - 1, size + 1)
    steps = [None, 1, 2, 3, *((-1, -2) if negative_steps else ())]
    return slice(draw(bound), draw(bound), draw(st.sampled_from(steps)))


@st.composite
def _positions(draw: DrawFn, size: int, shape: Shape) -> Array:
    count = int(np.prod(shape))
    low, high = (-size, size - 1) if size else (0, 0)
    values = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
    return np.asarray(values, np.int64).reshape(shape)


@st.composite
def _masks(draw: DrawFn, shape: Shape, count: int) -> Array:
    """A mask of `shape`, with `count` elements true if there are as many."""
    mask = np.zeros(shape, bool)
    for position in draw(st.permutations(range(mask.size)))[:count]:
        mask.reshape(-1)[position] = True
    return mask


def _size(given: SearchStrategy[int] | int | None, low: int, high: int) -> SearchStrategy[int]:
    if given is None:
        return st.integers(low, high)
    return given if isinstance(given, SearchStrategy) else st.just(given)
