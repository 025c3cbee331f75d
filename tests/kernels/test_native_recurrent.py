"""Recurrent layers in C beyond one tile of sequences and units: values, threads, the batch, what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.kernels import reference

# Sequences at each time: a panel has at most 14, and the threads share times with 2^20 multiply-adds.
SIZES = [(17, 17, 9, 1), (33, 33), (1, 1, 1)]
GATES = {"rnn": 1, "relu": 1, "lstm": 4, "gru": 3}


@pytest.fixture
def threads(native):
    before = native.get_num_threads()
    yield native.set_num_threads
    native.set_num_threads(before)


def walked(backend, kind, H, sizes, reverse, dtype, only=None):
    """All results, forward and back, of random arrays; with `only` of that sequence alone."""
    G, N, B = GATES[kind], sum(sizes), sizes[0]
    rng = np.random.default_rng(H)
    given, dy = (rng.standard_normal((N, n)).astype(dtype) for n in (G * H, H))
    weight, bias = ((rng.standard_normal(shape) / np.sqrt(H)).astype(dtype) for shape in ((G * H, H), (G * H,)))
    states = [rng.standard_normal((B, H)).astype(dtype) for _ in range(4)]
    if only is not None:
        rows = [first + only for first, size in zip(np.cumsum(sizes) - sizes, sizes) if only < size]
        given, dy, states = given[rows], dy[rows], [s[only : only + 1] for s in states]
        sizes = (1,) * len(rows)
    h, c, dh, dc = states
    if kind == "lstm":
        y, last_h, last_c, gates, cells = backend.lstm_layer(given, weight, h, c, sizes, reverse)
        back = backend.lstm_layer_backward(dy, dh, dc, weight, gates, cells, y, h, c, sizes, reverse)
        return [y, last_h, last_c, gates, cells, *back]
    if kind == "gru":
        y, last, gates, kept = backend.gru_layer(given, weight, bias, h, sizes, reverse)
        return [y, last, gates, kept, *backend.gru_layer_backward(dy, dh, weight, gates, kept, y, h, sizes, reverse)]
    y, last = backend.rnn_layer(given, weight, h, sizes, reverse, kind == "relu")
    return [y, last, *backend.rnn_layer_backward(dy, dh, weight, y, h, sizes, reverse, kind == "relu")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("H", [3, 33, 300])
@pytest.mark.parametrize("kind", GATES)
def test_values_are_the_references(native, kind, H, sizes, reverse, dtype):
    tolerance = 2e-5 if dtype == "float32" else 1e-13
    for one, other in zip(
        walked(native, kind, H, sizes, reverse, dtype), walked(reference, kind, H, sizes, reverse, dtype), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max(), rtol=0)


@pytest.mark.parametrize("kind", GATES)
def test_bits_depend_neither_on_the_threads_nor_on_the_batch(native, threads, kind):
    H, sizes = 400, (17, 17, 9, 1)
    assert sizes[0] * H * H * GATES[kind] > 2**20  # or one thread does all
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append([x.tobytes() for x in walked(native, kind, H, sizes, False, "float32")])
    assert found[0] == found[1] == found[2]
    whole = walked(native, kind, H, sizes, False, "float32")
    for b in (0, 8, 16):
        rows = [first + b for first, size in zip(np.cumsum(sizes) - sizes, sizes) if b < size]
        alone = walked(native, kind, H, sizes, False, "float32", only=b)
        np.testing.assert_array_equal(whole[0][rows], alone[0])
        np.testing.assert_array_equal(whole[1][b], alone[1][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (2, 3)}, "sizes must fall from 3"),
        ({"sizes": (3, 1)}, "sizes must fall from 3, the rows of h, and add up to 5"),
        ({"sizes": (3, 3, -1)}, "sizes must fall"),
        ({"weight": np.zeros((8, 3))}, r"weight \(8, 3\) and h \(3, 2\) do not fit"),
        ({"given": np.zeros((5, 7))}, r"given is \(5, 7\), not \(5, 8\)"),
        ({"c": np.zeros((2, 2))}, r"c is \(2, 2\), not \(3, 2\)"),
        ({"c": np.zeros((3, 2), "float32")}, "must be float32, or both float64"),
    ],
)
def test_what_does_not_fit_is_refused(native, change, message):
    arguments = {"given": np.zeros((5, 8)), "weight": np.zeros((8, 2)), "h": np.zeros((3, 2)), "c": np.zeros((3, 2))}
    with pytest.raises(ValueError, match=message):
        native.lstm_layer(**{**arguments, "sizes": (3, 2), "reverse": False, **change})
