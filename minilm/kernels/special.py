"""Special functions that NumPy lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.polynomial.chebyshev import chebval

from minilm.device import array_module

Array = Any

# erf(x) / x as a function of t = x^2 is smooth and even. In float32 a ratio of two polynomials of degree 5
# in t, from least squares on 0 <= x <= 4 (relative error 3e-8, less than float32 can tell); erf(4) rounds to 1.
_NUMERATOR = (
    1.128379142,
    0.1931321926,
    0.05304480351,
    0.003865223314,
    0.0002840922223,
    1.98896279e-06,
)
_DENOMINATOR = (
    1.0,
    0.504491576,
    0.1151772905,
    0.015170719,
    0.001181071039,
    3.741824182e-05,
)

# In float64 two Chebyshev series, interpolated in 40 digits at 200 nodes and cut where the terms fall
# below 1e-15: erf(x) / x in x^2 for |x| <= 2, and erfc(x) e^(x^2) for 2 <= x <= 6, where 1 - erfc rounds to 1.
_NEAR = (
    0.7415552820424018,
    -0.30107107338659495,
    0.06899483068983156,
    -0.013916271264722188,
    0.0024207995224334636,
    -0.0003658639685848086,
    4.862098443231905e-05,
    -5.749256558035685e-06,
    6.113243578434765e-07,
    -5.8991015312958435e-08,
    5.2070090920686485e-09,
    -4.2329758799655433e-10,
    3.188113506649175e-11,
    -2.2361550188326843e-12,
    1.467329847991085e-13,
    -9.044001985381747e-15,
    5.254813715470919e-16,
    -2.887426122284945e-17,
    1.5047851875576326e-18,
    -7.457289282094424e-20,
    3.522563809903997e-21,
)
_FAR = (
    0.15454893254411423,
    -0.07674006034821483,
    0.01849487416970198,
    -0.004337233595514166,
    0.0009916839077238056,
    -0.00022144890703087983,
    4.836760032122529e-05,
    -1.034609832664543e-05,
    2.1698719431920526e-06,
    -4.4664937548784355e-07,
    9.031674382673662e-08,
    -1.7955339488870227e-08,
    3.5120800624763815e-09,
    -6.763532420163472e-10,
    1.2831846446281688e-10,
    -2.3997023709710498e-11,
    4.425938010116817e-12,
    -8.054583827182102e-13,
    1.446990739131772e-13,
    -2.5671711791155715e-14,
    4.4996611900036674e-15,
)


def in_blocks(function: Callable[..., Array], *arrays: Array, size: int = 16384) -> Array:
    """An elementwise function of arrays of one shape, applied to a few thousand elements at a time.

    What it computes on the way then stays in the processor's cache: a formula of twenty steps over a
    large array would otherwise carry everything to memory and back twenty times.
    """
    first = arrays[0]
    if first.size <= size:
        return function(*arrays)
    result = array_module(first).empty(first.shape, first.dtype)
    flat, parts = result.reshape(-1), [a.reshape(-1) for a in arrays]
    for start in range(0, first.size, size):
        flat[start : start + size] = function(*[part[start : start + size] for part in parts])
    return result


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), from e^-|x| so that nothing overflows."""
    xp = array_module(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, x.dtype.type(1), e) / (1 + e)


def erf(x: Array) -> Array:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x, elementwise, in x's own type.

    The error stays below 7 units in the last place (tests/kernels/test_special.py compares with `math.erf`).
    """
    if x.dtype.itemsize == 8:
        return in_blocks(_erf_in_float64, x)
    if x.dtype.itemsize == 2:
        return _erf_in_float32(x.astype("float32")).astype(x.dtype)
    return in_blocks(_erf_in_float32, x)


def _erf_in_float32(x: Array) -> Array:
    xp = array_module(x)
    inside = xp.clip(x, -4, 4)
    t = inside * inside
    numerator, denominator = xp.full_like(t, _NUMERATOR[-1]), xp.full_like(t, _DENOMINATOR[-1])
    for polynomial, coefficients in ((numerator, _NUMERATOR), (denominator, _DENOMINATOR)):
        for coefficient in coefficients[-2::-1]:  # Horner's rule, in place: memory is what this costs
            polynomial *= t
            polynomial += coefficient
    numerator *= inside
    numerator /= denominator
    return xp.clip(numerator, -1, 1, out=numerator)


def _erf_in_float64(x: Array) -> Array:
    xp = array_module(x)
    size = xp.abs(x)
    near = xp.minimum(size, 2)
    far = xp.clip(size, 2, 6)
    inner = near * chebval(near * near * 0.5 - 1, _NEAR)
    outer = 1 - xp.exp(-far * far) * chebval(far * 0.5 - 2, _FAR)
    return xp.copysign(xp.where(size > 2, outer, inner), x)
