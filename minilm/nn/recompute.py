"""Activations computed twice, to keep fewer: memory for a third more arithmetic.

Source: Chen, Xu, Zhang & Guestrin 2016, "Training deep nets with sublinear memory cost".
"""

from __future__ import annotations

import functools
from typing import Any

from minilm import random
from minilm.autograd.engine import grad
from minilm.autograd.function import Function
from minilm.modes import enable_grad
from minilm.tensor import Tensor


def recompute(module: Any, *inputs: Tensor, **options: Any) -> Tensor:
    """`module(*inputs, **options)`, of which only the inputs are kept; the backward computes the rest once more.

    Dropout drops the same the second time. The module's parameters get their gradients as without it, to the bit.

    Args:
        module: a Module that gives one Tensor and changes nothing else.
        inputs: Tensors. options: what else the module takes, through which no gradient flows.
    Errors: AutogradError from a second derivative through it, which it has not.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    call = functools.partial(module, **options) if options else module
    return _Recomputed.apply(call, len(inputs), *inputs, *parameters)


class _Recomputed(Function):
    """What `recompute` records: the inputs, where random numbers stood, and nothing from inside."""

    @staticmethod
    def forward(ctx: Any, module: Any, count: int, *tensors: Tensor) -> Tensor:
        ctx.module, ctx.count = module, count
        ctx.drawn, ctx.part = random.get_rng_state(), random.current_part()
        ctx.save_for_backward(*tensors[:count])
        ctx.parameters = tensors[count:]
        return module(*tensors[:count])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        leaves = [x.detach() for x in ctx.saved_tensors]
        for leaf, need in zip(leaves, ctx.needs_input_grad[2:]):
            leaf.requires_grad_(need)
        now = random.get_rng_state()
        random.set_rng_state(ctx.drawn)
        try:
            with enable_grad(), random.the_part(ctx.part):
                y = ctx.module(*leaves)
        finally:
            random.set_rng_state(now)
        wanted = [t for t in (*leaves, *ctx.parameters) if t.requires_grad]
        found = iter(grad(y, wanted, dy.detach(), allow_unused=True))
        return None, None, *(next(found) if t.requires_grad else None for t in (*leaves, *ctx.parameters))
