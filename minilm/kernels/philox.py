"""Philox4x32-10: random numbers as a function of a key and a counter, with no state between them.

The same key and counter give the same numbers on every machine and in every backend; any part of the
stream can be computed alone.

Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85  # the golden ratio and sqrt(3) - 1: what the key grows by in each round
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MASK = 0xFFFFFFFF


def philox(key: int, stream: int, start: int, count: int) -> Array:
    """`count` random uint32, (count,): those of the blocks start, start + 1, ... of four each.

    Args:
        key: 64 bits, the seed.
        stream: 64 bits, the upper half of the counter: different streams never overlap.
        start: 64 bits, the lower half of the counter, the first block.
    """
    lower = np.arange(-(-count // 4), dtype=np.uint64) + np.uint64(start & (2**64 - 1))
    return _blocks(key, np.full_like(lower, stream & (2**64 - 1)), lower).reshape(-1)[:count]


def keep_rows(key: int, first: int, rows: int, columns: int, p: float) -> Array:
    """Which elements dropout keeps, boolean (rows, columns): each with probability 1 - p.

    Row `first` + i draws from the stream of that number, so that a part of the rows can be computed alone.

    Args:
        key: 64 bits, drawn anew for each use of dropout.
    """
    blocks = -(-columns // 4)
    lower = np.broadcast_to(np.arange(blocks, dtype=np.uint64), (rows, blocks))
    upper = np.broadcast_to(np.arange(first, first + rows, dtype=np.uint64)[:, None], (rows, blocks))
    bits = _blocks(key, upper, lower).reshape(rows, 4 * blocks)[:, :columns]
    # 24 random bits as a number in [0, 1): exact in float32, and the same comparison in every backend
    return (bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24) >= np.float32(p)


def _blocks(key: int, upper: Array, lower: Array) -> Array:
    """The four numbers of each counter: uint64 (...), (...) -> uint32 (..., 4)."""
    c0, c1 = lower & _LOW, lower >> _HALF
    c2, c3 = upper & _LOW, upper >> _HALF
    k0, k1 = key & _MASK, key >> 32 & _MASK
    for _ in range(10):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # 32 x 32 -> 64 bits
        c0, c2 = (right >> _HALF) ^ c1 ^ np.uint64(k0), (left >> _HALF) ^ c3 ^ np.uint64(k1)
        c1, c3 = right & _LOW, left & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)
