"""Operations become methods and operators of Tensor here, once all of them are registered."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.ops import derived, indexing, inplace, registry, selection
from minilm.tensor import Tensor

# Python's operators and the operations behind them.
OPERATORS = {
    "__add__": "add",
    "__sub__": "sub",
    "__mul__": "mul",
    "__truediv__": "div",
    "__pow__": "pow",
    "__mod__": "remainder",
    "__matmul__": "matmul",
    "__eq__": "eq",
    "__ne__": "ne",
    "__lt__": "lt",
    "__le__": "le",
    "__gt__": "gt",
    "__ge__": "ge",
    "__neg__": "neg",
    "__abs__": "abs",
    "__floordiv__": "floor_divide",
    "__invert__": "bitwise_not",
    "__and__": "bitwise_and",
    "__or__": "bitwise_or",
    "__xor__": "bitwise_xor",
}
REFLECTED = ("add", "sub", "mul", "truediv", "floordiv", "pow", "mod", "matmul", "and", "or", "xor")
IN_PLACE = {"__iadd__": "add", "__isub__": "sub", "__imul__": "mul", "__itruediv__": "div", "__ipow__": "pow"}

# Methods that are functions of their own, not an operation's; shape.METHODS and random.METHODS attach themselves.
PLAIN = (
    selection.equal, selection.allclose, inplace.copy_, inplace.fill_, inplace.zero_,
    indexing.index_select, indexing.gather, indexing.scatter, indexing.scatter_add, indexing.index_add,
)  # fmt: skip


def _where(self: Tensor, condition: Any, other: Any) -> Any:
    """Its own elements where `condition` holds, else those of `other`."""
    return selection.where(condition, self, other)


METHODS: dict[str, Any] = {
    "where": _where,
    "index_fill": derived.index_fill,
    "unique": derived.unique,
    "bincount": derived.bincount,
    **{
        f"{function.__name__}_": inplace.by_function(function)
        for function in (
            indexing.scatter, indexing.scatter_add, indexing.index_add, derived.index_fill,
        )
    },
}  # fmt: skip


def attach_all() -> None:
    """Give Tensor every registered operation that wants to be a method, its in-place form and its operator."""
    for op in registry.all():
        for method in op.methods:
            setattr(Tensor, method, _gathering(op.apply) if op.spread else op.apply)
        if op.inplace:
            setattr(Tensor, op.name + "_", inplace.in_place(op))
    for operator, name in OPERATORS.items():
        setattr(Tensor, operator, registry.get(name).apply)
    for operator in ("__eq__", "__ne__"):
        setattr(Tensor, operator, _comparing(getattr(Tensor, operator)))
    for stem in REFLECTED:
        setattr(Tensor, f"__r{stem}__", _reflected(registry.get(OPERATORS[f"__{stem}__"]).apply))
    for operator, name in IN_PLACE.items():
        setattr(Tensor, operator, inplace.in_place(registry.get(name)))
    for function in PLAIN:
        setattr(Tensor, function.__name__, function)
    for name, function in METHODS.items():
        setattr(Tensor, name, function)


def _gathering(function: Any) -> Any:
    """The method that takes `x.permute(2, 0, 1)` as well as `x.permute((2, 0, 1))`."""

    def method(self: Tensor, *sizes: Any, **options: Any) -> Any:
        if options:
            return function(self, *sizes, **options)
        whole = len(sizes) == 1 and not isinstance(sizes[0], (int, np.integer))
        return function(self, tuple(sizes[0]) if whole else sizes)

    method.__name__ = method.__qualname__ = function.__name__
    method.__doc__ = function.__doc__
    return method


def _comparing(function: Any) -> Any:
    """== and !=, which have an answer for everything: `t == None` is False, as in PyTorch."""

    def operator(self: Tensor, other: Any) -> Any:
        numbers = isinstance(other, (Tensor, np.ndarray, np.generic, int, float))
        return function(self, other) if numbers or hasattr(other, "__cuda_array_interface__") else NotImplemented

    operator.__doc__ = function.__doc__
    return operator


def _reflected(function: Any) -> Any:
    def operator(self: Tensor, other: Any) -> Any:
        return function(other, self)

    return operator
