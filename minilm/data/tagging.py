"""Files of sentences with a tag for each word: CoNLL's columns and CoNLL-U."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from minilm.errors import DataError
from minilm.text.reading import read_text

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
BLANKS = " \t\r\n"  # not those that are characters of words, as a no-break space is


@dataclass(frozen=True)
class TaggedSentence:
    """Words (N), their tags (N; none where the file has none) and the line of each in its file, counted from 1."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    lines: tuple[int, ...]
    file: str

    def where(self, i: int) -> str:
        """File and line of word i, as an error begins."""
        return f"{self.file}: line {self.lines[i]}"


def read_conll(
    path: str | os.PathLike[str],
    word_column: int = 1,
    tag_column: int = -1,
    comment: str | None = None,
    labelled: bool = True,
) -> list[TaggedSentence]:
    """Read columns, one word a line, sentences apart by blank lines, as CoNLL 2000 to 2003 and what came after them.

    word_column, tag_column: counted from 1, or with a minus from the last; by default the first and the last.
    comment: lines that begin so are left out. By default none are: "#" may well be a word.
    labelled: without it the tags are not read.

    Columns are apart by tabs if the first line of a word has one, else by blanks. -DOCSTART- lines are left out.

    Errors: DataError with file and line for a line with another number of columns than the first, an empty word or
    tag, bytes that are not UTF-8, or a file without sentences.
    """
    tabs, count, first = False, 0, 0
    columns = {"word": word_column} | ({"tag": tag_column} if labelled else {})

    def words() -> Iterator[tuple[int, tuple[str, str] | None]]:
        nonlocal tabs, count, first
        for n, line in _lines(path):
            if not line.strip(BLANKS):
                yield n, None
                continue
            if line.startswith("-DOCSTART-") or (comment is not None and line.startswith(comment)):
                continue
            if not count:
                tabs = "\t" in line
            fields = line.rstrip("\r\n").split("\t") if tabs else re.split("[ \t]+", line.strip(BLANKS))
            if not count:
                count, first = len(fields), n
                _check_columns(f"{path}: line {n}", columns, count)
            if len(fields) != count:
                raise DataError(f"{path}: line {n}: {len(fields)} columns where line {first} has {count}")
            found = {what: fields[i - 1 if i > 0 else i].strip(BLANKS) for what, i in columns.items()}
            for what, value in found.items():
                if not value:
                    raise DataError(f"{path}: line {n}: the {what} is empty")
            yield n, (found["word"], found.get("tag", ""))

    return _sentences(path, words(), labelled)


def read_conllu(path: str | os.PathLike[str], column: str = "upos", labelled: bool = True) -> list[TaggedSentence]:
    """Read the words of a CoNLL-U file with one of their columns as tags: upos, xpos, or lemma, feats, deprel, ...

    Words are the numbered ones, as treebanks count them: a range for several of them (1-2) and empty nodes (8.1) have
    no tag, and are left out, as comments are.

    Errors: DataError with file and line for a line without ten columns, a number out of its turn, a tag that is
    missing (_), bytes that are not UTF-8, or a file without sentences.

    Source: https://universaldependencies.org/format.html
    """
    if column not in CONLLU[1:]:
        raise DataError(f"the column is {column!r}; CoNLL-U has {', '.join(CONLLU[1:])}")
    tag_at = CONLLU.index(column)

    def words() -> Iterator[tuple[int, tuple[str, str] | None]]:
        expected = 1
        for n, line in _lines(path):
            if not line.strip(BLANKS):
                expected = 1
                yield n, None
                continue
            if line.startswith("#"):
                continue
            where, fields = f"{path}: line {n}", line.rstrip("\r\n").split("\t")
            if len(fields) != len(CONLLU):
                raise DataError(f"{where}: {len(fields)} columns (apart by tabs) where CoNLL-U has {len(CONLLU)}")
            if _is_word(where, fields[0], expected):
                expected += 1
                if not fields[1]:
                    raise DataError(f"{where}: the word is empty")
                if labelled and fields[tag_at] in ("", "_") and column not in ("lemma", "feats"):
                    raise DataError(f"{where}: the word {fields[1]!r} has no {column}")
                yield n, (fields[1], fields[tag_at])

    return _sentences(path, words(), labelled)


def _is_word(where: str, number: str, expected: int) -> bool:
    """Whether a CoNLL-U line is a word; ranges and empty nodes are none."""
    if re.fullmatch(r"[0-9]+\.[1-9][0-9]*", number):
        return False
    several = re.fullmatch(r"([0-9]+)-([0-9]+)", number)
    if several and int(several[1]) == expected and int(several[2]) >= expected:
        return False
    if number != str(expected):
        raise DataError(f"{where}: the word's number is {number!r} where {expected} has its turn")
    return True


def _sentences(
    path: str | os.PathLike[str], words: Iterator[tuple[int, tuple[str, str] | None]], labelled: bool
) -> list[TaggedSentence]:
    """Put words together that no blank line (None) parts."""
    sentences: list[TaggedSentence] = []
    held: list[tuple[int, tuple[str, str]]] = []

    def end() -> None:
        if held:
            found = [pair for _, pair in held]
            tags = tuple(tag for _, tag in found) if labelled else ()
            lines = tuple(n for n, _ in held)
            sentences.append(TaggedSentence(tuple(word for word, _ in found), tags, lines, str(path)))
            held.clear()

    for n, pair in words:
        if pair is None:
            end()
        else:
            held.append((n, pair))
    end()
    if not sentences:
        raise DataError(f"{path}: there is no sentence in this file")
    return sentences


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers. They end at newlines only: U+2028 and the like are characters of words."""
    return enumerate(read_text(path).removeprefix("\ufeff").split("\n"), 1)


def _check_columns(where: str, columns: dict[str, int], count: int) -> None:
    for what, i in columns.items():
        if not 1 <= abs(i) <= count:
            raise DataError(f"{where}: there is no column {i} for the {what} among {count}")
    places = {i - 1 if i > 0 else count + i for i in columns.values()}
    if len(places) < len(columns):
        raise DataError(f"{where}: word and tag would be the same of {count} columns")
