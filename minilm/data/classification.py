"""Files of labelled texts, for classification: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minilm.data.labels import LabelMap
from minilm.errors import DataError
from minilm.text.reading import read_text
from minilm.text.tokenizer import check_surrogates

# Names of columns as files in use have them, and the second text's beside the first's where there are two.
TEXTS = (
    "text",
    "sentence",
    "review",
    "content",
    "comment",
    "tweet",
    "utterance",
    "sentence1",
    "premise",
    "question",
    "question1",
)
PAIRS = {
    "text": "text_pair",
    "sentence1": "sentence2",
    "premise": "hypothesis",
    "question": "sentence",
    "question1": "question2",
}
LABELS = ("label", "labels", "class", "category", "sentiment", "target", "intent", "gold_label")

LONGEST = 2**31 - 1  # characters of a field of CSV; more than a C long holds on Windows is refused
Column = str | int | None


@dataclass(frozen=True)
class TextExample:
    """A text (or two) with its label, and the line of the file where it begins, counted from 1."""

    text: str
    label: str | None
    pair: str | None
    file: str
    line: int

    @property
    def where(self) -> str:
        """File and line, as an error begins."""
        return f"{self.file}: line {self.line}"


@dataclass(frozen=True)
class _Columns:
    """The keys of the parts in a row: numbers from 0, or names in JSON lines."""

    text: Any
    label: Any
    pair: Any


def read_classification(
    path: str | os.PathLike[str],
    text_column: Column = None,
    label_column: Column = None,
    pair_column: Column = None,
    header: bool | None = None,
    labelled: bool = True,
    delimiter: str | None = None,
    quoted: bool | None = None,
) -> list[TextExample]:
    r"""Read labelled texts from a .csv, .tsv (or .txt, .tab) or .jsonl (or .ndjson, .json with an object a line).

    text_column, label_column, pair_column: a column's name, or its number counted from 1; by default the one that
        has a usual name (`TEXTS`, `LABELS`, `PAIRS`), whatever its case. A pair's second is read where its first has
        the name that goes with it.
    header: whether the first line holds names. By default it does if columns are given by name or by default, and
        where they are given by number, if it has a usual name in one of them.
    labelled: without it a file needs no labels.
    delimiter: by default "," or, for .tsv, a tab.
    quoted: whether "..." holds delimiters and line ends, as in CSV. By default not in .tsv, where a " is a " .

    Labels are text; a JSON number or boolean is written as Python does. Blank lines are left out, blanks around labels
    too.

    Errors: DataError with file and line for a row of another length, an empty text or label, JSON that is none, a
    missing or ambiguous column, an open quotation mark, bytes that are not UTF-8, or a file without examples.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    chosen = {"text": text_column, "label": label_column, "pair": pair_column}
    if suffix in (".jsonl", ".ndjson", ".json"):
        examples = list(_from_objects(place, chosen, labelled))
    elif suffix in (".csv", ".tsv", ".txt", ".tab"):
        comma = suffix == ".csv"
        rows = _rows(place, delimiter or ("," if comma else "\t"), comma if quoted is None else quoted)
        examples = list(_from_rows(place, rows, chosen, header, labelled))
    else:
        raise DataError(f"{place}: the name ends in {suffix!r}; known are .csv, .tsv and .jsonl")
    if not examples:
        raise DataError(f"{place}: there is no example in this file")
    return examples


def label_ids(examples: Sequence[TextExample], labels: LabelMap) -> NDArray[np.int64]:
    """The labels' numbers (N,). Errors: DataError with file and line for one that training did not have."""
    return np.array([labels.id(_label(example), example.where) for example in examples], dtype=np.int64)


def label_numbers(examples: Sequence[TextExample]) -> NDArray[np.float32]:
    """The labels as numbers (N,), for regression. Errors: DataError with file and line for what is no finite number."""
    numbers = np.empty(len(examples), dtype=np.float32)
    for i, example in enumerate(examples):
        try:
            value = float(_label(example))
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{example.where}: the label {example.label!r} is not a number")
        numbers[i] = value
    return numbers


def _label(example: TextExample) -> str:
    if example.label is None:
        raise DataError(f"{example.where}: has no label")
    return example.label


# --- rows: CSV and TSV ------------------------------------------------------------------------------------


def _rows(path: Path, delimiter: str, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of its first line."""
    text = read_text(path).removeprefix("\ufeff")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    before = csv.field_size_limit(LONGEST)  # by default a field has 131,072 characters at most
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
        line = 1
        try:
            for row in reader:
                if len(row) > 1 or (row and row[0].strip()):
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            why = "a quotation mark is opened and not closed" if "end of data" in str(error) else str(error)
            raise DataError(f"{path}: line {line}: {why}") from None
    finally:
        csv.field_size_limit(before)


def _from_rows(
    path: Path, rows: Iterator[tuple[int, list[str]]], chosen: dict[str, Column], header: bool | None, labelled: bool
) -> Iterator[TextExample]:
    first = next(rows, None)
    if first is None:
        return
    line, names = first
    named = _is_header(names, chosen) if header is None else header
    columns = _columns(f"{path}: line {line}", names, chosen, named, labelled)
    if not named:
        yield _example(path, line, names, columns, labelled)
    for n, row in rows:
        if len(row) != len(names):
            what = f"the header has {len(names)} ({', '.join(names)})" if named else f"line {line} has {len(names)}"
            raise DataError(f"{path}: line {n}: {len(row)} columns where {what}")
        yield _example(path, n, row, columns, labelled)


def _is_header(names: list[str], chosen: dict[str, Column]) -> bool:
    numbers = [i for i in chosen.values() if isinstance(i, int)]
    if not numbers or any(isinstance(i, str) for i in chosen.values()):
        return True
    usual = {*TEXTS, *LABELS, *PAIRS.values()}
    return any(0 < i <= len(names) and names[i - 1].strip().lower() in usual for i in numbers)


def _columns(where: str, names: Sequence[str], chosen: dict[str, Column], named: bool, labelled: bool) -> _Columns:
    """Which column is which. Errors: DataError, beginning with `where`, if that is not certain."""
    lower = [name.strip().lower() for name in names] if named else []
    found = {part: _column(where, names, lower, column) for part, column in chosen.items()}
    text = found["text"]
    if text is None:
        found["text"] = text = _usual(where, names, lower, TEXTS, "text", found)
    if found["label"] is None:
        found["label"] = _usual(where, names, lower, LABELS, "label", found, needed=labelled)
    if found["pair"] is None and lower and text is not None:
        second = PAIRS.get(lower[text])
        found["pair"] = lower.index(second) if second in lower else None
    taken = [i for i in found.values() if i is not None]
    if len(set(taken)) != len(taken):
        raise DataError(f"{where}: text, label and pair must be different columns")
    return _Columns(**found)


def _column(where: str, names: Sequence[str], lower: list[str], column: Column) -> int | None:
    """The place of a column that was given by name or number."""
    if column is None:
        return None
    if isinstance(column, int):
        if not 1 <= column <= len(names):
            raise DataError(f"{where}: there is no column {column} among {len(names)}")
        return column - 1
    places = [i for i, name in enumerate(names) if name.strip() == column] or [
        i for i, name in enumerate(lower) if name == column.lower()
    ]
    if not lower or len(places) != 1:
        why = "twice" if len(places) > 1 else "not"
        raise DataError(f"{where}: the column {column!r} is {why} among {', '.join(map(repr, names))}")
    return places[0]


def _usual(
    where: str,
    names: Sequence[str],
    lower: list[str],
    usual: Sequence[str],
    part: str,
    found: dict[str, int | None],
    needed: bool = True,
) -> int | None:
    """The one place of a usual name that nothing else has."""
    seconds = [PAIRS.get(name) for name in lower]
    places = [i for i, name in enumerate(lower) if name in usual and name not in seconds and i not in found.values()]
    if len(places) == 1:
        return places[0]
    if places:
        raise DataError(
            f"{where}: {' and '.join(repr(names[i]) for i in places)} could both be the {part}; "
            f"say which: {part}_column, --{part}-column"
        )
    if needed:
        shown = ", ".join(repr(name[:40]) for name in names[:10])
        raise DataError(
            f"{where}: no column is named as {part}s are ({', '.join(usual)}) among {shown}; say which by its name, "
            f"or by its number where the file has no header: {part}_column, --{part}-column"
        )
    return None


def _example(path: Path, line: int, row: Any, columns: _Columns, labelled: bool) -> TextExample:
    text, label = row[columns.text], None if columns.label is None else row[columns.label]
    pair = None if columns.pair is None else row[columns.pair]
    if not text.strip() or (pair is not None and not pair.strip()):
        raise DataError(f"{path}: line {line}: the text is empty")
    label = None if label is None else label.strip()
    if labelled and not label:
        raise DataError(f"{path}: line {line}: the label is empty")
    return TextExample(text, label or None, pair, str(path), line)


# --- objects: JSON lines ----------------------------------------------------------------------------------


def _from_objects(path: Path, chosen: dict[str, Column], labelled: bool) -> Iterator[TextExample]:
    columns, names = None, []
    for line, content in enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1):
        if not content.strip():
            continue
        where = f"{path}: line {line}"
        item = json_object(where, content)
        if columns is None:
            names = list(item)
            places = _columns(where, names, chosen, True, labelled)
            parts = (places.text, places.label, places.pair)
            columns = _Columns(*(None if i is None else names[i] for i in parts))
        row = {}
        for part in ("text", "label", "pair"):
            name = getattr(columns, part)
            if name is not None:
                if name not in item and not (part == "label" and not labelled):
                    raise DataError(f"{where}: there is no {name!r} among {', '.join(map(repr, item))}")
                row[name] = _value(where, name, item.get(name, ""), part)
        yield _example(path, line, row, columns, labelled)


def json_object(where: str, content: str) -> dict[str, Any]:
    """A line of JSON as an object. Errors: DataError, beginning with `where`, for what is none."""
    try:
        item = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON ({error})") from None
    if not isinstance(item, dict):
        raise DataError(f"{where}: is {type(item).__name__}, not a JSON object")
    return item


def _value(where: str, name: str, value: Any, part: str) -> str:
    if isinstance(value, str):
        try:
            check_surrogates(value)  # JSON can write half a character, which no UTF-8 file can hold
        except DataError as error:
            raise DataError(f"{where}: {name!r}: {error}") from None
        return value
    if part == "label" and isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    raise DataError(f"{where}: {name!r} is {json.dumps(value)[:40]}, not a text")
