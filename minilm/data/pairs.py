"""Files of pairs of texts, a source and what it is to become: a sentence and its translation, a text and its summary.

A TSV file (.tsv, .txt, .tab) has a pair a line, the source before the target; a JSON lines file (.jsonl, .ndjson) an
object a line. Either may be compressed (.gz).
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minilm.data.classification import json_object
from minilm.errors import ConfigError, DataError
from minilm.text.reading import opened
from minilm.text.tokenizer import check_surrogates

# Names of columns as files in use have them, the source's and the target's.
NAMES = (
    ("source", "target"),
    ("src", "tgt"),
    ("text", "summary"),
    ("document", "summary"),
    ("article", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("body", "title"),
    ("text", "title"),
)

Column = str | int | None


@dataclass(frozen=True)
class TextPair:
    """A source and its target ("" where there is none), and the line of the file where it stands, counted from 1."""

    source: str
    target: str
    file: str
    line: int

    @property
    def where(self) -> str:
        """File and line, as an error begins."""
        return f"{self.file}: line {self.line}"


def read_pairs(
    path: str | os.PathLike[str],
    source_column: Column = None,
    target_column: Column = None,
    labelled: bool = True,
) -> list[TextPair]:
    """All pairs of a file, without blanks at their ends; blank lines are left out.

    source_column, target_column: a column's name (JSON lines, and TSV whose first line holds names), or its number
        from 1 (TSV). By default the two that a TSV line has, or those with usual names (`NAMES`), which a first line
        may say too.
    labelled: without it targets need not be there.

    Errors: DataError with file and line for a missing side, another number of columns, JSON that is none, a column that
    is not there, bytes that are not UTF-8, or a file without pairs.
    """
    place = Path(path)
    suffix = place.with_suffix("").suffix if place.suffix == ".gz" else place.suffix
    if suffix.lower() in (".jsonl", ".ndjson"):
        pairs = list(_from_objects(place, (source_column, target_column), labelled))
    elif suffix.lower() in (".tsv", ".txt", ".tab"):
        pairs = list(_from_lines(place, (source_column, target_column), labelled))
    else:
        raise DataError(f"{place}: the name ends in {suffix!r}; known are .tsv and .jsonl, also with .gz behind")
    if not pairs:
        raise DataError(f"{place}: there is no pair in this file")
    return pairs


def held_out(pairs: Sequence[TextPair], every: int) -> tuple[list[TextPair], list[TextPair]]:
    """The pairs to learn from, and those to test on: of N pairs those number `every`, 2 `every`, ..., counted from 1.

    Errors: ConfigError for `every` below 2; DataError where one part would be empty.
    """
    if every < 2:
        raise ConfigError(f"every {every}th pair cannot be held out; it must be at least every 2nd")
    test = list(pairs[every - 1 :: every])
    if not test:
        raise DataError(f"{pairs[0].file}: has {len(pairs)} pairs, so none is the {every}th to be held out")
    return [pair for number, pair in enumerate(pairs, 1) if number % every], test


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, also a .gz, that are not blank, and their numbers from 1. Errors: DataError."""
    with opened(path) as file:
        content = file.read()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: cannot be unpacked ({error})") from None
    if not content:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}: line {number}: is no UTF-8 text (byte {line[error.start]:#04x}, number {error.start + 1})"
            ) from None
        if text.strip():
            yield number, text.removesuffix("\r")


def _from_lines(path: Path, chosen: tuple[Column, Column], labelled: bool) -> Iterator[TextPair]:
    places: tuple[int, int | None] | None = None
    count = 0
    for line, text in read_lines(path):
        row, where = text.split("\t"), f"{path}: line {line}"
        if places is None:
            names, count = [name.strip() for name in row], len(row)
            places, header = _places(where, names, chosen, labelled)
            if header:
                continue
        if len(row) != count:
            raise DataError(f"{where}: has {_columns(len(row))}, and the first line has {count}")
        at, to = places
        yield _pair(path, line, row[at], None if to is None else row[to], labelled)


def _places(
    where: str, names: list[str], chosen: tuple[Column, Column], labelled: bool
) -> tuple[tuple[int, int | None], bool]:
    """Where source and target stand, and whether the first line holds their names."""
    usual = next(((s, t) for s, t in NAMES if s in names and t in names), None)
    if any(isinstance(column, str) for column in chosen) or (chosen == (None, None) and usual is not None):
        source, target = (column or name for column, name in zip(chosen, usual or (None, None)))
        found = [_place(where, names, column, needed) for column, needed in ((source, True), (target, labelled))]
        header = True
    elif any(chosen):
        found = [_place(where, names, column, needed) for column, needed in zip(chosen, (True, labelled))]
        header = False
    else:
        if len(names) != 2 and (labelled or len(names) != 1):
            raise DataError(
                f"{where}: has {_columns(len(names))}; a pair is a source, a tab and a target. Of more columns say "
                "which: source_column, target_column, --source-column, --target-column"
            )
        found, header = [0, 1 if len(names) == 2 else None], False
    assert found[0] is not None
    if found[0] == found[1]:
        raise DataError(f"{where}: source and target must be different columns")
    return (found[0], found[1]), header


def _place(where: str, names: list[str], column: Column, needed: bool) -> int | None:
    if column is None:
        if needed:
            raise DataError(f"{where}: which column is the source and which the target must both be said")
        return None
    if isinstance(column, int):
        if not 1 <= column <= len(names):
            raise DataError(f"{where}: there is no column {column} among {len(names)}")
        return column - 1
    if names.count(column) != 1:
        raise DataError(f"{where}: the column {column!r} is not among {', '.join(map(repr, names))}, or twice")
    return names.index(column)


def _from_objects(path: Path, chosen: tuple[Column, Column], labelled: bool) -> Iterator[TextPair]:
    names: tuple[Column, Column] | None = chosen if chosen[0] and (chosen[1] or not labelled) else None
    for line, text in read_lines(path):
        where = f"{path}: line {line}"
        item = json_object(where, text)
        if names is None:
            usual = [(s, t) for s, t in NAMES if s in item and (t in item or not labelled)]
            if not usual:
                raise DataError(
                    f"{where}: has {', '.join(map(repr, item))}; say which is the source and which the target: "
                    "source_column, target_column, --source-column, --target-column"
                )
            names = usual[0]
        source, target = (_text(where, item, name, needed) for name, needed in zip(names, (True, labelled)))
        assert source is not None
        yield _pair(path, line, source, target, labelled)


def _text(where: str, item: dict[str, Any], name: Column, needed: bool) -> str | None:
    if name not in item:
        if needed:
            raise DataError(f"{where}: there is no {name!r} among {', '.join(map(repr, item))}")
        return None
    value = item[str(name)]
    if not isinstance(value, str):
        raise DataError(f"{where}: {name!r} is {str(value)[:40]}, not a text")
    try:
        check_surrogates(value)  # JSON can write half a character, which no UTF-8 file can hold
    except DataError as error:
        raise DataError(f"{where}: {name!r}: {error}") from None
    return value


def _pair(path: Path, line: int, source: str, target: str | None, labelled: bool) -> TextPair:
    source, target = source.strip(), (target or "").strip()
    for what, text in (("source", source), *((("target", target),) if labelled else ())):
        if not text:
            raise DataError(f"{path}: line {line}: the {what} is empty")
    return TextPair(source, target, str(path), line)


def _columns(count: int) -> str:
    return f"{count} column{'s' * (count != 1)}"
