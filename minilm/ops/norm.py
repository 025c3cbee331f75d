"""Normalisation of rows."""

from __future__ import annotations

from minilm import kernels
from minilm.ops.pointwise import rsqrt, square
from minilm.ops.reduction import mean
from minilm.ops.registry import Fused, options, sample


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
        x, weight, _, mean, rstd = ctx.saved
        return kernels.layer_norm_backward(dy, x, weight, mean, rstd)  # dx, dweight, dbias

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


layer_norm, rms_norm = LayerNorm.apply, RmsNorm.apply
