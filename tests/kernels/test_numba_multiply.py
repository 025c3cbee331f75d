"""Products in vector registers: any sizes and strides, lines of either length, nothing written outside."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")
from minilm.kernels import jit_multiply  # noqa: E402


@pytest.fixture(params=[32, 64])
def compiled(request, monkeypatch):
    """The module's functions for lines of so many bytes, whatever this machine's are."""
    monkeypatch.setattr(jit_multiply, "LINE", request.param)
    return {name: numba.njit(getattr(jit_multiply, name).py_func) for name in ("multiply", "lined")}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (8, 16, 16), (9, 1, 33), (23, 5, 40), (3, 0, 2), (0, 3, 2)])
def test_products(compiled, dtype, fresh, shape):
    N, K, M = shape
    random = np.random.default_rng(N + K + M)
    whole = compiled["lined"](M, np.dtype(dtype).itemsize)
    lanes = jit_multiply.LINE // np.dtype(dtype).itemsize
    assert whole % lanes == 0
    assert M <= whole < M + lanes
    b = random.normal(size=(2 * K, whole)).astype(dtype)[::2]
    for a in (random.normal(size=(N, K)), random.normal(size=(K, N)).T, random.normal(size=(2 * N, 3 * K))[::-2, ::3]):
        a = a.astype(dtype, order="K", copy=False)
        around = random.normal(size=(N + 2, whole + 2)).astype(dtype)
        before, out = around.copy(), around[1:-1, 1:-1]
        wanted = (0 if fresh else out.astype(np.float64)) + a.astype(np.float64) @ b.astype(np.float64)
        compiled["multiply"](a, b, out, M, fresh)
        np.testing.assert_allclose(out[:, :M], wanted[:, :M], rtol=0, atol=50 * np.finfo(dtype).eps)
        before[1:-1, 1:-1] = out
        np.testing.assert_array_equal(around, before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_whole_lines_fold_to_a_number(dtype):
    @numba.njit
    def fold(x):
        return jit_multiply.largest_in(x), jit_multiply.sum_of(x)

    lanes = jit_multiply.LINE // np.dtype(dtype).itemsize
    assert fold(np.zeros(0, dtype)) == (-np.inf, 0)
    for count in (lanes, 5 * lanes):
        for at in range(count):
            x = np.full(count, -3, dtype)
            x[at] = -2
            assert fold(x) == (-2, 1 - 3 * count)


def test_an_element_of_the_product_is_the_same_in_any_company():
    """The order of a sum is that of k: rows and columns beside it do not matter."""
    random = np.random.default_rng(3)
    a, b = random.normal(size=(19, 37)).astype(np.float32), random.normal(size=(37, 64)).astype(np.float32)
    out, alone = np.zeros((19, 64), np.float32), np.zeros((1, 64), np.float32)
    multiply = numba.njit(jit_multiply.multiply.py_func)
    multiply(a, b, out, 64, True)
    for i in range(19):
        multiply(a[i : i + 1], b, alone, 1, True)
        assert alone[0, 0] == out[i, 0]
