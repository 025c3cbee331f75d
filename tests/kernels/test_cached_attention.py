"""Attention of single queries to keys where they lie: values in every backend, bits, places that are not there."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import numpy as np
import pytest

from minilm.kernels import reference

H, D, E, R = 3, 5, 13, 7
SIZES = [(1, 1), (2, 11), (37, 60), (5, 173)]  # rows and positions: of one task and several, of one tile and several


@pytest.fixture(params=["native", "reference"])
def backend(request):
    if request.param == "native":
        request.getfixturevalue("native")
    return importlib.import_module(f"minilm.kernels.{request.param}")


def given(N, S, dtype="float64", bias=True):
    """q, k, v, places, bias: some rows look at the same as the one before, some positions are not looked at."""
    rng = np.random.default_rng(N + S)
    q, k, v, added = (
        rng.standard_normal(s).astype(dtype) for s in ((N, H, D), (R, S + 2, H, D), (R, S + 2, H, E), (H, S))
    )
    places = rng.integers(0, R, (N, S))
    places[:, S // 2 :][rng.random((N, S - S // 2)) < 0.4] = -1
    places[N // 3 :] = places[N // 3]
    if N > 2:
        places[-1] = -1
    return q, k, v, places, added if bias else None


def gathered(q, k, v, places, bias):
    """The same for `attention`: each row's own keys and values."""
    rows, positions = np.maximum(places, 0), np.arange(places.shape[1])
    keys, values = k[rows, positions].transpose(0, 2, 1, 3), v[rows, positions].transpose(0, 2, 1, 3)
    added = None if bias is None else bias[None, :, None]
    return q[:, :, None], keys, values, added, (places >= 0)[:, None, None], False, 0.3


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_are_those_of_softmax_written_out(backend, sizes, bias):
    q, k, v, places, added = given(*sizes, bias=bias)
    y = backend.cached_attention(q, k, v, places, added, 0.3)
    for n, h in np.ndindex(len(q), H):
        seen = np.flatnonzero(places[n] >= 0)
        if not len(seen):
            assert (y[n, h] == 0).all()
            continue
        keys, values = k[places[n, seen], seen, h], v[places[n, seen], seen, h]
        weights = np.exp(0.3 * keys @ q[n, h] + (added[h, seen] if bias else 0))
        np.testing.assert_allclose(y[n, h], weights @ values / weights.sum(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bits_are_those_of_attention_in_tiles(native, sizes, bias, dtype):
    arguments = given(*sizes, dtype, bias)
    expected, _ = native.attention(*gathered(*arguments))
    np.testing.assert_array_equal(native.cached_attention(*arguments, 0.3), expected[:, :, 0])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_bits_do_not_depend_on_threads_and_other_rows(native, sizes):
    q, k, v, places, bias = given(*sizes, "float32")
    before = native.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            native.set_num_threads(threads)
            results.append(native.cached_attention(q, k, v, places, bias, 0.3))
    finally:
        native.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    for n in range(0, len(q), 4):
        alone = native.cached_attention(q[n : n + 1], k, v, places[n : n + 1], bias, 0.3)
        np.testing.assert_array_equal(alone[0], results[0][n])


def test_any_strides(backend):
    q, k, v, places, bias = given(5, 11)
    expected = backend.cached_attention(q, k, v, places, bias, 0.3)
    turned = [np.asfortranarray(x) for x in (q, k, v)]
    wide = np.repeat(np.repeat(places, 2, 0), 3, 1)[::2, ::3]
    backwards = np.ascontiguousarray(bias[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(backend.cached_attention(*turned, wide, backwards, 0.3), expected, rtol=1e-13)
    same = np.broadcast_to(places[:, :1], places.shape)
    one = backend.cached_attention(q, k, v, np.ascontiguousarray(same), bias, 0.3)
    np.testing.assert_array_equal(backend.cached_attention(q, k, v, same, bias, 0.3), one)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("T", [1, 7, 8, 16, 21, 40, 131])
def test_bits_do_not_depend_on_how_keys_lie_in_memory(native, T, dtype):
    """Keys channel by channel are read where they are, if those that are seen stand in a row, and else are packed."""
    rng = np.random.default_rng(T)
    q, k, v = (rng.standard_normal(s).astype(dtype) for s in ((9, H, D), (R, T, H, D), (R, T, H, E)))
    by_channel = np.ascontiguousarray(k.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    places = np.repeat(rng.integers(0, R, (9, 1)), T, 1)
    places[1, -1] = places[2, 0] = places[3, T // 2] = places[4] = -1
    places[5] = np.arange(T) % R
    expected = native.cached_attention(q, k, v, places, None, 0.3)
    np.testing.assert_array_equal(native.cached_attention(q, by_channel, v, places, None, 0.3), expected)


def test_what_does_not_fit_is_refused(native):
    q, k, v, places, bias = given(5, 11)
    with pytest.raises(IndexError, match="places go up to 7, the rows to 6"):
        native.cached_attention(q, k, v, np.where(places == places.max(), R, places), bias, 0.3)
    with pytest.raises(ValueError, match="do not fit"):
        native.cached_attention(q, k, v, np.zeros((5, 14), int), None, 0.3)  # more positions than there are
    with pytest.raises(ValueError, match="do not fit"):
        native.cached_attention(q[:4], k, v, places, bias, 0.3)
    with pytest.raises(ValueError, match="bias"):
        native.cached_attention(q, k, v, places, bias[:, :3], 0.3)
    with pytest.raises(ValueError, match="float32"):
        native.cached_attention(q, k.astype("float32"), v, places, bias, 0.3)


@pytest.mark.parametrize("name", ["v2", "v3", "v4"])
def test_other_instruction_sets(native, name):
    wanted = f"x86-64-{name}"
    if wanted not in native.instruction_sets():
        pytest.skip(f"this processor does not run {wanted}")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "bits or values"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MINILM_CPU": wanted})
    assert run.returncode == 0, run.stdout[-2000:]


# --- the largest of rows ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 7, 64, 131, 4003])
def test_the_largest(native, columns, dtype):
    rng = np.random.default_rng(columns)
    for x in (rng.standard_normal((5, columns)), rng.integers(-3, 3, (5, columns)), -np.ones((5, columns))):
        x = x.astype(dtype)
        x[rng.random(x.shape) < 0.3] = -np.inf
        for count in {0, 1, min(columns, 10), min(columns, 200)}:
            order = np.argsort(-x, 1, kind="stable")[:, :count]
            for table in (native, reference):
                values, places = table.largest(x, count)
                np.testing.assert_array_equal(places, order)
                np.testing.assert_array_equal(values, np.take_along_axis(x, order, 1))
                assert places.dtype == np.int64
    for table in (native, reference):
        with pytest.raises(ValueError, match="has"):
            table.largest(x, columns + 1)
