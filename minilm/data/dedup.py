"""Leaving out records, lines or documents, that were there before: exact duplicates by a hash of 128 bits.

The memory has a bound, whatever the input: hashes go to disk and are compared range by range, as in sorting by
distribution. The text is cut into spans of some MiB, and

    1. `write_hashes` writes the different hashes of a span, sorted, into a file, with the records' numbers;
    2. `mark_repeated` takes all hashes of one range: in each of the sorted files they lie side by side.
       Those that an earlier span has too are marked in the files;
    3. `kept` reads the span again, and leaves out what is marked or was not written.

Steps 1 and 2 can be done again with the same result, so they may be stopped anywhere. Spans are independent in
steps 1 and 3, ranges in step 2: each can be the work of another process.

Two different records take each other's hash with a probability of about n**2 / 2**129 for n records: 1e-23 for
100 million.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole

U64 = np.uint64
Hashes = NDArray[np.uint64]  # (N, 2)
Mask = NDArray[np.bool_]

LONGEST = 1 << 26
SPAN_BYTES = 1 << 23  # of text whose hashes are sorted at a time, in memory
RANGE = 1 << 20  # hashes compared at a time: 24 MB, and some four times as much while they are sorted
ENTRY_BYTES = 24  # two words of hash and a number
REPEATED = U64(2**64 - 1)  # in place of the number


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


def write_hashes(path: Path, chunks: Iterable[str], separator: str) -> None:
    """Write the different hashes of a span as (3, N) words: both words of each, in order, and its record's number.

    Of equal records the first is there; empty ones are not, since they are never duplicates. Errors: those of
    `records`; OSError.
    """
    found = hashes(chunks, separator)
    numbers = np.flatnonzero(found.any(axis=1))
    high, low = found[numbers].T
    order = np.lexsort((low, high))  # stable: of equal ones the first comes first
    order = order[~_repeats(high[order], low[order])]
    with written_whole(path) as file:
        for row in (high, low, numbers.astype("<u8")):
            file.write(row[order].tobytes())


def ranges(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Cut 0 .. 2**64 - 1 into ranges (first, last) of which each has about RANGE of the hashes in the files."""
    count = max(-(-sum(path.stat().st_size for path in paths) // (ENTRY_BYTES * RANGE)), 1)
    bounds = [(i << 64) // count for i in range(count + 1)]
    return [(first, behind - 1) for first, behind in pairwise(bounds)]


def mark_repeated(paths: Sequence[Path], first: int, last: int) -> None:
    """Mark, of the hashes whose first word is in first .. last, those that an earlier one of the files has too."""
    places, parts = [], []
    for path in paths:
        words = _words(path)
        start = int(np.searchsorted(words[0], U64(first)))
        end = int(np.searchsorted(words[0], U64(last), side="right"))
        places.append((start, end))
        parts.append(np.array(words[:2, start:end]))
    high, low = np.concatenate(parts, axis=1)
    order = np.lexsort((low, high))
    repeated = np.zeros(len(order), bool)
    repeated[order] = _repeats(high[order], low[order])
    done = 0
    for path, (start, end) in zip(paths, places):
        here, done = repeated[done : done + end - start], done + end - start
        if here.any():
            _words(path, "r+")[2, start:end][here] = REPEATED


def kept(chunks: Iterable[str], separator: str, path: Path) -> Iterator[str]:
    """The text of a span without the records that were there before: those not in its file, or marked in it."""
    numbers = _words(path)[2]
    stay = np.sort(numbers[numbers != REPEATED])
    start = 0
    for group in records(chunks, separator):
        begin, end = np.searchsorted(stay, [U64(start), U64(start + len(group))])
        mask: Mask = np.zeros(len(group), bool)
        mask[stay[begin:end] - U64(start)] = True
        text = "".join(record for record, keep in zip(group, mask.tolist()) if keep or record == separator)
        start += len(group)
        if text:
            yield text


def _repeats(high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Mask:
    """Which of sorted hashes equal the one before."""
    same: Mask = np.zeros(len(high), bool)
    same[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    return same


def _words(path: Path, mode: Any = "r") -> NDArray[np.uint64]:
    """A file of `write_hashes` as (3, N), mapped into memory."""
    count = path.stat().st_size // ENTRY_BYTES
    if count == 0:  # nothing can be mapped of it
        return np.zeros((3, 0), U64)
    return np.memmap(path, "<u8", mode, shape=(3, count))
