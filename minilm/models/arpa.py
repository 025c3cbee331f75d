r"""N-gram models in ARPA files, the format of SRILM, KenLM and most tools that know n-grams.

    \data\
    ngram 1=4                               how many n-grams of each order follow
    ngram 2=3

    \1-grams:
    -99         <s>         -0.301          log10 p(token), the token, log10 of its back-off weight
    -0.602      a           -0.176
    ...
    \2-grams:
    -0.301      <s> a                       the highest order has no weights
    ...
    \end\

p of an n-gram that is not there is p of its last tokens, without the first, times the weight of its context. -99 stands
for log10 0; a weight that is not there is 1. Lines before \data\ begin with #, as KenLM wants it.
"""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import ConfigError, DataError
from minilm.files import written_whole
from minilm.models.ngram import NGram
from minilm.models.ngram_counts import ORDERS, child_bounds, found_among
from minilm.models.ngram_smoothing import Level
from minilm.text.reading import opened

Array = Any

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
ZERO = -99.0  # and all below: log10 of 0

# Where a token's name ends in the file: at what the tools, and bytes.split, take for white space.
_BLANK = re.compile(r"[ \t\n\r\v\f\0]")


# --- writing -----------------------------------------------------------------------------------------


def write_arpa(path: str | os.PathLike[str], model: NGram, names: Sequence[str], remarks: Sequence[str] = ()) -> None:
    """Write a model, whole or not at all; numbers to the last bit, so that `read_arpa` gives the same model.

    Args:
        names: (V,) how each token is written.
        remarks: lines at the top, each behind a #.
    A running text has no </s>, and some tools will not read a file without one: there it is written with log10 0.

    Errors: ConfigError for add-k, which does not back off; DataError for names that are empty, twice there or have a
    blank; OSError if the file cannot be written.
    """
    if not model.interpolated:
        raise ConfigError("an ARPA file holds models that back off to shorter contexts, and add-k does not")
    written = _checked_names(names, model)
    silent = model.eos is None and EOS not in names  # </s> is written for others
    with written_whole(path) as file:
        head = [f"# {line}" for line in remarks] + ["\\data\\"]
        sizes = [len(level.keys) + (silent and m == 1) for m, level in enumerate(model.levels, 1)]
        head += [f"ngram {m}={size}" for m, size in enumerate(sizes, 1)]
        file.write(("\n".join(head) + "\n").encode())
        contexts = [""]  # the n-grams one order below, as they are written
        for m, level in enumerate(model.levels, 1):
            file.write(f"\n\\{m}-grams:\n".encode())
            last = (level.keys % model.width).tolist()
            context = (level.keys // model.width).tolist()
            grams = [f"{contexts[c]} {written[w]}" if m > 1 else written[w] for c, w in zip(context, last)]
            for line in _lines(level, grams):
                file.write(line.encode())
            if silent and m == 1:
                file.write(f"{ZERO:g}\t{EOS}{chr(9) + '0' if model.order > 1 else ''}\n".encode())
            contexts = grams
        file.write(b"\n\\end\\\n")


def _lines(level: Level, grams: list[str]) -> Iterator[str]:
    probabilities = map(_number, level.log_prob.tolist())
    if level.backoff is None:
        return (f"{p}\t{gram}\n" for p, gram in zip(probabilities, grams))
    return (f"{p}\t{gram}\t{b}\n" for p, gram, b in zip(probabilities, grams, map(_number, level.backoff.tolist())))


def _number(x: float) -> str:
    """The shortest decimal number that is read as x again."""
    return f"{ZERO:g}" if x <= ZERO else repr(x) if x else "0"


def _checked_names(names: Sequence[str], model: NGram) -> list[str]:
    """The names of all tokens and, behind them, that of <s>."""
    if len(names) != model.vocab_size:
        raise DataError(f"ARPA: {len(names)} names came for a vocabulary of {model.vocab_size} tokens")
    known = set(names)
    if len(known) < len(names):
        raise DataError("ARPA: two tokens have the same name")
    if BOS in known or (EOS in known) != (model.eos is not None):
        raise DataError(f"ARPA: {BOS} and {EOS} name the beginning and the end of a sentence and no other token")
    for name in names:
        if not name or _BLANK.search(name):
            raise DataError(f"ARPA: {name!r} cannot name a token, since names end at blanks")
    return [*names, BOS]


# --- reading -----------------------------------------------------------------------------------------


@dataclass
class ArpaFile:
    """What `read_arpa` gives: the model, (V,) the names of its tokens, and the lines at the top without their #."""

    model: NGram
    names: list[str]
    remarks: list[str]


def read_arpa(path: str | os.PathLike[str]) -> ArpaFile:
    """Read a model that minilm, SRILM, KenLM or another tool wrote.

    Tokens have ids in the order of the file; <s> is V. A </s> of probability 0 is no token: the text was a running one.

    Errors: DataError, naming file and line, for anything that is not in the format: numbers of n-grams other than those
    in its head, an order that is missing, too few or too many columns, a number that is none, a token that is no
    1-gram, an n-gram that stands there twice or whose context is missing, or a context without a back-off weight.
    """
    reader = _Reader(Path(path))
    names, rows = reader.unigrams()
    levels = [Level(np.arange(len(names) + 1), _logs(rows.log_prob))]
    for m in range(2, len(reader.sizes) + 1):
        longer = reader.section(m)
        level, place = reader.sorted_level(longer, levels)
        shorter = levels[-1]
        shorter.bounds = child_bounds(level.keys, len(shorter.keys), len(names) + 1)
        reader.check_weights(rows, shorter.bounds, longer, level.keys // (len(names) + 1), place)
        shorter.backoff = np.nan_to_num(_logs(rows.backoff), nan=0.0, neginf=-np.inf)
        levels.append(level)
        rows = longer.reordered(place)
    reader.end()
    return ArpaFile(NGram(levels, len(names), reader.ids.get(EOS.encode())), names, reader.remarks)


def _logs(values: Array) -> Array:
    return np.where(values <= ZERO, -np.inf, values)


@dataclass
class _Rows:
    """The n-grams of order m as they stand in the file.

    Attributes:
        tokens: (n, m) ids; log_prob: (n,); backoff: (n,), NaN where there is none; lines: (n,), counted from 1.
    """

    m: int
    tokens: Array
    log_prob: Array
    backoff: Array
    lines: Array

    def reordered(self, place: Array) -> _Rows:
        return _Rows(self.m, self.tokens[place], self.log_prob[place], self.backoff[place], self.lines[place])


class _Reader:
    """The lines of a file, one after the other, where in it we are, and what it said so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:  # not as text, whose lines also end at characters that may stand in a token
            self.content = file.read().split(b"\n")
        self.at = 0  # lines that were read
        self.ids: dict[bytes, int] = {}  # of the tokens, <s> too
        self.remarks: list[str] = []
        self.sizes: list[int] = []  # how many n-grams of each order the head announces
        self.head()

    def error(self, what: str, line: int | None = None) -> DataError:
        return DataError(f"{self.path}, line {self.at if line is None else line}: {what}")

    def line(self, wanted: str) -> bytes:
        """The next line that is not empty, without blanks around. Errors: DataError at the end of the file."""
        while self.at < len(self.content):
            self.at += 1
            if line := self.content[self.at - 1].strip():
                return line
        raise self.error(f"the file ends, and {wanted} should come")

    def head(self) -> None:
        """Read what stands before the n-grams."""
        while (line := self.line("\\data\\")) != b"\\data\\":
            if line.startswith(b"#"):
                self.remarks.append(line[1:].strip().decode("utf-8", "replace"))
        self.head_line = self.at
        while (line := self.line(f"'ngram {len(self.sizes) + 1}=...'")).startswith(b"ngram"):
            match = re.fullmatch(rb"ngram\s+(\d+)\s*=\s*(\d+)", line)
            if not match or int(match[1]) != len(self.sizes) + 1:
                raise self.error(f"'ngram {len(self.sizes) + 1}=...' should come, not {_shown(line)}")
            self.sizes.append(int(match[2]))
        if len(self.sizes) not in ORDERS:
            raise self.error(f"n-grams of {len(self.sizes)} orders are announced; minilm reads 1 to {ORDERS[-1]}")
        self.at -= 1  # that line belongs to the 1-grams

    def rows(self, m: int) -> Iterator[tuple[list[bytes], float, float]]:
        """The n-grams of order m: their tokens, log10 p and log10 of the weight, NaN where there is none."""
        if (line := self.line(f"'\\{m}-grams:'")) != f"\\{m}-grams:".encode():
            raise self.error(f"'\\{m}-grams:' should come, not {_shown(line)}")
        size, count, most = self.sizes[m - 1], 0, m + 2 if m < len(self.sizes) else m + 1
        while not (line := self.line("'\\end\\'")).startswith(b"\\"):
            columns = line.split()
            if not m + 1 <= len(columns) <= most:
                wanted = (
                    f"{m + 1} or {most} columns" if most > m + 1 else f"{most} columns, there being no {most}-grams"
                )
                raise self.error(f"a {m}-gram should have {wanted}; this has {len(columns)}: {_shown(line)}")
            p = self.number(columns[0], "log10 of a probability, a number of at most 0", 0.0)
            weight = self.number(columns[-1], "log10 of a back-off weight", 1e9) if len(columns) == m + 2 else math.nan
            yield columns[1 : m + 1], p, weight
            count += 1
        self.at -= 1  # that line belongs to what comes next
        if count != size:
            raise self.error(f"{size} {m}-grams are announced, and {count} are there", self.head_line + m)

    def number(self, text: bytes, what: str, largest: float) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not value <= largest:
            raise self.error(f"{_shown(text)} is not {what}")
        return value

    def unigrams(self) -> tuple[list[str], _Rows]:
        """The names of the tokens, (V,), and their rows, with <s> as the last, number V.

        <s> is given the probability 0, whatever the file says, since it is never predicted. A model that has none
        knows no beginnings.
        """
        names: list[str] = []
        found: list[tuple[float, float, int]] = []
        beginning = (ZERO, 0.0, self.at)
        for (token,), p, weight in self.rows(1):
            if token in self.ids:
                raise self.error(f"the 1-gram {_shown(token)} stands here for the second time")
            if token == BOS.encode():
                self.ids[token], beginning = -1, (ZERO, weight, self.at)
            elif token != EOS.encode() or p > ZERO:
                self.ids[token] = len(names)
                names.append(self.name(token))
                found.append((p, weight, self.at))
        if not names:
            raise self.error("there is no token to predict")
        self.ids[BOS.encode()] = V = len(names)
        log_prob, backoff, lines = map(np.array, zip(*found, beginning))
        return names, _Rows(1, np.arange(V + 1)[:, None], log_prob, backoff, lines)

    def name(self, token: bytes) -> str:
        try:
            return token.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{token!r} is no UTF-8 ({error.reason})") from None

    def section(self, m: int) -> _Rows:
        """The n-grams of an order above 1."""
        tokens, log_prob, backoff, lines = array("q"), array("d"), array("d"), array("q")
        for words, p, weight in self.rows(m):
            try:
                tokens.extend([self.ids[word] for word in words])
            except KeyError as error:
                raise self.error(f"the token {_shown(error.args[0])} is no 1-gram of the file") from None
            log_prob.append(p)
            backoff.append(weight)
            lines.append(self.at)
        numbers = (np.array(values) for values in (log_prob, backoff, lines))
        return _Rows(m, np.array(tokens, np.int64).reshape(-1, m), *numbers)

    def sorted_level(self, rows: _Rows, levels: list[Level]) -> tuple[Level, Array]:
        """The level of these n-grams, and which row each of its n-grams is."""
        width = len(self.ids)
        context = rows.tokens[:, 0]
        for level, last in zip(levels[1:], rows.tokens.T[1:]):
            context = found_among(level.keys, context * width + last)
            if len(missing := np.flatnonzero(context < 0)):
                at = missing[0]
                raise self.error(
                    f"the context of this {rows.m}-gram is no {rows.m - 1}-gram of the file", rows.lines[at]
                )
        keys = context * width + rows.tokens[:, -1]
        place = np.argsort(keys, kind="stable")
        if len(again := np.flatnonzero(np.diff(keys[place]) == 0)):
            first, second = rows.lines[place[again[0] : again[0] + 2]]
            raise self.error(f"this {rows.m}-gram stands in line {first} already", second)
        return Level(keys[place], _logs(rows.log_prob[place])), place

    def check_weights(self, shorter: _Rows, bounds: Array, longer: _Rows, contexts: Array, place: Array) -> None:
        """Errors: DataError for an n-gram that is followed by another token and has no weight."""
        missing = np.flatnonzero(np.isnan(shorter.backoff) & (np.diff(bounds) > 0))
        if len(missing):
            needed = longer.lines[place[np.searchsorted(contexts, missing[0])]]
            raise self.error(
                f"this {shorter.m}-gram has no back-off weight, and is the context of the {longer.m}-gram "
                f"in line {needed}",
                shorter.lines[missing[0]],
            )

    def end(self) -> None:
        """Errors: DataError unless the file ends as it should."""
        if (line := self.line("'\\end\\'")) != b"\\end\\":
            raise self.error(f"'\\end\\' should come, not {_shown(line)}")


def _shown(text: bytes) -> str:
    plain = text.decode("utf-8", "replace")
    return f"'{plain}'" if plain.replace("\t", " ").isprintable() else repr(plain)
