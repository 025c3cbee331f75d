"""What Numba's kernels compute with: exponentials, erf, sums over a row in a fixed order, random numbers.

All of it is written so that LLVM makes vector instructions of the loops: without branches, and sums in 64 lanes.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from minilm.kernels import special
from minilm.kernels.jit_compiled import INLINED, inlined

Array = Any

# --- e^x -------------------------------------------------------------------------------------------
#
#     x = n ln 2 + r,  |r| <= ln 2 / 2:     e^x = 2^n e^r,     e^r = 1 + r + r^2 (1/2! + r/3! + ...)
#
# ln 2 is split in two so that n times its upper part is exact (Cody & Waite 1980). Adding and taking away
# 1.5 2^23 (2^52) rounds to an integer, which then stands in the lowest bits. 2^n is multiplied in two steps,
# since n may leave the exponents of normal numbers. Numba's own exp is the C library's, one element at a time.

_F = np.float32
_LOG2E_F, _HIGH_F, _LOW_F, _ROUND_F = _F(1.4426950408889634), _F(0.693359375), _F(-2.12194440e-4), _F(1.5 * 2**23)
_LOG2E_D, _HIGH_D, _LOW_D, _ROUND_D = 1.4426950408889634, 6.93145751953125e-1, 1.42860682030941723212e-6, 1.5 * 2.0**52
_LOWEST_F, _HIGHEST_F, _LOWEST_D, _HIGHEST_D = _F(-104), _F(89), -746.0, 710.0  # beyond: 0 and infinity
_BITS_F, _BITS_D = _ROUND_F.view(np.int32), np.float64(_ROUND_D).view(np.int64)


def _exp_float32(x: Any) -> Any:
    z = _LOWEST_F if x < _LOWEST_F else x  # comparisons that let NaN pass
    z = _HIGHEST_F if z > _HIGHEST_F else z
    rounded = np.float32(z * _LOG2E_F + _ROUND_F)
    n = rounded - _ROUND_F
    r = (z - n * _HIGH_F) - n * _LOW_F
    e = _F(1 / 720) + r * _F(1 / 5040)
    e = _F(1 / 24) + r * (_F(1 / 120) + r * e)
    e = _F(1 / 2) + r * (_F(1 / 6) + r * e)
    e = _F(1) + (r + r * r * e)
    power = np.int32(rounded.view(np.int32) - _BITS_F)
    half = np.int32(power >> np.int32(1))
    lower = np.int32((half + np.int32(127)) << np.int32(23)).view(np.float32)
    upper = np.int32((power - half + np.int32(127)) << np.int32(23)).view(np.float32)
    return e * lower * upper


def _exp_float64(x: Any) -> Any:
    z = _LOWEST_D if x < _LOWEST_D else x
    z = _HIGHEST_D if z > _HIGHEST_D else z
    rounded = np.float64(z * _LOG2E_D + _ROUND_D)
    n = rounded - _ROUND_D
    r = (z - n * _HIGH_D) - n * _LOW_D
    e = 1 / 479001600 + r * (1 / 6227020800)
    e = 1 / 3628800 + r * (1 / 39916800 + r * e)
    e = 1 / 40320 + r * (1 / 362880 + r * e)
    e = 1 / 720 + r * (1 / 5040 + r * e)
    e = 1 / 24 + r * (1 / 120 + r * e)
    e = 1 / 2 + r * (1 / 6 + r * e)
    e = 1 + (r + r * r * e)
    power = rounded.view(np.int64) - _BITS_D
    half = power >> 1
    lower = np.int64((half + 1023) << 52).view(np.float64)
    upper = np.int64((power - half + 1023) << 52).view(np.float64)
    return e * lower * upper


def exp(x: Any) -> Any:
    """e^x of a float32 or float64, to about one unit in the last place."""
    raise NotImplementedError("for compiled code only")


@overload(exp, strict=False, jit_options=INLINED)
def _exp(x: Any) -> Any:
    return _exp_float32 if x == numba.float32 else _exp_float64


# --- tanh and the logistic function ------------------------------------------------------------------
#
#     tanh x = m / (m + 2),  m = e^2x - 1 = (2^n - 1) + 2^n (e^r - 1) for x >= 0,  n and r as above
#
# Where n = 0 nothing is left but the small e^r - 1, exact in all its digits. From 10 (20) on tanh rounds to 1.


def _tanh_float32(x: Any) -> Any:
    z = _F(2) * np.abs(x)
    z = _F(20) if z > _F(20) else z
    rounded = np.float32(z * _LOG2E_F + _ROUND_F)
    n = rounded - _ROUND_F
    r = (z - n * _HIGH_F) - n * _LOW_F
    e = _F(1 / 720) + r * _F(1 / 5040)
    e = _F(1 / 24) + r * (_F(1 / 120) + r * e)
    e = _F(1 / 2) + r * (_F(1 / 6) + r * e)
    power = np.int32((np.int32(rounded.view(np.int32) - _BITS_F) + np.int32(127)) << np.int32(23)).view(np.float32)
    m = (power - _F(1)) + power * (r + r * r * e)
    y = m / (m + _F(2))
    return -y if x < _F(0) else y


def _tanh_float64(x: Any) -> Any:
    z = 2.0 * np.abs(x)
    z = 40.0 if z > 40.0 else z
    rounded = np.float64(z * _LOG2E_D + _ROUND_D)
    n = rounded - _ROUND_D
    r = (z - n * _HIGH_D) - n * _LOW_D
    e = 1 / 479001600 + r * (1 / 6227020800)
    e = 1 / 3628800 + r * (1 / 39916800 + r * e)
    e = 1 / 40320 + r * (1 / 362880 + r * e)
    e = 1 / 720 + r * (1 / 5040 + r * e)
    e = 1 / 24 + r * (1 / 120 + r * e)
    e = 1 / 2 + r * (1 / 6 + r * e)
    power = np.int64((rounded.view(np.int64) - _BITS_D + 1023) << 52).view(np.float64)
    m = (power - 1.0) + power * (r + r * r * e)
    y = m / (m + 2.0)
    return -y if x < 0.0 else y


def tanh(x: Any) -> Any:
    """(e^x - e^-x) / (e^x + e^-x) of a float32 or float64, to a few units in the last place."""
    raise NotImplementedError("for compiled code only")


@overload(tanh, strict=False, jit_options=INLINED)
def _tanh(x: Any) -> Any:
    return _tanh_float32 if x == numba.float32 else _tanh_float64


def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x), from e^-|x| so that nothing overflows."""
    raise NotImplementedError("for compiled code only")


@overload(sigmoid, strict=False, jit_options=INLINED)
def _sigmoid(x: Any) -> Any:
    return _sigmoid_float32 if x == numba.float32 else _sigmoid_float64


def _sigmoid_float32(x: Any) -> Any:
    e = exp(-np.abs(x))
    return (_F(1) if x >= _F(0) else e) / (_F(1) + e)


def _sigmoid_float64(x: Any) -> Any:
    e = exp(-np.abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


# --- shares of the normal distribution ---------------------------------------------------------------
#
# In float32 erf is that of special.py, which says where the coefficients come from; in float64 the C library's, one
# element at a time: twice as fast as loops over so many coefficients as are needed there.

_NUMERATOR, _DENOMINATOR = (tuple(map(_F, c[::-1])) for c in (special._NUMERATOR, special._DENOMINATOR))


def _erf_float32(x: Any) -> Any:
    inside = _F(-4) if x < _F(-4) else x
    inside = _F(4) if inside > _F(4) else inside
    t = inside * inside
    numerator = denominator = _F(0)
    for c in _NUMERATOR:
        numerator = numerator * t + c
    for c in _DENOMINATOR:
        denominator = denominator * t + c
    y = numerator * inside / denominator
    y = _F(-1) if y < _F(-1) else y
    return _F(1) if y > _F(1) else y


def _erf_float64(x: Any) -> Any:
    return math.erf(x)


def erf(x: Any) -> Any:
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x."""
    raise NotImplementedError("for compiled code only")


@overload(erf, strict=False, jit_options=INLINED)
def _erf(x: Any) -> Any:
    return _erf_float32 if x == numba.float32 else _erf_float64


@inlined
def normal_share(x: Any, real: Any) -> Any:
    """P(x) of gelu."""
    return (erf(x * real(math.sqrt(0.5))) + real(1)) * real(0.5)


@inlined
def normal_share_by_tanh(x: Any, real: Any) -> Any:
    """Gelu's other P(x): (1 + tanh u) / 2 is 1 / (1 + e^(-2 u))."""
    u = (x * x * real(TANH_CUBE) + real(1)) * x * real(TANH_SCALE)
    return real(1) / (real(1) + exp(real(-2) * u))


TANH_SCALE, TANH_CUBE = math.sqrt(2 / math.pi), 0.044715


# --- sums over a row -------------------------------------------------------------------------------
#
# Lane l adds the elements l, l + 64, ..., then the lanes are added by halves: the order depends on the row's
# length alone. `lanes` is scratch, an array of 64 that lives as long as the task.

LANES = 64


@inlined
def row_max(x: Array, lanes: Array) -> Any:
    """The largest element; any number where there is a NaN, which the row's exponentials then bring back."""
    count = x.shape[0]
    whole = count - count % LANES
    for lane in range(LANES):
        lanes[lane] = -np.inf
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] = x[start + lane] if x[start + lane] > lanes[lane] else lanes[lane]
    for j in range(whole, count):
        lanes[j - whole] = x[j] if x[j] > lanes[j - whole] else lanes[j - whole]
    width = LANES // 2
    while width:
        for lane in range(width):
            other = lanes[lane + width]
            lanes[lane] = other if other > lanes[lane] else lanes[lane]
        width //= 2
    return lanes[0]


@inlined
def row_sum(x: Array, lanes: Array) -> Any:
    """The sum of all elements."""
    count = x.shape[0]
    whole = count - count % LANES
    lanes[:] = 0
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += x[start + lane]
    for j in range(whole, count):
        lanes[j - whole] += x[j]
    return _fold(lanes)


@inlined
def row_dot(x: Array, y: Array, lanes: Array) -> Any:
    """The sum of all products x_j y_j, in the element type of the lanes."""
    real = lanes.dtype.type
    count = x.shape[0]
    whole = count - count % LANES
    lanes[:] = 0
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += real(x[start + lane]) * real(y[start + lane])
    for j in range(whole, count):
        lanes[j - whole] += real(x[j]) * real(y[j])
    return _fold(lanes)


@inlined
def row_sum_exp(x: Array, largest: Any, lanes: Array) -> Any:
    """The sum of all e^(x_j - largest)."""
    count = x.shape[0]
    whole = count - count % LANES
    lanes[:] = 0
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += exp(x[start + lane] - largest)
    for j in range(whole, count):
        lanes[j - whole] += exp(x[j] - largest)
    return _fold(lanes)


@inlined
def _fold(lanes: Array) -> Any:
    width = LANES // 2
    while width:
        for lane in range(width):
            lanes[lane] += lanes[lane + width]
        width //= 2
    return lanes[0]


# --- random numbers ----------------------------------------------------------------------------------

_LEFT, _RIGHT = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_LOW, _WEYL_HIGH = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_WORD, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)


@inlined
def philox_block(key: Any, stream: Any, block: Any) -> Any:
    """The four numbers of one counter, each a uint64 below 2^32, as in philox.py."""
    c0, c1, c2, c3 = block & _WORD, block >> _HALF, stream & _WORD, stream >> _HALF
    k0, k1 = key & _WORD, key >> _HALF
    for _ in range(10):
        left, right = c0 * _LEFT, c2 * _RIGHT
        c0, c2 = (right >> _HALF) ^ c1 ^ k0, (left >> _HALF) ^ c3 ^ k1
        c1, c3 = right & _WORD, left & _WORD
        k0, k1 = (k0 + _WEYL_LOW) & _WORD, (k1 + _WEYL_HIGH) & _WORD
    return c0, c1, c2, c3


@inlined
def keep_row(kept: Array, key: Any, row: Any, start: Any, least: Any) -> None:
    """Which elements start, start + 1, ... of a row dropout keeps: those whose 24 bits are not below `least`.

    `start` is a multiple of four.
    """
    count = kept.shape[0]
    for block in range(count // 4):
        c0, c1, c2, c3 = philox_block(key, np.uint64(row), np.uint64(start // 4 + block))
        kept[4 * block] = c0 >> np.uint64(8) >= least
        kept[4 * block + 1] = c1 >> np.uint64(8) >= least
        kept[4 * block + 2] = c2 >> np.uint64(8) >= least
        kept[4 * block + 3] = c3 >> np.uint64(8) >= least
    if count % 4:
        four = philox_block(key, np.uint64(row), np.uint64((start + count) // 4))
        for j in range(count % 4):
            kept[count - count % 4 + j] = four[j] >> np.uint64(8) >= least


def least_kept(p: float) -> np.uint64:
    """The smallest 24 random bits with which an element is kept: bits 2^-24 >= p, in integers."""
    return np.uint64(math.ceil(float(np.float32(p)) * 2**24))
