"""Cutting text files into pieces of bytes at line or document boundaries, without reading them whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from minilm.errors import DataError
from minilm.text.reading import opened

WINDOW = 1 << 16
MARGIN = 4  # bytes before and behind a newline: the longest character of UTF-8


@dataclass(frozen=True)
class Piece:
    """The bytes `start` .. `end` - 1 of the file `source`."""

    source: str
    start: int
    end: int


def pieces(sources: Iterable[str | os.PathLike[str]], size: int, separator: str = "\n") -> list[Piece]:
    r"""Cut files into pieces of `size` bytes and what is left of a line or document; no piece has parts of two files.

    A piece ends right behind a separator; a function of the files alone. At lines, a newline between
    two characters that are no white space is preferred if there is one within 64 KiB: there a cut
    changes nothing for GPT-2's pre-tokenisation. With "\n" at an end of text, or before a non-space,
    the newline is a match of its own either way, and no match goes on over it. A newline beside more
    white space ("\r\n", blank lines, indentation) would be one match with it, or two, by what follows.

    Errors: DataError for a file that is missing, empty or cannot be read.
    """
    found = []
    for source in sources:
        with opened(source) as file:
            total = os.fstat(file.fileno()).st_size
            if total == 0:
                raise DataError(f"{source}: the file is empty (0 bytes)")
            start = 0
            while start < total:
                end = _cut(file, start + size, total, separator.encode())
                found.append(Piece(str(source), start, end))
                start = end
    return found


def spans(piece: Piece, size: int, separator: str = "\n") -> list[Piece]:
    """Cut a piece further, in the same way."""
    found, start = [], piece.start
    with opened(piece.source) as file:
        while start < piece.end:
            end = min(_cut(file, start + size, piece.end, separator.encode()), piece.end)
            found.append(Piece(piece.source, start, end))
            start = end
    return found


def _cut(file: IO[bytes], target: int, total: int, separator: bytes) -> int:
    r"""The end of the first separator from byte `target` on, a neutral one if it is near; or `total`.

    Separators are those that reading from the beginning finds: in "\n\n\n" the first two bytes are "\n\n", not
    the last two. Where another one begins shortly before, that cannot be known from here, and it does not count.
    """
    margin = max(MARGIN, len(separator))
    at = max(target - margin, 0)
    while at < total:
        file.seek(at)
        data = file.read(WINDOW)
        first = None
        for match in re.finditer(re.escape(separator), data):
            if at + match.start() < target or _overlapped(data, match.start(), separator):
                continue
            if separator != b"\n" or _between_words(data, match.start()):
                return at + match.end()
            first = first or at + match.end()
        if first is not None:
            return first
        if len(data) < WINDOW:
            break
        at += WINDOW - len(separator) - margin
        target = at + margin  # what is before was seen
    return total


def _overlapped(data: bytes, start: int, separator: bytes) -> bool:
    """Whether a separator begins less than its length before the one at `start`."""
    length = len(separator)
    return separator in data[max(start - length + 1, 0) : start + length - 1]


def _between_words(data: bytes, newline: int) -> bool:
    before = data[max(newline - MARGIN, 0) : newline].decode("utf-8", "ignore")[-1:]
    behind = data[newline + 1 : newline + 1 + MARGIN].decode("utf-8", "ignore")[:1]
    return bool(before and behind) and not before.isspace() and not behind.isspace()
