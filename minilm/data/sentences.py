"""A text as documents of sentences, and these as tokens in flat arrays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError

Array = NDArray[Any]

# Behind a full stop, a question or exclamation mark, with what closes quotes and brackets.
_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|(?<=[。！？])")


def sentences(chunks: Iterable[str], blank_lines: int) -> Iterator[str | None]:
    """The sentences of a text that comes in parts, and None where a document ends.

    A sentence ends at the end of a line, and in it behind a full stop, a question mark or an exclamation mark; nothing
    but white space is lost. (What is taken for a sentence need not be one: they are what segments are packed of.)

    Args:
        blank_lines: so many blank lines, or more, end a document; 0: all is one document.
    """
    blank, begun = 0, False
    for line in _lines(chunks):
        if not line.strip():
            blank += 1
            continue
        if begun and blank_lines and blank >= blank_lines:
            yield None
        blank, begun = 0, True
        yield from _cut(line)
    if begun:
        yield None


def _cut(line: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(line):
        if piece := line[start : match.end()].strip():
            yield piece
        start = match.end()
    if piece := line[start:].strip():
        yield piece


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    held = ""
    for chunk in chunks:
        *whole, held = (held + chunk).split("\n")
        yield from whole
    yield held


@dataclass(frozen=True)
class Documents:
    """Documents of sentences of tokens.

    Attributes:
        tokens: (N,) the tokens of all sentences, one after the other; may be memory-mapped.
        sentences: (S + 1,) where each sentence begins in `tokens`, and N.
        documents: (D + 1,) where each document begins in `sentences`, and S.
    """

    tokens: Array
    sentences: Array
    documents: Array

    def __post_init__(self) -> None:
        s, d = self.sentences, self.documents
        whole = len(s) >= 2 and len(d) >= 2 and s[0] == d[0] == 0 and s[-1] == len(self.tokens) and d[-1] == len(s) - 1
        if not whole or (np.diff(s) < 1).any() or (np.diff(d) < 1).any():
            raise DataError("Documents: the sentences or documents do not cover the tokens, or one is empty")

    def split(self, train_fraction: float, each: bool = False) -> tuple[Documents, Documents]:
        """The sentences that lie in the first `train_fraction` of the tokens, and the rest; no sentence is cut.

        Args:
            each: of each document in place of the whole; a document with sentences for one part only is in that one.
                This copies the tokens.
        Errors: DataError if there is no sentence for either part.
        """
        bounds = self.documents if each else self.documents[[0, -1]]
        cuts = [self._cut(first, end, train_fraction) for first, end in pairwise(bounds.tolist())]
        parts = zip(bounds[:-1].tolist(), cuts), zip(cuts, bounds[1:].tolist())
        train, validation = ([(first, end) for first, end in part if first < end] for part in parts)
        if not train or not validation:
            count, at = len(self.sentences) - 1, sum(end - first for first, end in train)
            raise DataError(
                f"{count} sentences at {train_fraction} give {at} to train and {count - at} to validate; both need some"
            )
        return self._parts(train), self._parts(validation)

    def _cut(self, first: int, end: int, fraction: float) -> int:
        """The sentence that begins the rest, of the sentences first .. end - 1."""
        start, stop = self.sentences[first], self.sentences[end]
        return int(np.searchsorted(self.sentences, start + (stop - start) * fraction, side="right")) - 1

    def _parts(self, spans: list[tuple[int, int]]) -> Documents:
        """The sentences of several spans, one after the other."""
        parts = [self._part(first, end) for first, end in spans]
        if len(parts) == 1:
            return parts[0]
        tokens = np.concatenate([part.tokens for part in parts])
        lengths = np.concatenate([np.diff(part.sentences) for part in parts])
        counts = np.concatenate([np.diff(part.documents) for part in parts])
        return Documents(tokens, np.cumsum([0, *lengths]), np.cumsum([0, *counts]))

    def _part(self, first: int, end: int) -> Documents:
        """The sentences first .. end - 1."""
        start, stop = self.sentences[first], self.sentences[end]
        inside = self.documents[(self.documents > first) & (self.documents < end)]
        return Documents(
            self.tokens[start:stop],
            self.sentences[first : end + 1] - start,
            np.concatenate([[first], inside, [end]]) - first,
        )
