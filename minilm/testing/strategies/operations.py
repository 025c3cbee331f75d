"""Strategies for the operations of the register: everything that one takes, from its signature and its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from minilm.ops.registry import Operation, Primitive, Sample
from minilm.testing.samples import Case, Shapes, inputs_for
from minilm.testing.strategies.arrays import FLOATS, Array, broadcastable_shapes, layouts, shapes, strewn

# Options that fit inputs of any size; all others (a shape, an index, a number of classes) are written for the sizes
# that stand in their sample.
_ANY_SIZE = {"dim", "dims", "dim0", "dim1", "dim2", "start_dim", "end_dim", "source", "destination"}
_ANY_SIZE |= {"offset", "repeats", "pad", "shifts", "chunks", "ignore_index", "equation", "key"}


@dataclass(frozen=True)
class OperationCase:
    """What `operation_cases` draws.

    Attributes:
        case: the operation with a sample and shapes; `case.run(arrays)` gives outputs and gradients.
        arrays: the inputs, in any memory layout; None for one left out.
        plain: the same values in C order and memory of their own.
    """

    case: Case
    arrays: tuple[Array | None, ...]

    @property
    def plain(self) -> tuple[Array | None, ...]:
        """The arrays' values in C order."""
        return tuple(None if x is None else np.array(x, order="C") for x in self.arrays)

    def __repr__(self) -> str:
        inputs = ", ".join("None" if x is None else f"{x!r} (strides {x.strides})" for x in self.arrays)
        return f"<{self.case.id}: {inputs}>".replace("\n", "")


@st.composite
def operation_cases(
    draw: DrawFn,
    op: type[Operation],
    dtypes: Sequence[str] = FLOATS,
    specials: Sequence[float] = (),
    laid_out: bool = True,
    max_size: int = 4,
) -> OperationCase:
    """A case for a registered operation: one of its samples, shapes, a floating type, values and memory layouts.

    Shapes come from the signature: any size for a named axis, any axes for `...` (which broadcast where there are
    several), 0 and 1 among them. Where a sample gives shapes, each size in them becomes another, the same wherever it
    stands, unless the sample's options depend on it. Not every case is legal: an axis that an option names may be
    missing. Values are those of the operation's domain, away from kinks. Shrinks to a sample with few sizes, to small
    shapes in C order and no special values.

    Args:
        op: an operation with samples.
        dtypes: the floating types to choose from.
        specials: values to strew into the inputs that a gradient flows to (see `arrays`); () for none.
        laid_out: whether inputs may lie in memory otherwise than in C order.
        max_size: the largest size of an axis that the signature leaves free.
    """
    sample = draw(st.sampled_from(op.samples))
    given = sample.shapes
    if given is None:
        chosen = draw(_signature_shapes(op, _least_axes(sample), max_size))
    elif {key for key, value in sample.options.items() if _counts(value)} <= _ANY_SIZE:
        sample, chosen = draw(_resized(op, sample))
    else:
        chosen = given
    case = Case(op, sample, chosen)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    inputs = list(inputs_for(op, sample, rng, draw(st.sampled_from(list(dtypes))), chosen))
    for position, (array, varies) in enumerate(zip(inputs, case.varies(inputs))):
        if array is None:
            continue
        if specials and varies:
            array = draw(strewn(array, specials))
        inputs[position] = draw(layouts(array)) if laid_out else array
    return OperationCase(case, tuple(inputs))


@st.composite
def _signature_shapes(draw: DrawFn, op: type[Operation], least: int, max_size: int) -> Shapes:
    """Shapes that fit the operation's signature, whose `...` have at least `least` axes."""
    signature = op.signature
    count = draw(st.integers(1, 3)) if signature.variadic else len(signature.inputs)
    patterns = (signature.inputs * count)[:count]
    names = dict.fromkeys(axis for pattern in patterns for axis in pattern if axis != "...")
    sizes = {name: draw(shapes(1, 1, 0, max_size))[0] for name in names}
    if signature.broadcasts and issubclass(op, Primitive):
        leads = draw(broadcastable_shapes(count, max_axes=3, max_size=max_size))
    else:
        leads = (draw(shapes(least, max(3, least), 0, max_size)),) * count
    return tuple(
        tuple(size for axis in pattern for size in (lead if axis == "..." else (sizes[axis],)))
        for pattern, lead in zip(patterns, leads)
    )


@st.composite
def _resized(draw: DrawFn, op: type[Operation], sample: Sample) -> tuple[Sample, Shapes]:
    """The sample and its shapes with each size from 2 on replaced by another; larger ones stay larger.

    A domain "index:N" follows the size N. 0 is among the sizes where nothing is an index.
    """
    assert sample.shapes is not None
    domains = sample.domain or op.domains()
    indexed = any(domain.startswith("index") for domain in domains)
    sizes = sorted({size for shape in sample.shapes if shape is not None for size in shape if size > 1})
    others = sorted(draw(st.lists(st.integers(1, 8), min_size=len(sizes), max_size=len(sizes), unique=True)))
    if sizes and not indexed and draw(st.integers(0, 7)) == 7:
        others[draw(st.integers(0, len(sizes) - 1))] = 0
    other = dict(zip(sizes, others))
    chosen = tuple(None if s is None else tuple(other.get(size, size) for size in s) for s in sample.shapes)
    return replace(sample, domain=tuple(_follow(domain, other) for domain in domains)), chosen


def _follow(domain: str, other: dict[int, int]) -> str:
    word, _, bound = domain.partition(":")
    return f"{word}:{other.get(int(bound), int(bound))}" if word == "index" else domain


def _least_axes(sample: Sample) -> int:
    """How many axes the sample's options need where shapes come from the signature: 3 if they name one."""
    named = any(value is not None for key, value in sample.options.items() if key in ("dim", "start_dim", "end_dim"))
    return 3 if named else 0


def _counts(value: Any) -> bool:
    """Whether an option's value may depend on sizes: one with whole numbers in it, or an array."""
    if isinstance(value, (tuple, list)):
        return True
    return not (value is None or isinstance(value, (bool, float, str, np.dtype)))
