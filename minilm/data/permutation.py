"""A random order of 0 .. n - 1 that is computed, not stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from minilm.data.draws import Purpose, generator
from minilm.errors import DataError

ROUNDS = 16
CHUNK = 1 << 14  # how many are computed at a time when all are asked for

U64 = np.uint64


class Permutation:
    """A pseudo-random permutation p of 0 .. n - 1, a function of (seed, epoch) alone.

    p[i] is a number for an index, an array (int64, the shape of the indices) for an array of them.
    Nothing is stored but 16 keys, so n may be any number of examples. It is one of the permutations
    that the keys can make, not one of all n!, which no seed of 64 bits could choose from.

    An alternating Feistel network permutes the numbers of b bits, where 2**b is the first power of
    two from n on: with the bits in two halves (l, r), the rounds

        l <- l xor f(k_1, r),    r <- r xor f(k_2, l),    l <- l xor f(k_3, r), ...

    can each be undone whatever f is. A result that is n or more is put in again until one below n
    comes out (cycle walking; fewer than two times on average), which keeps it a permutation.

    Source: Luby & Rackoff 1988, "How to construct pseudorandom permutations"; Black & Rogaway 2002,
    "Ciphers with arbitrary finite domains", section 3. f is the mixing function of SplitMix64:
    Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", figure 14.

    Errors: DataError unless n is in 1 .. 2**62, or for a seed or epoch outside 0 .. 2**64 - 1;
    IndexError for an index outside -n .. n - 1.
    """

    def __init__(self, n: int, seed: int = 0, epoch: int = 0) -> None:
        if not 1 <= n <= 1 << 62:
            raise DataError(f"Permutation: n is {n}; it must be in 1 .. 2**62")
        self.n = n
        self._keys = generator(seed, epoch, Purpose.ORDER).integers(0, 1 << 64, ROUNDS, np.uint64)
        bits = max((n - 1).bit_length(), 2)
        self._right_bits = U64(bits // 2)
        self._left_mask, self._right_mask = U64((1 << (bits - bits // 2)) - 1), U64((1 << (bits // 2)) - 1)

    def __len__(self) -> int:
        return self.n

    @overload
    def __getitem__(self, index: int, /) -> int: ...
    @overload
    def __getitem__(self, index: NDArray[np.integer[Any]], /) -> NDArray[np.int64]: ...
    def __getitem__(self, index: Any, /) -> Any:
        indices = np.asarray(index)
        if indices.dtype.kind not in "iu":
            raise IndexError(f"Permutation: an index is an integer or an array of them, not {indices.dtype}")
        outside = (indices < -self.n) | (indices >= self.n)
        if outside.any():
            raise IndexError(f"Permutation: {indices[outside].flat[0]} is not in {-self.n} .. {self.n - 1}")
        values = np.where(indices < 0, indices + self.n, indices).astype(U64).reshape(-1)
        walking = np.arange(values.size)
        while walking.size:
            values[walking] = self._network(values[walking])
            walking = walking[values[walking] >= U64(self.n)]
        result = values.astype(np.int64).reshape(indices.shape)
        return int(result) if isinstance(index, (int, np.integer)) else result

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.n, CHUNK):
            yield from self[np.arange(start, min(start + CHUNK, self.n))].tolist()

    def _network(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> self._right_bits, values & self._right_mask
        for number, key in enumerate(self._keys):
            if number % 2 == 0:
                left = left ^ (_mixed(right + key) & self._left_mask)
            else:
                right = right ^ (_mixed(left + key) & self._right_mask)
        return left << self._right_bits | right


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser: every bit of z (modulo 2**64) acts on every bit of the result."""
    z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
    return z ^ (z >> U64(31))
