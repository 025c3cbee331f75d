"""Philox against the known answers of its authors, and its parts against the whole."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.kernels.philox import philox

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
