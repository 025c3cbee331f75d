"""PyTorch as the oracle: the counterpart of an operation, and what it gives for a case.

PyTorch is passed in as an argument, so that nothing here imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minilm.ops.registry import Operation
from minilm.pytorch import to_numpy, to_torch
from minilm.testing.same import RTOL, assert_same
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


def hessian_vector_product(case: Case, torch: Any, inputs: Any) -> list[Any]:
    """PyTorch's arrays where `Case.hessian_vector_product` gives ours."""
    tensors = [to_torch(x, torch, requires_grad=v) for x, v in zip(inputs, case.varies(inputs))]
    flowing = [y for y in call(case, torch, tensors) if y.requires_grad]
    c, v = case.second_cotangents([to_numpy(y) for y in flowing], inputs)
    wanted = [(t, torch.from_numpy(d)) for t, d in zip(tensors, v) if d is not None]
    total = sum((y.sin() * torch.from_numpy(w)).sum() for y, w in zip(flowing, c))
    settings = {"allow_unused": True, "materialize_grads": True}
    first = torch.autograd.grad(total, [t for t, _ in wanted], create_graph=True, **settings)
    along = sum((g * d).sum() for g, (_, d) in zip(first, wanted))
    if not along.requires_grad:
        return [np.zeros(tuple(t.shape)) for t, _ in wanted]
    return [to_numpy(g) for g in torch.autograd.grad(along, [t for t, _ in wanted], **settings)]


def assert_agrees(ours: Any, theirs: Any, scale: float = 0.0) -> None:
    """Raise AssertionError unless outputs and gradients of `Case.run` and of `run` agree.

    Outputs agree in values, dtype and whether they have a gradient, gradients in values; where nothing arrived at an
    input on one side, the other's gradient must be zero.

    Args:
        scale: how large the numbers are that a result comes from. Rounding leaves an error of that size's, also
            where the exact result is zero: the gradient of x - mean(x) for a single x.
    """
    (outputs, gradients), (their_outputs, their_gradients) = ours, theirs
    assert len(outputs) == len(their_outputs), f"{len(outputs)} outputs, PyTorch's {len(their_outputs)}"
    for number, (y, t) in enumerate(zip(outputs, their_outputs)):
        assert_near(y, to_numpy(t), scale, f"output {number}")
        if y.requires_grad != t.requires_grad:
            raise AssertionError(f"output {number}: requires_grad {y.requires_grad}, PyTorch's {t.requires_grad}")
    for number, (g, t) in enumerate(zip(gradients, their_gradients)):
        if t is not None and g is not None:
            assert_near(g, to_numpy(t), scale, f"gradient of input {number}")
        elif t is not None or g is not None:
            value = to_numpy(t) if g is None else g.array
            assert not value.any(), f"input {number}: ours is {g}, PyTorch's {t}"


def assert_near(
    actual: Any, expected: Any, scale: float, name: str, rtol: float | None = None, one_scale: bool = True
) -> None:
    """`assert_same` that allows for an absolute error of rtol times `scale`.

    Args:
        one_scale: whether the largest finite value is the scale of all where it is above `scale`, as where each value
            is a sum of many; otherwise each has an error of its own.
    """
    if expected.dtype.kind != "f":
        return assert_same(actual, expected, name=name)
    rtol = RTOL[expected.dtype] if rtol is None else rtol
    if one_scale:
        scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=scale))
    return assert_same(actual, expected, rtol=rtol, atol=rtol * scale, name=name)
