"""Operations on each element alone: arithmetic, exponentials, activations, comparisons.

In the formulas z is the result, dz the gradient that arrives for it, dx the one that leaves for x.
Two inputs broadcast; the engine sums each gradient back to its input's shape.
"""

from __future__ import annotations

import math

from minilm import kernels
from minilm.device import array_module
from minilm.ops.registry import Composite, Primitive, options
from minilm.ops.selection import eq, floor_divide, ge, logical_and, refuse_zero, where

BINARY = "(...), (...) -> (...)"
UNARY = "(...) -> (...)"


# --- arithmetic ----------------------------------------------------------------------------------


class Add(Primitive, shapes=BINARY, inplace=True):
    """z = x + alpha y"""

    samples = options(alpha=[1, -2])

    def forward(ctx, x, y, alpha=1):
        ctx.alpha = alpha
        return x + y if alpha == 1 else x + y * alpha

    def backward(ctx, dz):
        return dz, dz if ctx.alpha == 1 else dz * ctx.alpha


add = Add.apply


class Sub(Primitive, shapes=BINARY, inplace=True):
    """z = x - alpha y"""

    samples = options(alpha=[1, -2])

    def forward(ctx, x, y, alpha=1):
        ctx.alpha = alpha
        return x - y if alpha == 1 else x - y * alpha

    def backward(ctx, dz):
        return dz, (-dz if ctx.alpha == 1 else dz * -ctx.alpha) if ctx.needs[1] else None


sub = Sub.apply


class Mul(Primitive, shapes=BINARY, inplace=True):
    """z = x y;  dx = dz y, dy = dz x"""

    def forward(ctx, x, y):
        ctx.save(x if ctx.needs[1] else None, y if ctx.needs[0] else None)
        return x * y

    def backward(ctx, dz):
        x, y = ctx.saved
        return None if y is None else dz * y, None if x is None else dz * x


mul = Mul.apply


class Div(Primitive, shapes=BINARY, dtypes="float", inplace=True):
    """z = x / y;  dx = dz / y, dy = -dz x / y^2"""

    domain = ("normal", "nonzero")

    def forward(ctx, x, y):
        ctx.save(x if ctx.needs[1] else None, y)
        return array_module(x).divide(x, y)

    def backward(ctx, dz):
        x, y = ctx.saved
        dx = dz / y
        return dx, None if x is None else -dx * (x / y)


div = Div.apply


class Pow(Primitive, shapes=BINARY, inplace=True):
    """z = x^y;  dx = dz y x^(y-1),  dy = dz x^y log x  (0 where y is 0, or x is 0)"""

    domain = ("positive", "normal")

    def forward(ctx, x, y):
        z = array_module(x).power(x, y)
        ctx.save(x, y, z if ctx.needs[1] else None)
        return z

    def backward(ctx, dz):
        x, y, z = ctx.saved
        dx = None
        if ctx.needs[0]:
            # y x^(y-1) by itself is 0 * infinity at x = 0, y = 0, where the slope is 0
            dx = dz * where(eq(y, 0), 0.0, y * pow(x, y - 1)) if not _is_number(y) else _power_slope(dz, x, y)
        if z is None:
            return dx, None
        return dx, dz * where(logical_and(eq(x, 0), ge(y, 0)), 0.0, z * log(x))


def _is_number(y):
    return isinstance(y, (int, float))


def _power_slope(dz, x, exponent):
    """dx of x^exponent for a plain number, without a power where a product will do."""
    if exponent == 0:
        return dz * 0
    if exponent == 2:
        return dz * (x * 2)
    return dz * (pow(x, exponent - 1) * exponent)


pow = Pow.apply


class Neg(Primitive, shapes=UNARY, inplace=True):
    """z = -x"""

    def forward(ctx, x):
        return -x

    def backward(ctx, dz):
        return -dz

    def torch(torch, x):
        return torch.neg(x)


neg = Neg.apply


class Remainder(Primitive, shapes=BINARY, smooth=False):
    """z = x - floor(x / y) y, with the sign of y"""

    domain = ("distinct", "nonzero")

    def forward(ctx, x, y):
        xp = array_module(x)
        if getattr(x, "dtype", None) is None or x.dtype.kind != "f":
            refuse_zero("remainder", y)
        ctx.save(x if ctx.needs[1] else None, y if ctx.needs[1] else None)
        return xp.remainder(x, y)

    def backward(ctx, dz):
        x, y = ctx.saved
        return dz, None if x is None else -dz * floor_divide(x, y)


remainder = Remainder.apply


# --- powers, exponentials, logarithms ------------------------------------------------------------


class Square(Primitive, shapes=UNARY, inplace=True):
    """z = x^2;  dx = 2 x dz"""

    def forward(ctx, x):
        ctx.save(x)
        return x * x

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz * (x * 2)


square = Square.apply


class Sqrt(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = sqrt(x);  dx = dz / (2 z)"""

    domain = "positive"

    def forward(ctx, x):
        z = array_module(x).sqrt(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz / (z * 2)


sqrt = Sqrt.apply


class Rsqrt(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = 1 / sqrt(x);  dx = -dz z^3 / 2"""

    domain = "positive"

    def forward(ctx, x):
        z = 1 / array_module(x).sqrt(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz * (z * z * z * -0.5)


rsqrt = Rsqrt.apply


class Exp(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = e^x;  dx = dz z"""

    def forward(ctx, x):
        z = kernels.exp(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz * z


exp = Exp.apply


class Expm1(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = e^x - 1, exact near 0;  dx = dz (z + 1)"""

    def forward(ctx, x):
        z = array_module(x).expm1(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz * (z + 1)


expm1 = Expm1.apply


class Log(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = ln x;  dx = dz / x"""

    domain = "positive"

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).log(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz / x


log = Log.apply


class Log1p(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = ln(1 + x), exact near 0;  dx = dz / (1 + x)"""

    domain = "positive"

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).log1p(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz / (x + 1)


log1p = Log1p.apply


class Log2(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = log2 x, exact for powers of 2;  dx = dz / (x ln 2)"""

    domain = "positive"

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).log2(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz / (x * math.log(2))


class Log10(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = log10 x, exact for powers of 10;  dx = dz / (x ln 10)"""

    domain = "positive"

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).log10(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz / (x * math.log(10))


class Reciprocal(Composite, shapes=UNARY, inplace=True):
    """z = 1 / x"""

    domain = "nonzero"

    def definition(x):
        return 1 / x


log2, log10, reciprocal = Log2.apply, Log10.apply, Reciprocal.apply


class Sin(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = sin x;  dx = dz cos x"""

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).sin(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz * cos(x)


sin = Sin.apply


class Cos(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = cos x;  dx = -dz sin x"""

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).cos(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return -dz * sin(x)


cos = Cos.apply


class Tanh(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = tanh x;  dx = dz (1 - z^2)"""

    def forward(ctx, x):
        z = kernels.tanh(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz * (1 - z * z)


tanh = Tanh.apply


class Sigmoid(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = 1 / (1 + e^-x);  dx = dz z (1 - z)"""

    def forward(ctx, x):
        z = kernels.sigmoid(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return dz * (z * (1 - z))


sigmoid = Sigmoid.apply


class Erf(Primitive, shapes=UNARY, dtypes="float", inplace=True):
    """z = 2 / sqrt(pi) * integral from 0 to x of e^(-t^2);  dx = dz 2 / sqrt(pi) e^(-x^2)"""

    def forward(ctx, x):
        ctx.save(x)
        return kernels.erf(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz * (exp(-(x * x)) * (2 / math.sqrt(math.pi)))


erf = Erf.apply
