"""Attention in C beyond one tile of queries, keys and channels: values, layouts, threads, the batch, memory."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from minilm.kernels import reference

# T, S, D, E: tiles are 32 queries and 56 keys at most, and 32 channels; each is met, just missed, and passed.
SIZES = [(1, 1, 1, 1), (1, 131, 40, 33), (31, 57, 64, 32), (32, 56, 32, 64), (75, 75, 70, 31), (131, 113, 5, 7)]
SETTINGS = {
    "plain": {},
    "causal": {"causal": True},
    "padding": {"mask": "padding"},
    "padding, all else": {"mask": "padding", "causal": True, "bias": True, "p": 0.3, "key": 5},
    "mask": {"mask": "scattered", "causal": True},
    "bias": {"bias": True},
    "dropout": {"p": 0.3, "key": 2**63 + 5, "causal": True},
    "everything": {"mask": "scattered", "bias": True, "p": 0.3, "key": 11},
}


@pytest.fixture
def threads(native):
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


def given(sizes, setting, dtype, heads=3):
    """dy, q, k, v and what attention is told: two sequences of `heads` heads, as views of (2, T, heads, D)."""
    T, S, D, E = sizes
    rng = np.random.default_rng(T + S)
    dy, q, k, v = (
        rng.standard_normal((2, n, heads, c)).astype(dtype).transpose(0, 2, 1, 3)
        for n, c in ((T, E), (T, D), (S, D), (S, E))
    )
    chosen = {
        "bias": None,
        "mask": None,
        "causal": False,
        "scale": 0.7 / D**0.5,
        "p": 0.0,
        "key": 0,
        **SETTINGS[setting],
    }
    if chosen["bias"]:
        chosen["bias"] = rng.standard_normal((heads, T, S)).astype(dtype)
    if chosen["mask"] == "padding":
        chosen["mask"] = (np.arange(S) < [[S], [S // 2]])[:, None, None, :]  # half of the second sequence
    elif chosen["mask"] == "scattered":
        chosen["mask"] = rng.random((2, 1, T, S)) < 0.6
        chosen["mask"][0, 0, T // 2] = False  # a query with nothing to see
    return dy, (q, k, v), chosen


def both_ways(backend, dy, qkv, chosen):
    y, lse = backend.attention(*qkv, **chosen)
    return [y, lse, *backend.attention_backward(dy, *qkv, y, lse, **chosen)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_values_of_attention(native, dtype, sizes, setting):
    dy, qkv, chosen = given(sizes, setting, dtype)
    wide = {k: x.astype("float64") if k == "bias" and x is not None else x for k, x in chosen.items()}
    expected = both_ways(reference, dy.astype("float64"), [x.astype("float64") for x in qkv], wide)
    # sums of up to 131 products of size 1, scores of size 10 at most in an exponential
    tolerance = 300 * np.finfo(dtype).eps
    for name, ours, theirs in zip(
        ("y", "lse", "dq", "dk", "dv", "dbias"), both_ways(native, dy, qkv, chosen), expected
    ):
        if theirs is None:
            assert ours is None
            continue
        assert (ours.shape, ours.dtype) == (theirs.shape, np.dtype(dtype))
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_bits_of_attention_do_not_depend_on_the_threads(native, threads, sizes, setting):
    everything = given(sizes, setting, "float32")
    threads(1)
    expected = both_ways(native, *everything)
    for count in (2, 3, 5, 8):
        threads(count)
        for ours, alone in zip(both_ways(native, *everything), expected):
            np.testing.assert_array_equal(ours, alone)


@pytest.mark.parametrize("setting", ["plain", "causal", "bias"])
def test_bits_of_attention_do_not_depend_on_the_rest(native, setting):
    dy, (q, k, v), chosen = given((75, 131, 40, 33), setting, "float32")
    whole = both_ways(native, dy, (q, k, v), chosen)[:5]
    alone = both_ways(native, dy[1:], (q[1:], k[1:], v[1:]), chosen)[:5]
    for ours, one in zip(whole, alone):
        np.testing.assert_array_equal(ours[1:], one)
    some = {**chosen, "bias": None if chosen["bias"] is None else chosen["bias"][:, :41]}
    np.testing.assert_array_equal(native.attention(q[:, :, :41], k, v, **some)[0], whole[0][:, :, :41])


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_padding_behind_the_last_key_that_is_shown_is_not_read(native, p):
    """Values and gradients are, to the bit, those without these keys; the keys themselves get zeros."""
    dy, (q, k, v), chosen = given((75, 131, 40, 33), "padding", "float32")
    chosen |= {"p": p, "key": 3}
    shown = 131 // 2
    k[1, :, shown:], v[1, :, shown:] = np.nan, np.nan
    y, lse, dq, dk, dv, _ = both_ways(native, dy, (q, k, v), chosen)
    second = {**chosen, "mask": None, "row": 3 * 75}  # the first row of weights of the second sequence
    cut = both_ways(native, dy[1:], (q[1:], k[1:, :, :shown], v[1:, :, :shown]), second)
    for ours, expected in zip((y, lse, dq, dk[:, :, :shown], dv[:, :, :shown]), cut[:5]):
        np.testing.assert_array_equal(ours[1:], expected)
    assert not dk[1, :, shown:].any()
    assert not dv[1, :, shown:].any()


def test_attention_writes_where_it_is_told(native):
    dy, qkv, chosen = given((37, 37, 8, 8), "causal", "float32")
    expected = both_ways(native, dy, qkv, chosen)
    y = np.full((2, 37, 3, 8), np.nan, "float32")
    dqkv = np.full((2, 37, 3, 3, 8), np.nan, "float32")
    native.attention(*qkv, **chosen, out=y.transpose(0, 2, 1, 3))
    gradients = tuple(dqkv.transpose(2, 0, 3, 1, 4))
    native.attention_backward(dy, *qkv, *expected[:2], **chosen, out=gradients)
    np.testing.assert_array_equal(y.transpose(0, 2, 1, 3), expected[0])
    for ours, theirs in zip(gradients, expected[2:5]):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its size from /proc")
def test_memory_is_linear_in_the_length():
    """The scores of 4,096 queries and keys would be 64 MB: a fresh process grows by less, and by more with a bias."""
    code = """
import numpy as np
from minilm.kernels import native
def largest():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
def run(T, bias=None):
    q, k, v, dy = np.ones((4, 1, 1, T, 16), "float32")
    y, lse = native.attention(q, k, v, bias, None, True, 0.25)
    native.attention_backward(dy, q, k, v, y, lse, bias, None, True, 0.25)
run(64)
before = largest()
run(4096)
plain = largest() - before
run(4096, np.zeros((4096, 4096), "float32"))
print(plain, largest() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    plain, with_bias = map(int, run.stdout.split())
    assert 1 <= plain < 16
    assert with_bias > 64
