"""erf against the C library's, in units of the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minilm.kernels.special import erf


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 6), ("float32", 7), ("float16", 1)])
def test_erf_equals_the_c_librarys(dtype, bound):
    rng = np.random.default_rng(0)
    x = np.concatenate([np.linspace(-7, 7, 20011), rng.normal(size=20011) * 1e-3, [0.0, -0.0, 2.0, 4.0, 6.0]])
    x = x.astype(dtype)
    exact = np.array([math.erf(v) for v in x.astype("float64")])
    y = erf(x)
    assert y.dtype == dtype
    last_place = np.spacing(np.abs(exact).astype(dtype))
    off = np.abs(y.astype("float64") - exact) / last_place.astype("float64")
    assert off.max() <= bound
    assert np.abs(y).max() <= 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_erf_of_what_is_no_finite_number(dtype):
    y = erf(np.array([math.inf, -math.inf, math.nan, 1e30, -0.0], dtype))
    np.testing.assert_array_equal(y, np.array([1, -1, math.nan, 1, -0.0], dtype))
    assert math.copysign(1, y[-1]) == -1
