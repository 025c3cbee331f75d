"""Normalisation of rows."""

from __future__ import annotations

import math
from typing import Any

from minilm import kernels
from minilm.errors import ShapeError
from minilm.ops.pointwise import rsqrt, square
from minilm.ops.reduction import mean, sum, var  # noqa: A004
from minilm.ops.registry import Composite, Fused, options, sample
from minilm.ops.shape import reshape


class LayerNorm(Fused, shapes="(..., C), (C), (C) -> (..., C)", dtypes="float", method=False, fresh=True):
    """Give each row mean 0 and variance 1, then scale and shift it.

        y = (x - mean) rstd weight + bias,    rstd = 1 / sqrt(var + eps)

    Source: Ba, Kiros & Hinton 2016, equations 3 and 4; var divides by C, as in PyTorch.
    """

    samples = [
        *options(eps=[1e-5, 1e-1]),
        sample((2, 3, 5), None, None),
        sample((3, 5), (5,), None),
        sample((5,), (5,), (5,)),
        sample((0, 5), (5,), (5,)),
    ]

    def definition(x, weight=None, bias=None, eps=1e-5):
        centred = x - mean(x, -1, True)
        y = centred * rsqrt(mean(square(centred), -1, True) + eps)
        y = y if weight is None else y * weight
        return y if bias is None else y + bias

    def forward(ctx, x, weight=None, bias=None, eps=1e-5):
        y, mean, rstd = kernels.layer_norm(x, weight, bias, eps)
        ctx.save(x, weight, bias, mean, rstd)
        ctx.eps = eps
        return y

    def remake(ctx, x, weight, bias, mean, rstd):
        return kernels.layer_norm(x, weight, bias, ctx.eps)[0]

    def backward(ctx, dy):
        x, weight, _, centre, rstd = ctx.saved
        return kernels.layer_norm_backward(dy, x, weight, centre, rstd)  # dx, dweight, dbias

    def torch(torch, x, weight=None, bias=None, eps=1e-5):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], weight, bias, eps)


class RmsNorm(Fused, shapes="(..., C), (C) -> (..., C)", dtypes="float", method=False, fresh=True):
    """Give each row a mean square of 1, then scale it.

        y = x rrms weight,    rrms = 1 / sqrt(mean of x^2 + eps)

    Source: Zhang & Sennrich 2019, equation 4.
    """

    samples = [*options(eps=[1e-6, 1e-1]), sample((3, 5), None), sample((5,), (5,)), sample((0, 5), (5,))]

    def definition(x, weight=None, eps=1e-6):
        y = x * rsqrt(mean(square(x), -1, True) + eps)
        return y if weight is None else y * weight

    def forward(ctx, x, weight=None, eps=1e-6):
        y, rrms = kernels.rms_norm(x, weight, eps)
        ctx.save(x, weight, rrms)
        ctx.eps = eps
        return y

    def remake(ctx, x, weight, rrms):
        return kernels.rms_norm(x, weight, ctx.eps)[0]

    def backward(ctx, dy):
        return kernels.rms_norm_backward(dy, *ctx.saved)  # dx, dweight

    def torch(torch, x, weight=None, eps=1e-6):
        return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


class AddLayerNorm(Fused, shapes="(..., C), (..., C), (C), (C) -> (..., C), (..., C)", dtypes="float", method=False):
    """The sum x + residual, and its layer_norm: the two results of a step along a Transformer's residual stream.

    Both additions, this one and that of the sum's two gradients, happen while the row is in the cache.

    Source: Vaswani et al. 2017, section 3.1: LayerNorm(x + Sublayer(x)). Errors: ShapeError unless x and the residual
    have one shape.
    """

    samples = [
        *options(eps=[1e-5, 1e-1]),
        sample((2, 3, 5), (2, 3, 5), None, None),
        sample((3, 5), (3, 5), (5,), None),
        sample((0, 5), (0, 5), (5,), (5,)),
    ]
    remakes, remake_reads = 1, slice(0, 3)

    def definition(x, residual, weight=None, bias=None, eps=1e-5):
        total = x + residual
        return total, layer_norm(total, weight, bias, eps)

    def forward(ctx, x, residual, weight=None, bias=None, eps=1e-5):
        _one_shape("add_layer_norm", x, residual)
        total, y, centre, rstd = kernels.add_layer_norm(x, residual, weight, bias, eps)
        ctx.save(total, weight, bias, centre, rstd)
        ctx.eps, ctx.materialize = eps, False
        return total, y

    def remake(ctx, total, weight, bias):
        return kernels.layer_norm(total, weight, bias, ctx.eps)[0]

    def backward(ctx, dsum, dy):
        total, weight, _, centre, rstd = ctx.saved
        if dy is None:
            return dsum, dsum, None, None
        dx, dweight, dbias = kernels.layer_norm_backward(dy, total, weight, centre, rstd, dsum)
        return dx, dx, dweight, dbias

    # The inputs need not be kept: everything follows from their sum.
    def backward_definition(ctx, dsum, dy):
        total, weight, *_ = ctx.saved
        if dy is None:
            return dsum, dsum, None, None
        centred = total - mean(total, -1, True)
        rstd = rsqrt(mean(square(centred), -1, True) + ctx.eps)
        n, dn = centred * rstd, dy if weight is None else dy * weight
        dx = (dn - mean(dn, -1, True) - n * mean(dn * n, -1, True)) * rstd
        dx = dx if dsum is None else dx + dsum
        return dx, dx, _over_rows(dy * n), _over_rows(dy)

    def torch(torch, x, residual, weight=None, bias=None, eps=1e-5):
        total = x + residual
        return total, torch.nn.functional.layer_norm(total, x.shape[-1:], weight, bias, eps)


class AddRmsNorm(Fused, shapes="(..., C), (..., C), (C) -> (..., C), (..., C)", dtypes="float", method=False):
    """The sum x + residual, and its rms_norm; see add_layer_norm.

    Source: Zhang & Sennrich 2019, equation 4. Errors: ShapeError unless x and the residual have one shape.
    """

    samples = [
        *options(eps=[1e-6, 1e-1]),
        sample((3, 5), (3, 5), None),
        sample((0, 5), (0, 5), (5,)),
    ]
    remakes, remake_reads = 1, slice(0, 2)

    def definition(x, residual, weight=None, eps=1e-6):
        total = x + residual
        return total, rms_norm(total, weight, eps)

    def forward(ctx, x, residual, weight=None, eps=1e-6):
        _one_shape("add_rms_norm", x, residual)
        total, y, rrms = kernels.add_rms_norm(x, residual, weight, eps)
        ctx.save(total, weight, rrms)
        ctx.eps, ctx.materialize = eps, False
        return total, y

    def remake(ctx, total, weight):
        return kernels.rms_norm(total, weight, ctx.eps)[0]

    def backward(ctx, dsum, dy):
        total, weight, rrms = ctx.saved
        if dy is None:
            return dsum, dsum, None
        dx, dweight = kernels.rms_norm_backward(dy, total, weight, rrms, dsum)
        return dx, dx, dweight

    def backward_definition(ctx, dsum, dy):
        total, weight, _ = ctx.saved
        if dy is None:
            return dsum, dsum, None
        rrms = rsqrt(mean(square(total), -1, True) + ctx.eps)
        n, dn = total * rrms, dy if weight is None else dy * weight
        dx = (dn - n * mean(dn * n, -1, True)) * rrms
        dx = dx if dsum is None else dx + dsum
        return dx, dx, _over_rows(dy * n)

    def torch(torch, x, residual, weight=None, eps=1e-6):
        total = x + residual
        return total, torch.nn.functional.rms_norm(total, x.shape[-1:], weight, eps)


class BatchNorm(Composite, shapes="(B, C, ...), (C), (C) -> (B, C, ...)", method=False):
    """Give each channel mean 0 and variance 1 over the batch and all places, then scale and shift it.

        y = (x - mean) rstd weight + bias,    rstd = 1 / sqrt(var + eps)

    `moments` gives other means and variances than the batch's own (var divided by N), each (C).

    Source: Ioffe & Szegedy 2015, algorithm 1. Errors: ShapeError for rows of another length.
    """

    samples = [
        *[sample((2, 3, 5, 7), (3,), (3,), eps=eps) for eps in (1e-5, 1e-1)],
        sample((5, 3), None, None),
        sample((2, 3, 5), (3,), None),
    ]

    def definition(x, weight=None, bias=None, eps=1e-5, moments=None):
        means, variances = batch_moments(x) if moments is None else moments
        place = (x.shape[1],) + (1,) * (len(x.shape) - 2)  # beside the axes of x
        for name, row in (("mean", means), ("var", variances), ("weight", weight), ("bias", bias)):
            if row is not None and tuple(row.shape) != place[:1]:
                raise ShapeError(
                    f"batch_norm: {name} {tuple(row.shape)} for the {place[0]} channels of {tuple(x.shape)}"
                )
        y = (x - reshape(means, place)) * rsqrt(reshape(variances, place) + eps)
        y = y if weight is None else y * reshape(weight, place)
        return y if bias is None else y + reshape(bias, place)

    def torch(torch, x, weight=None, bias=None, eps=1e-5):
        return torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.0, eps)


class GroupNorm(Composite, shapes="(B, C, ...), (C), (C) -> (B, C, ...)", method=False):
    """Give each of `num_groups` groups of channels mean 0 and variance 1 in each example, then scale and shift.

    Source: Wu & He 2018, equations 1 to 3 and 7. Errors: ShapeError for channels that cannot be dealt into the groups.
    """

    samples = [
        sample((2, 6, 5, 7), (6,), (6,), num_groups=3),
        sample((2, 6, 5), None, None, num_groups=1, eps=0.1),
        sample((3, 6), (6,), None, num_groups=2),
    ]

    def definition(x, weight=None, bias=None, num_groups=1, eps=1e-5):
        if len(x.shape) < 2 or num_groups < 1 or x.shape[1] % num_groups:
            raise ShapeError(f"group_norm: {num_groups} groups of the channels of (B, C, ...), not of {tuple(x.shape)}")
        B, C, size = x.shape[0], x.shape[1], math.prod(x.shape[1:])
        y = reshape(layer_norm(reshape(x, (B, num_groups, size // num_groups)), None, None, eps), x.shape)
        place = (C,) + (1,) * (len(x.shape) - 2)
        y = y if weight is None else y * reshape(weight, place)
        return y if bias is None else y + reshape(bias, place)

    def torch(torch, x, weight=None, bias=None, num_groups=1, eps=1e-5):
        return torch.nn.functional.group_norm(x, num_groups, weight, bias, eps)


def batch_moments(x: Any) -> tuple[Any, Any]:
    """The mean and variance of each channel of x (B, C, ...): (C) and (C). Errors: ShapeError for a single value."""
    if len(x.shape) < 2 or math.prod((x.shape[0], *x.shape[2:])) == 1:
        raise ShapeError(f"batch_norm: a variance needs more than one value for each channel of (B, C, ...): {x.shape}")
    axes = (0, *range(2, len(x.shape)))
    return mean(x, axes), var(x, axes, 0)


def _one_shape(name: str, x: Any, residual: Any) -> None:
    if x.shape != residual.shape:
        raise ShapeError(f"{name}: x {x.shape} and residual {residual.shape} must have one shape")


def _over_rows(x: Any) -> Any:
    """The sum over all axes but the last one."""
    return sum(reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), 0)


layer_norm, rms_norm = LayerNorm.apply, RmsNorm.apply
batch_norm, group_norm = BatchNorm.apply, GroupNorm.apply
add_layer_norm, add_rms_norm = AddLayerNorm.apply, AddRmsNorm.apply
