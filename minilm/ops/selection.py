"""Operations that compare, choose or cut: their results have kinks or steps, not slopes of their own."""

from __future__ import annotations

from typing import Any

from minilm import dtypes, kernels
from minilm.device import array_module
from minilm.errors import AutogradError, DtypeError
from minilm.modes import state
from minilm.ops.registry import Fused, Primitive, options, sample
from minilm.tensor import Tensor

BINARY = "(...), (...) -> (...)"
UNARY = "(...) -> (...)"


# --- comparisons: truth has no slope --------------------------------------------------------------


class Eq(Primitive, shapes=BINARY, differentiable=False):
    """z = (x == y)"""

    def forward(ctx, x, y):
        return array_module(x).equal(x, y)


class Ne(Primitive, shapes=BINARY, differentiable=False):
    """z = (x != y)"""

    def forward(ctx, x, y):
        return array_module(x).not_equal(x, y)


class Lt(Primitive, shapes=BINARY, differentiable=False):
    """z = (x < y)"""

    def forward(ctx, x, y):
        return array_module(x).less(x, y)


class Le(Primitive, shapes=BINARY, differentiable=False):
    """z = (x <= y)"""

    def forward(ctx, x, y):
        return array_module(x).less_equal(x, y)


class Gt(Primitive, shapes=BINARY, differentiable=False):
    """z = (x > y)"""

    def forward(ctx, x, y):
        return array_module(x).greater(x, y)


class Ge(Primitive, shapes=BINARY, differentiable=False):
    """z = (x >= y)"""

    def forward(ctx, x, y):
        return array_module(x).greater_equal(x, y)


class Isnan(Primitive, shapes=UNARY, differentiable=False):
    """z = whether x is not a number"""

    def forward(ctx, x):
        return array_module(x).isnan(x)


class Isinf(Primitive, shapes=UNARY, differentiable=False):
    """z = whether x is infinite"""

    def forward(ctx, x):
        return array_module(x).isinf(x)


class Isfinite(Primitive, shapes=UNARY, differentiable=False):
    """z = whether x is a finite number"""

    def forward(ctx, x):
        return array_module(x).isfinite(x)


class LogicalAnd(Primitive, shapes=BINARY, differentiable=False):
    """z = x and y, where 0 is false"""

    domain = "bool"

    def forward(ctx, x, y):
        return array_module(x).logical_and(x, y)


class LogicalOr(Primitive, shapes=BINARY, differentiable=False):
    """z = x or y"""

    domain = "bool"

    def forward(ctx, x, y):
        return array_module(x).logical_or(x, y)


class LogicalNot(Primitive, shapes=UNARY, differentiable=False):
    """z = not x"""

    domain = "bool"

    def forward(ctx, x):
        return array_module(x).logical_not(x)


class BitwiseAnd(Primitive, shapes=BINARY, differentiable=False):
    """z = x & y, bit by bit; of bools their "and" """

    domain = "bool"

    def forward(ctx, x, y):
        return array_module(x).bitwise_and(x, y)


class BitwiseOr(Primitive, shapes=BINARY, differentiable=False):
    """z = x | y, bit by bit; of bools their "or" """

    domain = "bool"

    def forward(ctx, x, y):
        return array_module(x).bitwise_or(x, y)


class BitwiseXor(Primitive, shapes=BINARY, differentiable=False):
    """z = x ^ y, bit by bit; of bools whether just one is true"""

    domain = "bool"

    def forward(ctx, x, y):
        return array_module(x).bitwise_xor(x, y)


class BitwiseNot(Primitive, shapes=UNARY, differentiable=False):
    """z = ~x, bit by bit; of bools the opposite"""

    domain = "bool"

    def forward(ctx, x):
        return array_module(x).invert(x)


class FloorDivide(Primitive, shapes=BINARY, differentiable=False):
    """z = floor(x / y), which has no slope; integers stay integers"""

    domain = ("distinct", "nonzero")

    def forward(ctx, x, y):
        if getattr(x, "dtype", None) is None or x.dtype.kind != "f":
            refuse_zero("floor_divide", y)
        return array_module(x).floor_divide(x, y)

    def torch(torch, x, y):
        return torch.floor_divide(x.detach(), y.detach())


def refuse_zero(name, divisor):
    """Raise ZeroDivisionError for integers divided by 0, of which NumPy would make 0."""
    kind = getattr(divisor, "dtype", None)
    if (isinstance(divisor, int) or (kind is not None and kind.kind != "f")) and not array_module(divisor).all(divisor):
        raise ZeroDivisionError(f"{name}: an integer divided by 0")


eq, ne, lt, le, gt, ge = Eq.apply, Ne.apply, Lt.apply, Le.apply, Gt.apply, Ge.apply
isnan, isinf, isfinite = Isnan.apply, Isinf.apply, Isfinite.apply
logical_and, logical_or, logical_not = LogicalAnd.apply, LogicalOr.apply, LogicalNot.apply
bitwise_and, bitwise_or, bitwise_xor = BitwiseAnd.apply, BitwiseOr.apply, BitwiseXor.apply
bitwise_not, floor_divide = BitwiseNot.apply, FloorDivide.apply


# --- steps: the slope is 0 almost everywhere ------------------------------------------------------


class Sign(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = -1, 0 or 1, and 0 for NaN;  dx = 0"""

    domain = "nonzero"

    def forward(ctx, x):
        xp = array_module(x)
        return xp.sign(xp.where(x == x, x, x.dtype.type(0)))

    def backward(ctx, dz):
        return dz * 0


class Floor(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = the largest whole number not above x;  dx = 0"""

    domain = "distinct"

    def forward(ctx, x):
        return array_module(x).floor(x) if x.dtype.kind == "f" else x.copy()

    def backward(ctx, dz):
        return dz * 0


class Ceil(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = the smallest whole number not below x;  dx = 0"""

    domain = "distinct"

    def forward(ctx, x):
        return array_module(x).ceil(x) if x.dtype.kind == "f" else x.copy()

    def backward(ctx, dz):
        return dz * 0


class Round(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = the nearest whole number, halves to the even one;  dx = 0"""

    domain = "distinct"

    def forward(ctx, x):
        return array_module(x).rint(x) if x.dtype.kind == "f" else x.copy()

    def backward(ctx, dz):
        return dz * 0


sign, floor, ceil, round = Sign.apply, Floor.apply, Ceil.apply, Round.apply


# --- kinks: the slope jumps -----------------------------------------------------------------------


class Abs(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = |x|;  dx = dz sign(x), 0 at 0"""

    domain = "nonzero"

    def forward(ctx, x):
        ctx.save(x)
        return array_module(x).abs(x)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return dz * sign(x)


class Relu(Fused, shapes=UNARY, smooth=False, inplace=True):
    """z = max(x, 0);  dx = 0 where x <= 0, else dz, also at NaN  (Nair & Hinton 2010)"""

    domain = "nonzero"

    def definition(x):
        return where(x <= 0, 0.0, x)

    def forward(ctx, x):
        z = kernels.relu(x)
        ctx.save(z)
        return z

    def backward(ctx, dz):
        (z,) = ctx.saved
        return kernels.relu_backward(dz, z)

    def backward_definition(ctx, dz):
        (z,) = ctx.saved
        return where(z <= 0, 0.0, dz)


class LeakyRelu(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = x where x > 0, else negative_slope x  (Maas, Hannun & Ng 2013)"""

    domain = "nonzero"
    samples = options(negative_slope=[0.01, 0.3])

    def forward(ctx, x, negative_slope=0.01):
        ctx.save(x)
        ctx.negative_slope = negative_slope
        return array_module(x).where(x > 0, x, x * negative_slope)

    def backward(ctx, dz):
        (x,) = ctx.saved
        return where(x > 0, dz, dz * ctx.negative_slope)


def _constant(name: str, label: str, value: Any, instead: str) -> Any:
    """A number, or a Tensor's array. Errors: AutogradError for a Tensor whose gradient would be lost without a word."""
    if not isinstance(value, Tensor):
        return value
    if value.requires_grad and state.recording:
        raise AutogradError(f"{name}: no gradient flows to {label}, and it requires one; {instead} has one")
    return value.array


class Clamp(Primitive, shapes=UNARY, smooth=False, inplace=True):
    """z = x, but at least `min` and at most `max`;  dx = dz where min <= x <= max, else 0"""

    domain = "distinct"
    samples = options(min=[None, -0.31], max=[0.53, 0.97])

    def forward(ctx, x, min=None, max=None):
        if min is None and max is None:
            raise ValueError("clamp: give min, max or both")
        min = _constant("clamp", "min", min, "maximum(x, min)")
        max = _constant("clamp", "max", max, "minimum(x, max)")
        ctx.save(x)
        ctx.low, ctx.high = min, max
        z = x if min is None else array_module(x).maximum(x, x.dtype.type(min))
        return z if max is None else array_module(x).minimum(z, x.dtype.type(max))

    def backward(ctx, dz):
        (x,) = ctx.saved
        inside = x >= ctx.low if ctx.low is not None else x <= ctx.high
        if ctx.low is not None and ctx.high is not None:
            inside = logical_and(inside, x <= ctx.high)
        return dz * inside


class Maximum(Primitive, shapes=BINARY, smooth=False):
    """z = the larger of x and y;  the gradient goes to it, half to each where they are equal"""

    domain = "distinct"

    def forward(ctx, x, y):
        ctx.save(x, y)
        return array_module(x).maximum(x, y)

    def backward(ctx, dz):
        x, y = ctx.saved
        dwon = where(eq(x, y), dz * 0.5, dz)  # of a NaN neither is the larger: both get all, as in PyTorch
        return where(lt(x, y), 0.0, dwon), where(gt(x, y), 0.0, dwon)


class Minimum(Primitive, shapes=BINARY, smooth=False):
    """z = the smaller of x and y;  the gradient goes to it, half to each where they are equal"""

    domain = "distinct"

    def forward(ctx, x, y):
        ctx.save(x, y)
        return array_module(x).minimum(x, y)

    def backward(ctx, dz):
        x, y = ctx.saved
        dwon = where(eq(x, y), dz * 0.5, dz)
        return where(gt(x, y), 0.0, dwon), where(lt(x, y), 0.0, dwon)


abs, relu, leaky_relu = Abs.apply, Relu.apply, LeakyRelu.apply
clamp, maximum, minimum = Clamp.apply, Maximum.apply, Minimum.apply


# --- choices --------------------------------------------------------------------------------------


class Where(Primitive, shapes="(...), (...), (...) -> (...)", constants=("condition",), method=False):
    """z = x where the condition holds, else y"""

    domain = ("bool", "normal", "normal")

    def forward(ctx, condition, x, y):
        ctx.save(condition)
        z = array_module(condition).where(condition, x, y)
        if hasattr(x, "dtype") or hasattr(y, "dtype"):
            return z
        return z.astype(dtypes.result_type((x, y)))  # of two Python numbers NumPy would make float64

    def backward(ctx, dz):
        (condition,) = ctx.saved
        return (
            None,
            where(condition, dz, 0.0) if ctx.needs[1] else None,
            where(condition, 0.0, dz) if ctx.needs[2] else None,
        )


class MaskedFill(Primitive, shapes="(...), (...) -> (...)", constants=("mask",), inplace=True):
    """z = value where the mask holds, else x;  dx = dz where it does not"""

    domain = ("normal", "bool")
    samples = [sample((2, 3, 5), (3, 5), value=-1.5), sample((2, 3), (2, 3), value=float("inf"))]

    def forward(ctx, x, mask, value):
        if mask.dtype != bool:
            raise DtypeError(f"masked_fill: the mask must be boolean, and this one is {mask.dtype}")
        value = _constant("masked_fill", "value", value, "where(mask, value, x)")
        ctx.save(mask)
        return array_module(x).where(mask, x.dtype.type(value), x)

    def backward(ctx, dz):
        (mask,) = ctx.saved
        return where(mask, 0.0, dz), None


where, masked_fill = Where.apply, MaskedFill.apply


# --- whole tensors compared: one Python bool ------------------------------------------------------


def equal(x: Tensor, y: Tensor) -> bool:
    """Whether x and y have the same shape and the same elements."""
    return x.shape == y.shape and bool((x.array == y.array).all())


def allclose(x: Tensor, y: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> bool:
    """Whether |x - y| <= atol + rtol |y| everywhere."""
    return bool(array_module(x.array).allclose(x.array, y.array, rtol, atol, equal_nan))
