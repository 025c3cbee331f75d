"""exp, tanh, sigmoid, erf and GELU in C: their errors in units of the last place, over the whole range."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("native")

DTYPES = ("float32", "float64")
wide = np.longdouble
ROOT_HALF, PI = np.sqrt(wide("0.5")), wide("3.14159265358979323846")
_erf, _erfc = np.vectorize(math.erf, otypes="d"), np.vectorize(math.erfc, otypes="d")


def sweep(dtype):
    """Numbers of every size and sign, densest where the functions bend."""
    rng = np.random.default_rng(0)
    if dtype == "float32":  # every 1009th that there is
        every = np.arange(0, 2**32, 1009, dtype="uint64").astype("uint32").view("float32")
        every = every[np.isfinite(every)][::17]
    else:
        every = rng.normal(size=20000) * 10.0 ** rng.integers(-300, 3, 20000)
    dense = [np.linspace(-6, 6, 30001), np.linspace(-110, 110, 10001), np.linspace(-760, 720, 5001)]
    return np.concatenate([every, *dense]).astype(dtype)


def off(found, exact, dtype):
    """The errors in units of the last place of the exact result."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = exact.astype(dtype)
        errors = abs(found - exact) / np.spacing(abs(rounded)).astype(wide)
    return np.where(found == rounded, 0, errors).astype("float64")


def sigmoid(x):
    e = np.exp(-abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def erfc(z):
    """math.erfc, whose argument is rounded to float64: put right to first order."""
    near = z.astype("float64")
    slope = -2 / np.sqrt(PI) * np.exp(-z * z)
    return _erfc(near) + slope * (z - near)


EXACT = {
    "exp": (np.exp, 2),
    "tanh": (np.tanh, 3),
    "sigmoid": (sigmoid, 3),
    "erf": (lambda x: wide(1) * _erf(x.astype("float64")), 2),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(EXACT))
def test_functions_are_accurate(native, name, dtype):
    x = sweep(dtype)
    exact, bound = EXACT[name]
    with np.errstate(over="ignore", under="ignore"):
        errors = off(getattr(native, name)(x), exact(x.astype(wide)), dtype)
    assert errors.max() <= bound, f"{errors.max()} at {x[errors.argmax()]!r}"


def normal(x):
    return x * erfc(-x * ROOT_HALF) / 2


def twice_u(x):
    return 2 * np.sqrt(2 / PI) * (x + wide("0.044715") * x**3)


def by_tanh(x):
    return x * sigmoid(twice_u(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("approximate", "exact"), [("none", normal), ("tanh", by_tanh)])
def test_gelu_is_accurate_however_small_it_is(native, approximate, exact, dtype):
    x = sweep(dtype)
    x = x[(x > -8 if dtype == "float32" else x > -20) & (abs(x) > 1e-30) & (x < 1e10)]
    tanh = approximate == "tanh"
    exponent = abs(twice_u(x.astype(wide))) if tanh else x.astype(wide) ** 2 / 2
    fused = native.instruction_set() in ("x86-64-v3", "x86-64-v4", "aarch64")
    errors = off(native.gelu(x, approximate), exact(x.astype(wide)), dtype)
    # rounding the exponent is magnified by the exponential; it is put right where products are not rounded
    bound = 7 + (2 * exponent * (x < 0) if tanh or not fused else (x < -8) * 8)
    assert (errors <= bound).all(), f"{errors.max()} at {x[(errors - bound).argmax()]!r}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelus_slope_is_accurate(native, approximate, dtype):
    x = sweep(dtype)
    x = x[abs(x) < 30]
    z = x.astype(wide)
    if approximate == "none":
        exact = erfc(-z * ROOT_HALF) / 2 + z * np.exp(-z * z / 2) / np.sqrt(2 * PI)
    else:
        P = sigmoid(twice_u(z))
        exact = P + z * P * (1 - P) * 2 * np.sqrt(2 / PI) * (1 + 3 * wide("0.044715") * z * z)
    found = native.gelu_backward(np.full_like(x, 2), x, approximate)
    # P and x P' are up to 1 and cancel near -0.75
    assert abs(found / 2 - exact).max() <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_ordinary_number(native, dtype):
    inf, nan, tiny = np.inf, np.nan, np.finfo(dtype).smallest_subnormal
    x = np.array([-inf, inf, nan, 0.0, -0.0, tiny, -tiny, 1e4, -1e4, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    expected = {
        "exp": [0, inf, nan, 1, 1, 1, 1, inf, 0, inf, 0],
        "tanh": [-1, 1, nan, 0.0, -0.0, tiny, -tiny, 1, -1, 1, -1],
        "sigmoid": [0, 1, nan, 0.5, 0.5, 0.5, 0.5, 1, 0, 1, 0],
        "erf": [-1, 1, nan, 0.0, -0.0, tiny, -tiny, 1, -1, 1, -1],
    }
    for name, values in expected.items():
        found, exact = getattr(native, name)(x), np.array(values, dtype)
        np.testing.assert_array_equal(found, exact, err_msg=name)
        number = ~np.isnan(exact)
        np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(exact[number]), err_msg=name)
    for approximate in ("none", "tanh"):
        y, slope = native.gelu(x, approximate), native.gelu_backward(np.ones_like(x), x, approximate)
        np.testing.assert_array_equal(y[[1, 2, 3, 4, 7, 8, 9, 10]], x[[1, 2, 3, 4, 7, 4, 9, 4]])
        np.testing.assert_array_equal(slope, [0, 1, nan, 0.5, 0.5, 0.5, 0.5, 1, 0, 1, 0])


def test_an_error_would_be_seen(native):
    """The measure itself: a result off by three units of the last place counts as three."""
    x = np.linspace(1, 2, 101, dtype="float32")
    y = np.exp(x.astype(wide)).astype("float32")
    assert 2.4 < off(y + 3 * np.spacing(y), np.exp(x.astype(wide)), "float32").max() < 3.6
