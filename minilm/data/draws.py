"""Random numbers that depend on what they are for and when, not on what was drawn before."""

from __future__ import annotations

import enum

import numpy as np

from minilm.errors import DataError


class Purpose(enum.IntEnum):
    """Who draws: the same seed gives each its own numbers."""

    SHUFFLE = 1
    BLOCKS = 2
    SPLIT = 3
    STEP = 4
    ORDER = 5
    MIXTURE = 6
    PAIRS = 11
    MASKING = 12
    LENGTHS = 21


def generator(seed: int, index: int, purpose: Purpose) -> np.random.Generator:
    """A generator that is a function of (seed, index, purpose) alone; index is an epoch or a step.

    So a run that resumes at a step sees what it would have seen. Philox numbers are a function of a
    key, here (seed, index), and a counter, whose highest word is the purpose.

    Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

    Errors: DataError if seed or index is not in 0 .. 2**64 - 1.
    """
    for name, value in (("seed", seed), ("epoch or step", index)):
        if not 0 <= value < 1 << 64:
            raise DataError(f"{name} is {value}; it must be in 0 .. 2**64 - 1")
    key = np.array([seed, index], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
