"""Reading comprehension from raw text: passages, questions by rule, in SQuAD 2's format, apart for training and test.

The rules are in question_rules.py. Works (plays, books, or stretches of a text that names none) go to one part as a
whole; so no passage and no question stands in both.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from string import capwords
from typing import Any

from minilm.data.question_rules import NAMES, PERSON, PLACE, TIME, Asked, Lexicon, candidates, questions_in
from minilm.data.squad import Question
from minilm.errors import DataError

_AUTHOR = re.compile(r"^[ \t]*by (?:[A-Z][\w.'’-]* ?){1,4}$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])(?<![A-Z]\.)[\"'”’)\]]*\s+")  # not behind "CAESAR." nor "J."
STRETCH = 20  # passages of one work, where the text names none


@dataclass(frozen=True)
class Passage:
    """A part of a text, from its number of characters `start` on, and the work that it is of."""

    text: str
    title: str
    start: int


@dataclass(frozen=True)
class Settings:
    """How questions are made.

    Attributes:
        count: the questions of both parts at most.
        valid_fraction: the share of the second part, of `count` and (by the questions found) of the works.
        no_answer: the share of questions without an answer.
        length: the characters of a passage, about. per_passage: how many questions it gets at most.
        only: the names of the rules that are used, such as "said" or "scene"; all by default.
        seed: the same seed makes the same questions.
    """

    count: int = 5000
    valid_fraction: float = 0.2
    no_answer: float = 0.2
    length: int = 350
    per_passage: int = 4
    seed: int = 0
    only: tuple[str, ...] = ()

    def check(self) -> None:
        """Errors: DataError for values that make no sense."""
        for name, least in (("count", 2), ("length", 40), ("per_passage", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.valid_fraction < 1:
            raise DataError(f"valid_fraction must be between 0 and 1, not {self.valid_fraction}")
        if not 0 <= self.no_answer < 1:
            raise DataError(f"no_answer must be from 0 to below 1, not {self.no_answer}")
        for name in self.only:
            if name not in NAMES:
                raise DataError(f"there is no rule {name!r}; there are {', '.join(NAMES)}")


def make_questions(
    text: str, settings: Settings | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Questions on a text, to learn from and to test on, each as SQuAD 2's JSON.

    A context is a passage of the text, character for character. A question stands on a passage only if that holds at
    least two candidates for its answer, and no two answers by the rules; and at
    most half of the answers are the candidates nearest to the question's words. A question without an answer is another
    passage's of the same work; its `plausible_answers` is a candidate of the same kind. Rules take turns, so that
    frequent ones do not crowd out rare ones.

    progress: called with (passages read, passages) as it goes.

    Errors: DataError for settings that make no sense, or a text that gives no question for one of the parts.
    """
    settings = settings or Settings()
    settings.check()
    works, lexicon, draw = passages(text, settings.length), Lexicon(text), random.Random(settings.seed)
    total, done = sum(map(len, works)), 0
    asked: list[list[tuple[Passage, list[Asked]]]] = []
    for work in works:
        asked.append([])
        for passage in work:
            asked_here = questions_in(passage.text, lexicon)
            asked[-1].append((passage, [a for a in asked_here if not settings.only or a.rule in settings.only]))
            done += 1
            if progress is not None:
                progress(done, total)
    draw.shuffle(asked)
    train, valid = _parted(asked, settings.valid_fraction)
    count = round(settings.count * settings.valid_fraction)
    held_out = _drawn(valid, max(count, 1), settings, draw)
    texts = {passage.text for passage, _ in held_out}
    known = {question["question"] for _, questions in held_out for question in questions}
    train = [
        [(p, [a for a in found if a.question not in known]) for p, found in work if p.text not in texts]
        for work in train
    ]
    learnt = _drawn(train, settings.count - count, settings, draw)
    if not learnt or not held_out:
        raise DataError(
            f"of {total} passages in {len(works)} works the rules make questions on {len(learnt)} to learn from and "
            f"{len(held_out)} to test on; both parts need some (a longer text, or one with names, places and times)"
        )
    return _squad(learnt), _squad(held_out)


# --- passages -----------------------------------------------------------------------------------------------------


def passages(text: str, length: int) -> list[list[Passage]]:
    """A text in passages of about `length` characters (half to twice as many), a list for each work.

    A work begins with its title and "by AUTHOR" in lines of their own; a text without such lines is cut into stretches
    of `STRETCH` passages. Passages end where paragraphs do or, in long ones, sentences. Longer sentences are left out.
    """
    found = []
    for title, start, end in _works(text):
        work = [Passage(text[a:b], title, a) for a, b in _spans(text, start, end, length)]
        if title:
            found.append(work)
            continue
        for number, at in enumerate(range(0, len(work), STRETCH), 1):
            found.append([Passage(p.text, f"part {number}", p.start) for p in work[at : at + STRETCH]])
    return [work for work in found if work]


def _works(text: str) -> Iterator[tuple[str, int, int]]:
    """Title, beginning and end of each work; the title is "" where there is none."""
    authors = list(_AUTHOR.finditer(text))
    if not authors:
        yield "", 0, len(text)
        return
    begins, titles = [], []
    for match in authors:
        head = text[max(match.start() - 500, 0) : match.start()]  # no title is longer
        titles.append(re.sub(r".*[\]}.]|^THE END", "", head.rstrip().rsplit("\n", 1)[-1]).strip())
        begins.append(match.start() - len(head) + len(head.rstrip()) - len(titles[-1]))
    for number, (match, title, end) in enumerate(zip(authors, titles, [*begins[1:], len(text)]), 1):
        yield capwords(title) or f"work {number}", match.end(), max(end, match.end())


def _spans(text: str, start: int, end: int, length: int) -> Iterator[tuple[int, int]]:
    """Beginnings and ends of the passages between two places."""
    first, last = None, start
    for a, b in _pieces(text, start, end, length):
        if first is not None and b - first > 1.25 * length:
            if last - first >= length / 2:
                yield first, last
            first = None
        if b - a > 2 * length:
            continue
        first, last = (a if first is None else first), b
    if first is not None and last - first >= length / 2:
        yield first, last


def _pieces(text: str, start: int, end: int, length: int) -> Iterator[tuple[int, int]]:
    """Paragraphs, and the sentences of long ones, without blanks around them."""
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text[start:end]):
        a, b = start + paragraph.start(), start + paragraph.end()
        cuts = [a]
        if b - a > length:
            cuts += [a + match.end() for match in _SENTENCE.finditer(text[a:b])]
        for low, high in zip(cuts, [*cuts[1:], b]):
            stripped = text[low:high].rstrip()
            if stripped:
                yield low, low + len(stripped)


# --- which questions are taken --------------------------------------------------------------------------------------

_Work = list[tuple[Passage, list[Asked]]]
_Taken = list[tuple[Passage, list[dict[str, Any]]]]


def _parted(works: Sequence[_Work], fraction: float) -> tuple[list[_Work], list[_Work]]:
    """The works to learn from, and those of about `fraction` of all questions to test on, at least one."""
    total, valid, held = sum(len(found) for work in works for _, found in work), 0, 0
    while held < len(works) - 1 and (held == 0 or valid < fraction * total):
        valid += sum(len(found) for _, found in works[held])
        held += 1
    return list(works[held:]), list(works[:held])


def _drawn(works: Sequence[_Work], count: int, settings: Settings, draw: random.Random) -> _Taken:
    """Up to `count` questions of these works by their passages, some of them without an answer."""
    pools: dict[tuple[str, bool], list[tuple[int, int, Asked]]] = defaultdict(list)
    for w, work in enumerate(works):
        for p, (passage, found) in enumerate(work):
            for asked in found:
                pools[asked.rule, _easy(passage.text, asked)].append((w, p, asked))
    for pool in pools.values():
        draw.shuffle(pool)
    turns = {easy: deque(key for key in sorted(pools) if key[1] == easy) for easy in (True, False)}
    taken: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    wanted, number = round(count * (1 - settings.no_answer)), {True: 0, False: 0}
    while turns[False] and sum(number.values()) < wanted:
        easy = bool(turns[True]) and number[True] < number[False]
        key = turns[easy].popleft()
        w, p, asked = pools[key].pop()
        if len(taken[w, p]) < settings.per_passage:
            taken[w, p].append(_answered(works[w][p][0], asked))
            number[easy] += 1
        if pools[key]:
            turns[easy].append(key)
    places = [place for place, questions in taken.items() if questions]
    missing = round(sum(number.values()) * settings.no_answer / (1 - settings.no_answer))
    for _ in range(8 * missing):  # not each trial finds one
        if not missing:
            break
        w, p = draw.choice(places)
        if (question := _unanswered(works[w], p, taken[w, p], draw)) is not None:
            taken[w, p].append(question)
            missing -= 1
    for questions in taken.values():
        draw.shuffle(questions)
    return [(works[w][p][0], taken[w, p]) for w, p in sorted(places)]


def _answered(passage: Passage, asked: Asked) -> dict[str, Any]:
    answer = {"text": passage.text[asked.start : asked.end], "answer_start": asked.start}
    return {
        "id": _id(passage, asked.question),
        "question": asked.question,
        "answers": [answer],
        "is_impossible": False,
    }


def _unanswered(work: _Work, p: int, taken: list[dict[str, Any]], draw: random.Random) -> dict[str, Any] | None:
    """A question that another passage of the work answers, and this one does not though it has candidates."""
    passage, own = work[p]
    other, found = work[(p + draw.choice((-3, -2, -1, 1, 2, 3))) % len(work)]
    if not found or other is passage:
        return None
    asked = draw.choice(found)
    kinds = candidates(passage.text, asked.kind)
    here = _words(passage.text)
    quote = re.search(r'"([^"]*)"', asked.question)
    if quote is None:
        about = [word for word in re.findall(r"[A-Z][a-z]+", asked.question)[1:] if word in passage.text]
        answer = _words(other.text[asked.start : asked.end])
        known = answer in here or not about
    else:
        known = _words(quote[1]) in here
    there = {a.question for a in own} | {question["question"] for question in taken}
    if known or not kinds or asked.question in there:
        return None
    start, end = draw.choice(kinds)
    plausible = {"text": passage.text[start:end], "answer_start": start}
    return {
        "id": _id(passage, asked.question),
        "question": asked.question,
        "answers": [],
        "is_impossible": True,
        "plausible_answers": [plausible],
    }


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _id(passage: Passage, question: str) -> str:
    return hashlib.sha256(f"{passage.start}\n{question}".encode()).hexdigest()[:16]


def _squad(taken: _Taken) -> dict[str, Any]:
    """SQuAD 2's JSON, an article for each work."""
    articles: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for passage, questions in taken:
        articles[passage.title].append({"context": passage.text, "qas": questions})
    return {"version": "v2.0", "data": [{"title": t, "paragraphs": each} for t, each in articles.items()]}


# --- how far guessing goes ----------------------------------------------------------------------------------------


def guess_first(questions: Iterable[Question]) -> dict[str, str]:
    """For each question's id the first candidate in its context that the question does not name: a guess, unread."""
    return {q.id: next((q.context[a:b] for a, b in _open(q.context, q.question)), "") for q in questions}


def guess_nearest(questions: Iterable[Question]) -> dict[str, str]:
    """For each question's id the candidate nearest to the words that it shares with its context."""
    spans = {q.id: (q.context, *_nearest(q.context, q.question, _open(q.context, q.question))) for q in questions}
    return {key: context[start:end] for key, (context, start, end) in spans.items()}


def _easy(text: str, asked: Asked) -> bool:
    """Whether the nearest candidate is the answer, so that it is found by comparing words alone."""
    start, end = _nearest(text, asked.question, _open(text, asked.question))
    return _words(text[start:end]) == _words(text[asked.start : asked.end])


def _nearest(text: str, question: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The span nearest to where the text has most of the question's words together; (0, 0) of none."""
    wanted = set(_words(question).split())
    words = [(match[0].lower() in wanted, match.start()) for match in re.finditer(r"\w+", text)]
    if not words:
        return 0, 0
    size = min(max(len(wanted), 1), len(words))
    known = list(accumulate((found for found, _ in words), initial=0))  # of the question's words, before each word
    best = max(range(len(words) - size + 1), key=lambda at: known[at + size] - known[at])
    middle = words[min(best + size // 2, len(words) - 1)][1]
    return min(spans, key=lambda span: abs((span[0] + span[1]) / 2 - middle), default=(0, 0))


def _open(text: str, question: str) -> list[tuple[int, int]]:
    """The candidates for a question's answer that it does not name itself."""
    first, named = question.split(maxsplit=1)[0] if question.strip() else "", question.lower()
    kind = TIME if first == "When" else PLACE if first in ("Where", "From", "Of") else PERSON
    return [(a, b) for a, b in candidates(text, kind) if text[a:b].lower() not in named]
