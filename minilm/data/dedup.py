"""Leaving out records, lines or documents, that were there before: exact duplicates by a hash of 128 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError

Hashes = NDArray[np.uint64]  # (N, 2)
Mask = NDArray[np.bool_]

LONGEST = 1 << 26


def records(chunks: Iterable[str], separator: str, longest: int = LONGEST) -> Iterator[list[str]]:
    """The records in adjacent parts of a text, each with its separator; only the last may lack it.

    Errors: DataError for a record of more than `longest` characters, since one is held in memory.
    """
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split(separator)
        if len(held) > longest:
            raise DataError(f"a line or document has more than {longest} characters, too many to compare it")
        if whole:
            yield [record + separator for record in whole]
    if held:
        yield [held]


def hashes(chunks: Iterable[str], separator: str) -> Hashes:
    """BLAKE2b of each record without its separator, 128 bits as (N, 2); zeros for an empty one."""
    parts = []
    for group in records(chunks, separator):
        texts = [record.removesuffix(separator) for record in group]
        parts.append(b"".join(blake2b(t.encode(), digest_size=16).digest() if t else bytes(16) for t in texts))
    return np.frombuffer(b"".join(parts), "<u8").reshape(-1, 2)


def kept(chunks: Iterable[str], separator: str, mask: Mask) -> Iterator[str]:
    """The text of those records whose number is True in `mask`."""
    start = 0
    for group in records(chunks, separator):
        text = "".join(record for record, keep in zip(group, mask[start : start + len(group)]) if keep)
        start += len(group)
        if text:
            yield text


class Seen:
    """A set of 128-bit hashes: 16 bytes each in a table filled to between 3/8 and 3/4, so 21 to 43 bytes.

    While the table doubles, the old one is there too: half as much again for that moment.

    Open addressing with linear probing (Knuth, The Art of Computer Programming, volume 3, section
    6.4, algorithm L), for many hashes at a time. Two different records take each other's hash with a
    probability of about n**2 / 2**129: 1e-23 for 100 million.
    """

    def __init__(self) -> None:
        self._table: Hashes = np.zeros((1 << 10, 2), np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """The size of the table."""
        return self._table.nbytes

    def add(self, new: Hashes) -> Mask:
        """Put in (N, 2) hashes; True where one was not in before, nor earlier in `new`. Zeros are always new."""
        fresh: Mask = ~np.any(new, axis=1)
        candidates = np.flatnonzero(~fresh)
        rows = np.ascontiguousarray(new[candidates]).view([("", "<u8"), ("", "<u8")]).reshape(-1)
        _, first = np.unique(rows, return_index=True)
        candidates = candidates[first]
        while 4 * (self._count + len(candidates)) > 3 * len(self._table):
            self._grow()
        added = candidates[self._insert(new[candidates])]
        self._count += len(added)
        fresh[added] = True
        return fresh

    def _insert(self, new: Hashes) -> Mask:
        """Put in hashes that differ from each other; True for those that were not in."""
        mask = np.uint64(len(self._table) - 1)
        slots, waiting = new[:, 0] & mask, np.arange(len(new))
        inserted = np.zeros(len(new), bool)
        while len(waiting):
            wanted, place = new[waiting], slots[waiting]
            free = ~self._table[place].any(axis=1)
            self._table[place[free]] = wanted[free]  # of several that want one slot, the last gets it
            here = (self._table[place] == wanted).all(axis=1)
            inserted[waiting[here & free]] = True
            waiting = waiting[~here]
            slots[waiting] = (slots[waiting] + np.uint64(1)) & mask
        return inserted

    def _grow(self) -> None:
        old, size = self._table, len(self._table)
        self._table = np.zeros((2 * size, 2), np.uint64)
        for start in range(0, size, 1 << 20):
            part: Any = old[start : start + (1 << 20)]
            self._insert(part[part.any(axis=1)])
