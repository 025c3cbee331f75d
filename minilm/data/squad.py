"""SQuAD's files: questions on a text, with answers in it or (version 2) with none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from minilm.errors import DataError
from minilm.text.reading import read_text
from minilm.text.tokenizer import check_surrogates

_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Answer:
    """A part of the context: its text, and where it begins, in characters from 0."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """A question, the text that is asked about, its answers (none: the text has none), and where it stands."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]
    title: str
    file: str
    path: str

    @property
    def where(self) -> str:
        """File and place in it, as an error begins."""
        return f"{self.file}: {self.path} (id {self.id!r})"


@dataclass(frozen=True)
class SquadFile:
    """The questions of a file, and how many answers were moved because blanks stood otherwise in the context."""

    questions: list[Question]
    repaired: int
    has_unanswerable: bool


def read_squad(path: str | os.PathLike[str], labelled: bool = True) -> SquadFile:
    """Read SQuAD 1.1 or 2.0 JSON.

    labelled: without it questions need no answers, and answers are not read.

    Version 2's `is_impossible` means: no answer; its `plausible_answers` are not read. An answer must stand in its
    context at `answer_start`. Where only blanks differ (around it, or of another kind or number within) it is moved to
    what stands there, and counted in `repaired`; anything else is an error.

    Errors: DataError with file, line and place (data[0].paragraphs[2].qas[1]) for JSON that is none, a missing or
    mistyped field, an empty question or context, a repeated id, a question with neither answers nor is_impossible, or
    with both, an answer that is not in its context, or a file without questions.
    """
    text = read_text(path).removeprefix("\ufeff")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        why = f"{error.msg}, column {error.colno}"
        raise DataError(f"{path}: line {error.lineno}: is not JSON ({why})") from None
    except RecursionError:
        raise DataError(f"{path}: line 1: is not JSON for a question file (too many brackets in brackets)") from None
    reader = _Reader(str(path), text, labelled)
    questions = list(reader.questions(data))
    if not questions:
        raise DataError(f"{path}: there is no question in this file")
    return SquadFile(questions, reader.repaired, any(not question.answers for question in questions))


class _Reader:
    """Walks through the objects and knows where it is."""

    def __init__(self, file: str, text: str, labelled: bool) -> None:
        self.file, self.text, self.labelled = file, text, labelled
        self.repaired = 0
        self._first: dict[str, str] = {}  # id -> where it stands

    def questions(self, data: Any) -> Iterator[Question]:
        for i, article in self._list(data, "data", ()):
            title = article.get("title", "")
            for j, paragraph in self._list(article, "paragraphs", ("data", i)):
                at = ("data", i, "paragraphs", j)
                context = self._text(paragraph, "context", at)
                for k, question in self._list(paragraph, "qas", at):
                    yield self._question(question, str(title), context, (*at, "qas", k))

    def _question(self, item: dict[str, Any], title: str, context: str, at: tuple[Any, ...]) -> Question:
        question, key = self._text(item, "question", at), str(self._field(item, "id", (str, int), at))
        if key in self._first:
            raise self._error(at, f"the id {key!r} is that of {self._first[key]}, too")
        self._first[key] = _path(at)
        answers: list[Answer] = []
        if self.labelled:
            impossible = item.get("is_impossible", False)
            if not isinstance(impossible, bool):
                raise self._error(at, f"is_impossible is {json.dumps(impossible)[:40]}, not true or false")
            if not impossible or "answers" in item:
                answers = [self._answer(a, context, (*at, "answers", n)) for n, a in self._list(item, "answers", at)]
            if impossible == bool(answers):
                why = "is_impossible is true, and there are answers" if answers else "there is no answer"
                raise self._error(at, why if answers else f"{why}, and is_impossible is not true")
        return Question(key, question, context, tuple(answers), title, self.file, _path(at))

    def _answer(self, item: dict[str, Any], context: str, at: tuple[Any, ...]) -> Answer:
        text, start = self._text(item, "text", at), self._field(item, "answer_start", (int,), at)
        if start >= 0 and text == text.strip() == context[start : start + len(text)]:
            return Answer(text, start)
        found = _moved_by_blanks(context, text, start)
        if found is None:
            stands = context.find(text)
            also = f"; it stands at {stands}" if stands >= 0 else ", nor anywhere in it"
            raise self._error(at, f"the answer {text[:60]!r} is not in its context at {start}{also}")
        self.repaired += 1
        return found

    def _list(self, item: Any, name: str, at: tuple[Any, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        if not isinstance(item, dict):
            raise self._error(at, f"is {type(item).__name__}, not a JSON object")
        for i, part in enumerate(self._field(item, name, (list,), at)):
            if not isinstance(part, dict):
                raise self._error((*at, name, i), f"is {json.dumps(part)[:40]}, not a JSON object")
            yield i, part

    def _text(self, item: dict[str, Any], name: str, at: tuple[Any, ...]) -> str:
        text: str = self._field(item, name, (str,), at)
        if not text.strip():
            raise self._error(at, f"the {name} is empty")
        try:
            check_surrogates(text)  # JSON can write half a character, which no tokenizer takes
        except DataError as error:
            raise self._error(at, f"the {name}: {error}") from None
        return text

    def _field(self, item: dict[str, Any], name: str, kinds: tuple[type, ...], at: tuple[Any, ...]) -> Any:
        if name not in item:
            raise self._error(at, f"there is no {name!r}")
        if not isinstance(item[name], kinds) or isinstance(item[name], bool):
            what = " or ".join(kind.__name__ for kind in kinds)
            raise self._error(at, f"{name!r} is {json.dumps(item[name])[:40]}, not {what}")
        return item[name]

    def _error(self, at: tuple[Any, ...], why: str) -> DataError:
        return DataError(f"{self.file}: line {line_of(self.text, at)}: {_path(at)}: {why}")


def _moved_by_blanks(context: str, text: str, start: int) -> Answer | None:
    """The part of the context that is `text` but for blanks, if between it and `start` there are none but blanks."""
    pattern = r"\s+".join(map(re.escape, text.split()))
    found = min(re.finditer(pattern, context), key=lambda match: abs(match.start() - start), default=None)
    if found is None or not 0 <= start <= len(context):
        return None
    low, high = sorted((start, found.start()))
    return None if context[low:high].strip() else Answer(found[0], found.start())


def _path(at: Sequence[Any]) -> str:
    """("data", 0, "paragraphs", 2) as data[0].paragraphs[2]."""
    parts = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at)
    return parts.removeprefix(".") or "the whole"


def line_of(text: str, at: Sequence[str | int]) -> int:
    """The line, counted from 1, on which the value at a path of keys and indices begins in (sound) JSON.

    `json` does not keep places, so this walks there again, only when there is an error to report.
    """
    place = _skip(text, 0)
    for step in at:
        place = _skip(text, place + 1)  # behind the bracket
        number = 0
        while True:
            key: Any = number
            if isinstance(step, str):
                key, place = _DECODER.raw_decode(text, place)
                place = _skip(text, _skip(text, place) + 1)  # behind the colon
            if key == step:
                break
            _, place = _DECODER.raw_decode(text, place)
            place = _skip(text, _skip(text, place) + 1)  # behind the comma
            number += 1
    return text.count("\n", 0, place) + 1


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\r\n":
        place += 1
    return place
