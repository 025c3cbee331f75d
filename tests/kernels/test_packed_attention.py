"""Attention of sequences behind each other, in every backend: each sequence alone, padding, layouts, bad starts."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from minilm.kernels import reference
from minilm.kernels.packing import packed_backward_by, packed_by

H, D, E, T = 3, 5, 7, 83
STARTS = {"one": (0, 41), "some": (0, 2, 35, 35, 118), "short": (0, 1, 2, 3), "long": (0, 83, 83 + 67)}
BACKENDS = {"native": "minilm.kernels.native", "numba": "minilm.kernels.jit", "reference": "minilm.kernels.reference"}


@pytest.fixture(params=BACKENDS)
def backend(request):
    return importlib.import_module(BACKENDS[request.param])


def given(starts, dtype="float64"):
    """dy, (q, k, v): (H, N, ...), the rows of all heads side by side."""
    rng = np.random.default_rng(len(starts))
    N = starts[-1]
    dy, q, k, v = (rng.standard_normal((N, H, c)).astype(dtype).transpose(1, 0, 2) for c in (E, D, D, E))
    return dy, (q, k, v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS)
def test_each_sequence_is_as_alone(backend, starts, causal):
    dy, qkv = given(starts)
    settings = starts, T, causal, 0.3
    y, lse = backend.packed_attention(*qkv, *settings)
    gradients = backend.packed_attention_backward(dy, *qkv, y, lse, *settings)
    for begin, end in itertools.pairwise(starts):
        alone = [x[:, begin:end] for x in qkv]
        one_y, one_lse = reference.attention(*alone, None, None, causal, 0.3)
        expected = reference.attention_backward(dy[:, begin:end], *alone, one_y, one_lse, None, None, causal, 0.3)
        for ours, theirs in zip((y, lse, *gradients), (one_y, one_lse, *expected[:3])):
            np.testing.assert_allclose(ours[:, begin:end], theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS)
def test_bits_and_dropout_are_those_with_padding(native, starts, causal, dtype):
    dy, qkv = given(starts, dtype)
    settings = starts, T, causal, 0.3, 0.4, 2**63 + 5, 11
    y, lse = native.packed_attention(*qkv, *settings)
    padded = packed_by(native.attention, *qkv, *settings, None)
    for ours, theirs in zip((y, lse), padded):
        np.testing.assert_array_equal(ours, theirs)
    gradients = native.packed_attention_backward(dy, *qkv, y, lse, *settings)
    expected = packed_backward_by(native.attention_backward, dy, *qkv, y, lse, *settings, None)
    for ours, theirs in zip(gradients, expected):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("starts", [STARTS["some"]])
def test_the_numbers_of_threads_change_no_bit(native, starts):
    dy, qkv = given(starts, "float32")
    before = native.get_num_threads()

    def both():
        y, lse = native.packed_attention(*qkv, starts, T, False, 0.3, 0.4, 5)
        return y, lse, *native.packed_attention_backward(dy, *qkv, y, lse, starts, T, False, 0.3, 0.4, 5)

    try:
        native.set_num_threads(1)
        alone = both()
        native.set_num_threads(5)
        for ours, theirs in zip(both(), alone):
            np.testing.assert_array_equal(ours, theirs)
    finally:
        native.set_num_threads(before)


def test_results_go_where_they_are_told(backend):
    starts = STARTS["some"]
    dy, qkv = given(starts)
    y, lse = backend.packed_attention(*qkv, starts, T, False, 0.3)
    expected = backend.packed_attention_backward(dy, *qkv, y, lse, starts, T, False, 0.3)
    place = np.full((starts[-1], H, E), np.nan).transpose(1, 0, 2)
    assert backend.packed_attention(*qkv, starts, T, False, 0.3, out=place)[0] is place
    np.testing.assert_array_equal(place, y)
    places = tuple(np.full((starts[-1], H, c), np.nan).transpose(1, 0, 2) for c in (D, D, E))
    backend.packed_attention_backward(dy, *qkv, y, lse, starts, T, False, 0.3, out=places)
    for ours, theirs in zip(places, expected):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("starts", "longest"),
    [((0, 3, 42), T), ((0, 3, 40), T), ((1, 41), T), ((0, 30, 20, 41), T), ((), T), ((0, 41), 40), ((0, -3, 41), T)],
    ids=str,
)
def test_starts_that_do_not_fit_are_refused(backend, starts, longest):
    dy, qkv = given((0, 41))
    with pytest.raises(ValueError, match=r"starts|longer"):
        backend.packed_attention(*qkv, starts, longest, False, 0.3)
    y, lse = reference.packed_attention(*qkv, (0, 41), T, False, 0.3)
    with pytest.raises(ValueError, match=r"starts|longer"):
        backend.packed_attention_backward(dy, *qkv, y, lse, starts, longest, False, 0.3)
