"""Strategies for what selects from an array: the axes of a reduction, and indices of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from minilm.testing.strategies.arrays import Array, Shape, shapes


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
