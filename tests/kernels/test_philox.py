"""Philox against the known answers of its authors, and its parts against the whole."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import kernels
from minilm.kernels.philox import keep_rows, philox

# Random123, the authors' library: tests/kat_vectors, lines "philox4x32 10".
KNOWN = [
    ((0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**64 - 1, 2**64 - 1, 2**64 - 1), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x299F31D0A4093822, 0x0370734413198A2E, 0x85A308D3243F6A88), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("arguments", "answer"), KNOWN)
def test_known_answers(arguments, answer):
    assert " ".join(f"{n:08x}" for n in philox(*arguments, 4)) == answer


def test_a_part_is_what_the_whole_has_there():
    whole = philox(7, 3, 0, 1003)
    np.testing.assert_array_equal(philox(7, 3, 100, 21), whole[400:421])
    assert philox(7, 3, 0, 0).shape == (0,)
    assert not np.array_equal(philox(7, 4, 0, 1003), whole)


def test_the_counter_carries_into_its_second_word():
    across = philox(7, 0, 2**32 - 1, 8)
    np.testing.assert_array_equal(across[4:], philox(7, 0, 2**32, 4))
    assert not np.array_equal(across[4:], philox(7, 0, 0, 4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("columns", [1, 63, 64, 131])
@pytest.mark.parametrize("places", [None, [4, 0, 9, 2**31, 2]], ids=["in order", "places"])
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_rows_drop_by_their_numbers(native, dtype, columns, places, p):
    """What each row keeps is what `keep_rows` says of its number; views too; the inputs stay as they are."""
    x = np.random.default_rng(0).standard_normal((5, columns + 3)).astype(dtype)[:, 1 : columns + 1]
    before, key, first = x.copy(), 2**63 + 5, 11
    numbers = range(5) if places is None else places
    kept = np.concatenate([keep_rows(key, first + n, 1, columns, p) for n in numbers])
    y = native.drop_rows(x, key, first, p, None if places is None else np.array(places))
    np.testing.assert_array_equal(y, x * kept * x.dtype.type(0 if p == 1 else 1 / (1 - p)))
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_drop_rows_is_the_same_in_every_backend(backend):
    x, places = np.random.default_rng(1).standard_normal((5, 71)), np.array([4, 0, 9, 3, 2])
    with kernels.use(backend):
        y, plain = kernels.drop_rows(x, 7, 11, 0.3, places), kernels.drop_rows(x, 7, 11, 0.3)
        np.testing.assert_array_equal(y, kernels.reference.drop_rows(x, 7, 11, 0.3, places))
        np.testing.assert_array_equal(plain, kernels.reference.drop_rows(x, 7, 11, 0.3))
        assert kernels.drop_rows(x[:0], 7, 11, 0.3, places[:0]).shape == (0, 71)


def test_places_that_do_not_fit_are_refused(native):
    x = np.zeros((5, 3))
    for places in (np.arange(4), np.arange(5.0), np.zeros((5, 1), int)):
        with pytest.raises(ValueError, match="places"):
            native.drop_rows(x, 7, 0, 0.3, places)
