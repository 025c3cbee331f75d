"""Smooth activations made of exponentials; relu and its kin, which have kinks, are in selection.py."""

from __future__ import annotations

import math

from minilm import kernels
from minilm.device import array_module
from minilm.ops.pointwise import erf, expm1, sigmoid, tanh
from minilm.ops.registry import Composite, Fused, Primitive, options
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


class Gelu(Fused, shapes="(...) -> (...)", dtypes="float", fresh=True):
    """z = x P(x), where P(x) is the share of the normal distribution below x.

        "none":  P(x) = (1 + erf(x / sqrt 2)) / 2
        "tanh":  P(x) = (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, what GPT-2 was trained with

    Source: Hendrycks & Gimpel 2016, section 2.
    """

    samples = options(approximate=["none", "tanh"])

    def definition(x, approximate="none"):
        if approximate == "tanh":
            return x * (1 + tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi))) * 0.5
        return x * (1 + erf(x * math.sqrt(0.5))) * 0.5

    def forward(ctx, x, approximate="none"):
        check_approximate(approximate)
        ctx.save(x)
        ctx.approximate = approximate
        return kernels.gelu(x, approximate)

    def remake(ctx, x):
        return kernels.gelu(x, ctx.approximate)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return kernels.gelu_backward(dz, x, ctx.approximate)

    def torch(torch, x, approximate="none"):
        return torch.nn.functional.gelu(x, approximate=approximate)


def check_approximate(approximate: str) -> None:
    """Raise ValueError unless it names one of GELU's two formulas."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")


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


class Elu(Composite, shapes=UNARY, smooth=False, method=False):
    """z = x where x > 0, else alpha (e^x - 1)

    Source: Clevert, Unterthiner & Hochreiter 2016, equation 1.
    """

    domain = "nonzero"
    samples = options(alpha=[1.0, 0.3])

    def definition(x, alpha=1.0):
        below = x <= 0
        return where(below, expm1(where(below, x, 0.0)) * alpha, x)  # the exponential sees no large x

    def torch(torch, x, alpha=1.0):
        return torch.nn.functional.elu(x, alpha)


class Logsigmoid(Composite, shapes=UNARY, method=False):
    """z = ln s(x) = -ln(1 + e^-x) with the sigmoid s, exact where s(x) rounds to 0"""

    def definition(x):
        return -softplus(-x, 1.0, math.inf)

    def torch(torch, x):
        return torch.nn.functional.logsigmoid(x)


gelu, silu, softplus = Gelu.apply, Silu.apply, Softplus.apply
elu, logsigmoid = Elu.apply, Logsigmoid.apply
