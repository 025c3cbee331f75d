"""PyTorch as the oracle: the counterpart of an operation, and what it gives for a case.

PyTorch is passed in as an argument, so that nothing here imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from minilm.ops.registry import Operation
from minilm.pytorch import to_numpy, to_torch
from minilm.testing.samples import Case

__all__ = ["call", "counterpart", "run", "to_numpy", "to_torch"]


def counterpart(op: type[Operation], torch: Any) -> Callable[..., Any] | None:
    """PyTorch's function for `op`: the operation's own `torch`, or the one of the same name; None if neither."""
    if op.torch is not None:
        return functools.partial(op.torch, torch)
    for place in (torch, torch.nn.functional, torch.Tensor):
        function = getattr(place, op.name, None)
        if callable(function):
            return function
    return None


def call(case: Case, torch: Any, tensors: Any) -> list[Any]:
    """PyTorch's outputs for the case on PyTorch tensors. Errors: LookupError if it has no counterpart."""
    function = counterpart(case.op, torch)
    if function is None:
        raise LookupError(f"PyTorch has no {case.op.name}; give the operation a function `torch(torch, ...)`")
    result = function(*tensors, **to_torch(case.sample.options, torch))
    return list(result) if isinstance(result, (tuple, list)) else [result]


def run(case: Case, torch: Any, inputs: Any) -> tuple[list[Any], list[Any]]:
    """PyTorch's outputs and gradients where `Case.run` gives ours."""
    tensors = [to_torch(x, torch, requires_grad=v) for x, v in zip(inputs, case.varies(inputs))]
    outputs = call(case, torch, tensors)
    flowing = [y for y in outputs if y.requires_grad]
    gradients: list[Any] = [None] * len(tensors)
    active = [i for i, t in enumerate(tensors) if t is not None and t.requires_grad]
    if flowing:
        given = [torch.from_numpy(c) for c in case.cotangents([to_numpy(y) for y in flowing])]
        found = torch.autograd.grad(flowing, [tensors[i] for i in active], given, allow_unused=True)
        for i, gradient in zip(active, found):
            gradients[i] = gradient
    return outputs, gradients
