"""The kernels in C that take many arrays, or none: AdamW, sums of squares, random numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minilm.kernels import reference

pytestmark = pytest.mark.usefixtures("native")

DTYPES = ("float32", "float64")
SIZES = [(5,), (0, 3), (), (131, 257), (40000,), (1,), (2, 3, 5), (16384,), (7, 5)]
SETTINGS = [(1e-3, 0.9, 0.999, 1e-8, 0.1, 1), (0.1, 0.8, 0.95, 1e-3, 0.0, 7)]


@pytest.fixture
def threads(native):
    """Sets the number of threads, for this test only."""
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


def lists(dtype, seed=0):
    """params, grads, exp_avgs, exp_avg_sqs"""
    rng = np.random.default_rng(seed)
    return [
        [np.asarray(abs(rng.normal(size=s)) if k == 3 else rng.normal(size=s), dtype) for s in SIZES] for k in range(4)
    ]


def copied(arrays):
    return [[a.copy(order="K") for a in one] for one in arrays]


def strided(a):
    wide = np.zeros((*a.shape, 2), a.dtype)
    wide[..., 0] = a
    return wide[..., 0]


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, "uint8")
    y = memory[1:].view(a.dtype).reshape(a.shape)
    y[...] = a
    return y


LAYOUTS = {
    "plain": lambda a: a,
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "unaligned": unaligned,
    "backwards": lambda a: a[::-1].copy()[::-1] if a.ndim else a,
}


def assert_steps_agree(found, exact, dtype):
    for ours, theirs in zip(found, exact):
        for one, other in zip(ours, theirs):
            np.testing.assert_allclose(one, other, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_adamw(native, dtype, settings, layout):
    plain = lists(dtype)
    ours = [[LAYOUTS[layout](a.copy()) for a in one] for one in plain]
    exact = [[a.astype("float64") for a in one] for one in plain]
    for _ in range(2):
        native.adamw(*ours, *settings)
        reference.adamw(*exact, *settings)
    assert_steps_agree(ours, exact, dtype)
    for grad, was in zip(ours[1], plain[1]):
        np.testing.assert_array_equal(grad, was)


def test_adamw_of_arrays_in_different_orders_and_types(native):
    """Each parameter on its own terms: where memory does not agree, elements still must."""
    shape = (31, 17)
    rng = np.random.default_rng(0)
    four = [abs(rng.normal(size=shape)) for _ in range(4)]
    kinds = [
        ("float32", [np.ascontiguousarray, np.asfortranarray, np.ascontiguousarray, np.ascontiguousarray]),
        ("float64", [np.asfortranarray] * 4),
        ("float16", [np.ascontiguousarray] * 4),
        ("float32", [np.ascontiguousarray, np.ascontiguousarray, strided, np.ascontiguousarray]),
    ]
    ours = [[lay[k](four[k].astype(dtype)) for dtype, lay in kinds] for k in range(4)]
    exact = [[four[k].astype(dtype).astype("float64") for dtype, _ in kinds] for k in range(4)]
    native.adamw(*ours, *SETTINGS[1])
    reference.adamw(*exact, *SETTINGS[1])
    for one, other, (dtype, _) in zip(ours[0], exact[0], kinds):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=8 * np.finfo(dtype).eps, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_of_adamw_depend_on_neither_threads_nor_other_parameters(native, threads, dtype):
    start = lists(dtype)
    threads(1)
    alone = copied(start)
    native.adamw(*alone, *SETTINGS[0])
    for count in (2, 3, 5, 8):
        threads(count)
        again = copied(start)
        native.adamw(*again, *SETTINGS[0])
        for one, other in zip(itertools.chain(*alone), itertools.chain(*again)):
            np.testing.assert_array_equal(one, other)
    whole = 3  # (131, 257), more than one chunk: in parts, and without the others
    parts = [[a[whole].reshape(-1)[cut].copy() for cut in (slice(0, 12345), slice(12345, None))] for a in start]
    native.adamw(*parts, *SETTINGS[0])
    np.testing.assert_array_equal(np.concatenate(parts[0]), alone[0][whole].reshape(-1))


def test_what_adamw_refuses_before_anything_changes(native):
    start = lists("float32")
    for change, message in [
        (lambda x: x[1].pop(), r"there are 9, 8, 9, 9 params"),
        (lambda x: x[2].__setitem__(-1, np.ones((5, 7), "float32")), r"shapes differ: \(7, 5\), \(7, 5\), \(5, 7\)"),
        (lambda x: x[3][-1].setflags(write=False), r"\(7, 5\) or its running means are read-only"),
    ]:
        arrays = copied(start)
        change(arrays)
        with pytest.raises(ValueError, match=message):
            native.adamw(*arrays, *SETTINGS[0])
        np.testing.assert_array_equal(arrays[0][0], start[0][0])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_square_sum(native, threads, dtype, layout):
    arrays = [LAYOUTS[layout](a) for a in lists(dtype)[0]]
    exact = sum(float((a.astype("longdouble") ** 2).sum()) for a in arrays)
    found = []
    for count in (1, 2, 3, 5, 8):
        threads(count)
        found.append(native.square_sum(arrays))
    assert set(found) == {found[0]}
    assert type(found[0]) is float
    assert found[0] == pytest.approx(exact, rel=1e-14)
    assert native.square_sum([]) == 0


def test_square_sum_of_large_numbers_and_mixed_types(native):
    large = np.full(5, 1e30, "float32")
    assert native.square_sum([large]) == pytest.approx(5e60, rel=1e-6)
    assert native.square_sum([np.ones(3, "float32"), np.ones(5), np.ones(7, "float16")]) == 15
    assert np.isnan(native.square_sum([np.array([1, np.nan], "float32")]))


@pytest.mark.parametrize("count", [0, 1, 3, 4, 63, 64, 65, 1003, 100003])
@pytest.mark.parametrize("start", [0, 5, 2**32 - 3, 2**64 - 2])
def test_philox(native, threads, count, start):
    for key, stream in [(0, 0), (7, 3), (2**64 - 1, 2**63), (0x299F31D0A4093822, 0x85A308D3243F6A88), (-1, -2)]:
        expected = reference.philox(key, stream, start, count)
        for number in (1, 3):
            threads(number)
            found = native.philox(key, stream, start, count)
            assert found.dtype == "uint32"
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="-1 numbers"):
        native.philox(0, 0, 0, -1)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (5, 7), (3, 64), (7, 65), (331, 129)], ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_keep_rows(native, threads, shape, p):
    for key, first in [(0, 0), (2**63 + 5, 2**32 - 2)]:
        expected = reference.keep_rows(key, first, *shape, p)
        for number in (1, 3):
            threads(number)
            found = native.keep_rows(key, first, *shape, p)
            assert found.dtype == bool
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="-1 rows of 2"):
        native.keep_rows(0, 0, -1, 2, 0.5)
