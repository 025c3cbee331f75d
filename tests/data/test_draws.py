"""Draws must depend on seed, index and purpose, and on nothing else."""

from __future__ import annotations

import pytest

from minilm.data.draws import Purpose, generator
from minilm.errors import DataError


def first(seed: int, index: int, purpose: Purpose) -> tuple[int, ...]:
    return tuple(generator(seed, index, purpose).integers(1 << 62, size=5).tolist())


def test_each_argument_matters_and_nothing_else() -> None:
    arguments = [(seed, index, purpose) for seed in (0, 1, 2**64 - 1) for index in (0, 1, 7) for purpose in Purpose]
    draws = [first(*each) for each in arguments]
    assert len(set(draws)) == len(arguments)
    assert [first(*each) for each in arguments] == draws


def test_draws_stay_what_they_were() -> None:
    # A change here would silently change every run that is resumed or repeated.
    assert generator(3, 5, Purpose.SHUFFLE).permutation(7).tolist() == SHUFFLED
    assert generator(3, 5, Purpose.BLOCKS).integers(1009, size=5).tolist() == DRAWN


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1), (2**64, 0)])
def test_numbers_out_of_range(seed: int, index: int) -> None:
    with pytest.raises(DataError, match=r"must be in 0 \.\. 2\*\*64 - 1"):
        generator(seed, index, Purpose.SPLIT)


SHUFFLED: list[int] = [5, 6, 2, 4, 3, 0, 1]
DRAWN: list[int] = [122, 890, 826, 695, 173]
