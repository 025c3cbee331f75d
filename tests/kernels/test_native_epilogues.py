"""Products that end with bias, residual and GELU, and products in bfloat16."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import minilm as ml
from minilm.kernels import reference
from minilm.kernels.constants import Constants

# Beyond each limit at which gemm.c takes another way: one row, few rows, tiles, K blocks, columns that are left over.
SIZES = [(1, 5, 3), (1, 300, 700), (13, 31, 17), (29, 33, 65), (64, 401, 84), (131, 800, 37), (3, 0, 5), (0, 4, 5)]
SIZES += [(4101, 3, 40), (35, 3, 4137)]  # more columns than are packed at a time, and as many rows
SIZES += [(150, 521, 151), (449, 40, 460)]  # more rows than are few, beside more columns


# Tolerances: a sum of K products of size 1 or so, and K + 1 roundings.


@pytest.fixture(autouse=True)
def restored():
    yield
    ml.set_float32_matmul_precision("highest")


def operands(M, K, N, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in ((M, K), (N, K), (N,), (M, N)))


def bfloat16(x):
    """x rounded to the nearest bfloat16, ties to even, in float32."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("parts", ["bias", "residual", "both", "neither"])
def test_linear(native, dtype, sizes, parts):
    x, weight, bias, residual = operands(*sizes, dtype)
    bias = bias if parts in ("bias", "both") else None
    residual = np.asfortranarray(residual) if parts in ("residual", "both") else None
    wide = [None if a is None else a.astype("float64") for a in (x, weight, bias, residual)]
    tolerance = 2 * (sizes[1] + 2) * np.finfo(dtype).eps
    np.testing.assert_allclose(
        native.linear(x, weight, bias, residual), reference.linear(*wide), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", [*SIZES, (320, 900, 70), (7, 257, 4129), (15, 3, 4096)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_bits_with_weights_that_are_packed_once(native, dtype, sizes, threads):
    x, weight, bias, residual = operands(*sizes, dtype)
    expected = native.linear(x, weight, bias, residual), native.linear_gelu(x, weight, bias)
    turned = np.asfortranarray(weight)
    constants, before = Constants([weight, turned]), native.get_num_threads()
    native.set_num_threads(threads)
    try:
        for _ in range(2):  # packed, and packed before
            with constants:
                np.testing.assert_array_equal(native.linear(x, weight, bias, residual), expected[0])
                np.testing.assert_array_equal(native.linear(x, turned, bias, residual), expected[0])
                for ours, theirs in zip(native.linear_gelu(x, weight, bias), expected[1]):
                    np.testing.assert_array_equal(ours, theirs)
    finally:
        native.set_num_threads(before)


@pytest.mark.parametrize("sizes", [(150, 2100, 4096), (440, 10000, 460)], ids=["columns", "rows"])
def test_bits_of_what_is_packed_a_few_blocks_at_a_time(native, sizes):
    x, weight, bias, _ = operands(*sizes, "float32")
    whole = native.linear(x, weight, bias)
    np.testing.assert_array_equal(native.linear(x[:9], weight, bias), whole[:9])
    np.testing.assert_array_equal(native.linear(x, weight[:33], bias[:33]), whole[:, :33])


def test_constants_are_the_threads_and_end_with_it(native):
    x, weight, _, _ = operands(20, 30, 40, "float32")
    first = native.linear(x, weight, None)
    outer, inner = Constants([weight]), Constants([])
    with outer:
        native.linear(x, weight, None)
        weight *= 2  # which nobody should do, but which shows what is read
        np.testing.assert_array_equal(native.linear(x, weight, None), first)
        seen = []
        thread = threading.Thread(target=lambda: seen.append(native.linear(x, weight, None)))
        thread.start()
        thread.join()
        np.testing.assert_array_equal(seen[0], 2 * first)
        with inner:
            np.testing.assert_array_equal(native.linear(x, weight, None), 2 * first)
        np.testing.assert_array_equal(native.linear(x, weight, None), first)
    np.testing.assert_array_equal(native.linear(x, weight, None), 2 * first)


def test_products_in_bfloat16_pack_for_themselves(native):
    x, weight, bias, _ = operands(40, 84, 65, "float32")
    ml.set_float32_matmul_precision("medium")
    expected = native.linear(x, weight, bias)
    with Constants([weight]):
        np.testing.assert_array_equal(native.linear(x, weight, bias), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_linear_gelu(native, dtype, sizes, approximate):
    x, weight, bias, _ = operands(*sizes, dtype)
    y, z = native.linear_gelu(x, weight, bias, approximate)
    # bit for bit what the two kernels give one after the other: the same sums, the same function
    np.testing.assert_array_equal(z, native.linear(x, weight, bias))
    np.testing.assert_array_equal(y, native.gelu(z, approximate))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("biased", [True, False])
def test_linear_relu(native, dtype, sizes, biased):
    x, weight, bias, _ = operands(*sizes, dtype)
    y = native.linear_relu(x, weight, bias if biased else None)
    np.testing.assert_array_equal(y, native.relu(native.linear(x, weight, bias if biased else None)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_of_every_kind_of_number(native, dtype):
    x = np.array([-np.inf, -1, -0.0, 0, 1e-300, 2, np.inf, np.nan] * 5, dtype)
    np.testing.assert_array_equal(native.relu(x), np.array([0, 0, 0, 0, x[4], 2, np.inf, np.nan] * 5, dtype))
    slopes = native.relu_backward(np.full_like(x, 3), native.relu(x))
    positive = 3 if x[4] > 0 else 0  # too small for float32
    np.testing.assert_array_equal(slopes, np.array([0, 0, 0, 0, positive, 3, 3, 3] * 5, dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("logits", [1, 7 * 5, 1 << 22])
def test_linear_cross_entropy_in_blocks(native, monkeypatch, dtype, scale, logits):
    """One row at a time, five, or all: the same losses to the bit, and gradients that differ by their sums' order."""
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((13, 11)).astype(dtype), rng.standard_normal((7, 11)).astype(dtype)
    target = rng.integers(0, 7, 13)
    target[4] = -100
    wide = x.astype("float64"), weight.astype("float64")
    scores = wide[0] @ wide[1].T
    losses, lse = reference.cross_entropy(scores, target, None, -100, 0.0)
    dscores = reference.cross_entropy_backward(np.full(13, 0.3), scores, target, None, lse, -100, 0.0)
    expected = losses, dscores @ wide[1], dscores.T @ wide[0]
    whole = native.linear_cross_entropy(x, weight, target, -100, scale)
    monkeypatch.setattr(reference, "LOGITS", logits)
    tolerance = 100 * np.finfo(dtype).eps
    for backend in (native, reference):
        results = backend.linear_cross_entropy(x, weight, target, -100, scale)
        for ours, theirs in zip(results, expected if scale else (losses, None, None)):
            if theirs is None:
                assert ours is None
                continue
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(native.linear_cross_entropy(x, weight, target, -100, None)[0], whole[0])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("layout", ["plain", "transposed", "strided"])
def test_medium_rounds_to_bfloat16_or_not_at_all(native, sizes, layout):
    x, weight, *_ = operands(*sizes, "float32", 1)
    b = weight.T
    if layout == "transposed":
        x, b = np.asfortranarray(x), np.ascontiguousarray(b)
    elif layout == "strided":
        x, b = np.repeat(x, 2, 1)[:, ::2], np.repeat(b, 3, 1)[:, ::3]
    exact = native.matmul(x, b)
    ml.set_float32_matmul_precision("medium")
    product = native.matmul(x, b)
    if not native.instruction_set().endswith("bf16"):
        np.testing.assert_array_equal(product, exact)
        return
    expected = bfloat16(x).astype("float64") @ bfloat16(b).astype("float64")
    tolerance = 2 * (sizes[1] + 2) * np.finfo("float32").eps
    np.testing.assert_allclose(product, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(product[:1], native.matmul(x[:1], b))
    out = np.ones_like(product)
    native.matmul(x, b, out=out, accumulate=True)
    np.testing.assert_allclose(out, 1 + expected, rtol=tolerance, atol=tolerance)


def test_medium_leaves_float64_alone_and_keeps_infinities(native):
    ml.set_float32_matmul_precision("medium")
    a, b = np.random.default_rng(2).standard_normal((2, 40, 40))
    np.testing.assert_allclose(native.matmul(a, b), a @ b, rtol=1e-12, atol=1e-12)
    x = np.eye(40, dtype="float32")
    x[3, 3], x[5, 5] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        product = native.matmul(x, np.ones((40, 40), "float32"))
    assert np.isposinf(product[3]).all()
    assert np.isnan(product[5]).all()
    assert (np.delete(product, [3, 5], 0) == 1).all()


def test_the_precision_is_one_of_three_words():
    assert ml.get_float32_matmul_precision() == "highest"
    ml.set_float32_matmul_precision("medium")
    assert ml.get_float32_matmul_precision() == "medium"
    with pytest.raises(ValueError, match="'highest', 'high' or 'medium', not 'low'"):
        ml.set_float32_matmul_precision("low")
    assert ml.get_float32_matmul_precision() == "medium"
