"""Products of small matrices inside Numba's kernels, summed up in vector registers.

What Numba makes of a product written as loops goes to memory and back with every sum (60 GFLOP/s at the best where
`multiply` has 115, one thread of a Zen 4), and no loop can say that eight rows shall stay in registers. So the
innermost part is written in LLVM's own language, by an intrinsic: the micro-kernel of csrc/gemm.c in small.

Source: Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", section 4.2.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minilm.kernels.jit_compiled import inlined

Array = Any

ROWS = 8  # of sums in registers: two fused multiply-adds begin in each cycle, and each takes four


def _line() -> int:
    """The bytes of a vector: AVX-512's, or two of the shorter ones."""
    return 64 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 32


LINE = _line()


@inlined
def multiply(a: Array, b: Array, out: Array, width: int, fresh: bool) -> None:
    """out (N, M) = a (N, K) b (K, M), or += unless `fresh`, for the columns before `width` and those of its line.

    a has any strides; the elements of a row of b and of out lie side by side, and both have whole lines there:
    columns up to the next multiple of `lanes`. Each sum is in the order of k, whatever N and M.
    """
    for j in range(0, width, LINE // out.itemsize):
        for i in range(0, a.shape[0], ROWS):
            _tile(a, b, out, i, j, fresh)  # type: ignore[call-arg]


@inlined
def lined(count: int, itemsize: int) -> int:
    """`count` columns and those that make its last line whole."""
    lanes = LINE // itemsize
    return (count + lanes - 1) // lanes * lanes


@intrinsic
def _tile(typing_context: Any, a: Any, b: Any, out: Any, i: Any, j: Any, fresh: Any) -> Any:
    """The rows i ... i + ROWS - 1 of a line of `out` at column j; rows behind the last are the last once more."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrices = [_Matrix(context, builder, t, x) for t, x in zip(signature.args, arguments[:3])]
        left, right, result = matrices
        i, j, fresh = arguments[3:]
        element = signature.args[2].dtype
        lanes = LINE // (element.bitwidth // 8)
        vector = ir.VectorType(context.get_value_type(element), lanes)
        name = f"llvm.fmuladd.v{lanes}f{element.bitwidth}"  # one instruction where the CPU has it
        multiply_add = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)

        last = builder.sub(left.rows, _integer(1))
        numbers = []
        for r in range(ROWS):
            row = builder.add(i, _integer(r))
            numbers.append(builder.select(builder.icmp_signed("<", row, last), row, last))
        places = [result.place(row, j, vector) for row in numbers]
        sums = [cgutils.alloca_once(builder, vector) for _ in range(ROWS)]  # LLVM makes registers of them
        with builder.if_else(fresh) as (then, otherwise):
            with then:
                for total in sums:
                    builder.store(ir.Constant(vector, [0.0] * lanes), total)
            with otherwise:
                for total, place in zip(sums, places):
                    builder.store(builder.load(place, align=result.size), total)
        with cgutils.for_range(builder, left.columns) as loop:
            line = builder.load(right.place(loop.index, j, vector), align=result.size)
            for row, total in zip(numbers, sums):
                factor = _repeated(builder, builder.load(left.place(row, loop.index)), vector)
                builder.store(builder.call(multiply_add, [factor, line, builder.load(total)]), total)
        for total, place in zip(sums, places):
            builder.store(builder.load(total), place, align=result.size)
        return context.get_dummy_value()

    return types.void(a, b, out, types.intp, types.intp, types.boolean), generate


def _fold(combine: Any, first: float) -> Any:
    """An intrinsic that makes one number of a row of whole lines, `first` if it is empty."""

    @intrinsic
    def fold(typing_context: Any, row: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(row)(context, builder, arguments[0])
            element, lanes = context.get_value_type(row.dtype), LINE // (row.dtype.bitwidth // 8)
            vector = ir.VectorType(element, lanes)
            so_far = cgutils.alloca_once_value(builder, ir.Constant(vector, [first] * lanes))
            (count,) = cgutils.unpack_tuple(builder, array.shape)
            with cgutils.for_range_slice(builder, _integer(0), count, _integer(lanes)) as (j, _):
                place = builder.bitcast(builder.gep(array.data, [j]), vector.as_pointer())
                line = builder.load(place, align=row.dtype.bitwidth // 8)
                builder.store(combine(builder, builder.load(so_far), line), so_far)
            line = builder.load(so_far)
            while lanes > 1:  # halves onto each other
                lanes //= 2
                halves = [
                    ir.Constant(ir.VectorType(ir.IntType(32), lanes), [*range(at, at + lanes)]) for at in (0, lanes)
                ]
                low, high = (
                    builder.shuffle_vector(line, ir.Constant(line.type, ir.Undefined), half) for half in halves
                )
                line = combine(builder, low, high)
            return builder.extract_element(line, ir.Constant(ir.IntType(32), 0))

        return row.dtype(row), generate

    return fold


def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", y, x), y, x)


largest_in = _fold(_larger, float("-inf"))
sum_of = _fold(lambda builder, x, y: builder.fadd(x, y), 0.0)


class _Matrix:
    """An array (N, M) of Numba's in LLVM's language."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.start = builder, builder.ptrtoint(array.data, ir.IntType(64))
        self.rows, self.columns = cgutils.unpack_tuple(builder, array.shape)
        self.strides = cgutils.unpack_tuple(builder, array.strides)
        self.size, self.element = kind.dtype.bitwidth // 8, context.get_value_type(kind.dtype)

    def place(self, row: Any, column: Any, kind: Any = None) -> Any:
        """A pointer to what begins at (row, column): an element, or a vector."""
        builder, (down, along) = self.builder, self.strides
        offset = builder.add(builder.mul(row, down), builder.mul(column, along))
        return builder.inttoptr(builder.add(self.start, offset), (kind or self.element).as_pointer())


def _integer(number: int) -> Any:
    return ir.Constant(ir.IntType(64), number)


def _repeated(builder: Any, number: Any, vector: Any) -> Any:
    """A vector that has `number` in each of its elements."""
    nothing, index = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    one = builder.insert_element(nothing, number, ir.Constant(index, 0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(index, vector.count), [0] * vector.count))
