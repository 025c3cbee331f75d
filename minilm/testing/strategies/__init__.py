"""Strategies for the package hypothesis, which invents shapes, values, memory layouts, indices, modules and cases.

    from hypothesis import given
    from minilm.testing import strategies

    @given(strategies.broadcastable(2))
    def test_add(arrays):
        x, y = arrays                       # two arrays of any shapes that broadcast
        assert_same(Tensor(x) + Tensor(y), x + y)

Shapes include 0-d, 0-sized and size-1 ones; arrays may lie in memory in any order, backwards, with gaps,
read-only, unaligned, or repeat themselves with strides of zero. Names end in the axes where an array has named ones:
`arrays_BTC`. A failing example shrinks to small shapes, plain layouts, values that count 1, 2, 3 and no special ones.

For an operation of the register, `operation_cases(op)` invents everything that it takes.

These are the only modules that import hypothesis (`pip install minilm[test]`).
"""

from minilm.testing.strategies.arrays import (
    FLOATS,
    HUGE,
    INFINITIES,
    NOT_FINITE,
    SPECIALS,
    TINY,
    arrays,
    arrays_BHTD,
    arrays_BTC,
    broadcastable,
    broadcastable_shapes,
    layouts,
    masks,
    matmul_operands,
    shapes,
    strewn,
    tensors,
    zero_strided,
)
from minilm.testing.strategies.indices import axes, basic_indices, indices
from minilm.testing.strategies.models import modules, token_batches
from minilm.testing.strategies.operations import OperationCase, operation_cases

__all__ = [
    "FLOATS",
    "HUGE",
    "INFINITIES",
    "NOT_FINITE",
    "SPECIALS",
    "TINY",
    "OperationCase",
    "arrays",
    "arrays_BHTD",
    "arrays_BTC",
    "axes",
    "basic_indices",
    "broadcastable",
    "broadcastable_shapes",
    "indices",
    "layouts",
    "masks",
    "matmul_operands",
    "modules",
    "operation_cases",
    "shapes",
    "strewn",
    "tensors",
    "token_batches",
    "zero_strided",
]
