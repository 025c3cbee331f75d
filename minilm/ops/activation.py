"""Smooth activations made of exponentials; relu and its kin, which have kinks, are in selection.py."""

from __future__ import annotations

from minilm.device import array_module
from minilm.ops.pointwise import sigmoid
from minilm.ops.registry import Primitive, options
from minilm.ops.selection import where

UNARY = "(...) -> (...)"


class Silu(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = x s(x) with the sigmoid s;  dx = dz (s + x s (1 - s))

    Source: Elfwing, Uchibe & Doya 2018; "swish" in Ramachandran, Zoph & Le 2017.
    """

    def forward(ctx, x):
        ctx.save(x)
        return x * sigmoid(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        s = sigmoid(x)
        return dz * (s * (1 + x * (1 - s)))


class Softplus(Primitive, shapes=UNARY, dtypes="float"):
    """z = ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold;  dx = dz s(beta x)

    Source: Dugas et al. 2001.
    """

    samples = options(beta=[1.0, 1.7], threshold=[20.0, 0.9])
    domain = "distinct"

    def forward(ctx, x, beta=1.0, threshold=20.0):
        xp = array_module(x)
        ctx.save(x)
        ctx.beta, ctx.threshold = beta, threshold
        # ln(1 + e^a) = max(a, 0) + ln(1 + e^-|a|): the exponential cannot overflow
        a = x * beta
        z = (xp.maximum(a, 0) + xp.log1p(xp.exp(-xp.abs(a)))) * (1 / beta)
        return xp.where(a > threshold, x, z)

    def backward(ctx, dz):
        (x,) = ctx.saved
        a = x * ctx.beta
        return where(a > ctx.threshold, dz, dz * sigmoid(a))


silu, softplus = Silu.apply, Softplus.apply
