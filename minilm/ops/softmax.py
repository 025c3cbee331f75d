"""softmax and its logarithm: scores made probabilities."""

from __future__ import annotations

from typing import Any

from minilm import kernels
from minilm.device import array_module
from minilm.ops.pointwise import exp
from minilm.ops.reduction import amax, logsumexp, sum  # noqa: A004
from minilm.ops.registry import Fused, options, sample
from minilm.ops.shape import _axis

SAMPLES = [*options(dim=[-1, 0]), sample((2, 3, 5), dim=1), sample((), dim=0), sample((3, 1), dim=-1)]


class Softmax(Fused, shapes="(...) -> (...)", dtypes="float"):
    """Make each row of scores positive numbers that add up to 1.

        y_j = e^(x_j) / sum_k e^(x_k)        over the axis `dim`

    Source: Bridle 1990. The largest score is subtracted first, which changes nothing but overflow.
    """

    samples = SAMPLES

    def definition(x, dim):
        e = exp(x - amax(x, dim, True))
        return e / sum(e, dim, True)

    def forward(ctx, x, dim):
        ctx.axis = axis = _axis("softmax", dim, x.ndim)
        y = _along(kernels.softmax, axis, x)
        ctx.save(y)
        return y

    def backward(ctx, dy):
        (y,) = ctx.saved
        return _along(kernels.softmax_backward, ctx.axis, dy, y)

    # dy_j / dx_i = y_j ([i = j] - y_i): from the output alone, so the input need not be kept
    def backward_definition(ctx, dy):
        (y,) = ctx.saved
        return y * (dy - sum(dy * y, ctx.axis, True))

    def torch(torch, x, dim):
        return torch.softmax(x, dim)


class LogSoftmax(Fused, shapes="(...) -> (...)", dtypes="float"):
    """The logarithms of softmax's probabilities, exact where they are tiny.

    y_j = x_j - log sum_k e^(x_k)        over the axis `dim`
    """

    samples = SAMPLES

    def definition(x, dim):
        return x - logsumexp(x, dim, True)

    def forward(ctx, x, dim):
        ctx.axis = axis = _axis("log_softmax", dim, x.ndim)
        y = _along(kernels.log_softmax, axis, x)
        ctx.save(y)
        return y

    def backward(ctx, dy):
        (y,) = ctx.saved
        return _along(kernels.log_softmax_backward, ctx.axis, dy, y)

    def backward_definition(ctx, dy):
        (y,) = ctx.saved
        return dy - exp(y) * sum(dy, ctx.axis, True)

    def torch(torch, x, dim):
        return torch.log_softmax(x, dim)


def _along(kernel: Any, axis: int, *arrays: Any) -> Any:
    """A kernel over the last axis, applied along another one."""
    ndim = arrays[0].ndim
    if axis == ndim - 1:
        return kernel(*arrays)
    if not ndim:
        return kernel(*[a.reshape(1) for a in arrays]).reshape(())
    xp = array_module(arrays[0])
    return xp.moveaxis(kernel(*[xp.moveaxis(a, axis, -1) for a in arrays]), -1, axis)


softmax, log_softmax = Softmax.apply, LogSoftmax.apply
