"""Questions by rule: what each rule asks, that answers stand where they are said to, and that nothing leaks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import Question, corpora, read_squad
from minilm.data.question_rules import PERSON, PLACE, TIME, Lexicon, candidates, questions_in
from minilm.data.questions import Settings, guess_first, guess_nearest, make_questions, passages
from minilm.errors import DataError
from minilm.evaluation.squad import squad_scores

TEXT = corpora.shakespeare()[300_000:1_300_000]  # from within one play into another, and on
SMALL = Settings(count=600)


@pytest.fixture(scope="module")
def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    return make_questions(TEXT, SMALL)


def read(data: dict[str, Any], folder: Path) -> list[Question]:
    path = folder / "made.json"
    path.write_text(json.dumps(data), "utf-8")
    file = read_squad(path)
    assert file.repaired == 0
    return file.questions


def asked(text: str, more: str = "") -> set[tuple[str, str]]:
    """What the rules ask of a text, with the answers; `more` is what the lexicon is counted over besides."""
    return {(a.question, text[a.start : a.end]) for a in questions_in(text, Lexicon(text + more))}


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("And Moses said unto Aaron, Take a pot, and go.", 'Who says "Take a pot, and go"?', "Moses"),
        ("And Moses said unto Aaron, Take a pot.", 'To whom is it said "Take a pot"?', "Aaron"),
        ("And he said unto Naomi, Let me go now. Ruth wept.", 'To whom is it said "Let me go now"?', "Naomi"),
        ("And the LORD said unto Noah, Come thou into the ark.", 'Who says "Come thou into the ark"?', "the LORD"),
        ('"I have not seen him," said Emma. Harriet blushed.', 'Who says "I have not seen him"?', "Emma"),
        ("“We must go at once,” replied Mr. Elton to Emma.", None, ""),
        ("So Jacob went out to Haran. Esau dwelt in Seir.", "Where did Jacob go?", "Haran"),
        ("And Jonah fled from Nineveh. Amos dwelt in Bethel.", "From where did Jonah flee?", "Nineveh"),
        ("Caleb the son of Jephunneh, and Joshua the son of Nun.", "Whose son was Caleb?", "Jephunneh"),
        ("Caleb the son of Jephunneh, and Joshua the son of Nun.", "Who was the son of Nun?", "Joshua"),
        ("And Irad begat Mehujael: and Mehujael begat Methusael.", "Who begat Methusael?", "Mehujael"),
        ("And Irad begat Mehujael: and Mehujael begat Methusael.", "Whom did Irad beget?", "Mehujael"),
        ("Ahab king of Israel met Asa king of Judah.", "Of which place was Asa king?", "Judah"),
        ("Ahab king of Israel met Asa king of Judah.", "Who was king of Israel?", "Ahab"),
        ("On the seventh day the waters came upon the earth. They rested in the tenth month.",
         'When was it: "the waters came upon the earth"?', "On the seventh day"),
        ("I shall see thee here on Wednesday next. Stay till supper.",
         'When was it: "I shall see thee here"?', "on Wednesday next"),
        ("We walked by the river in the garden. She waited at the gate.",
         'Where was it: "We walked by the river"?', "the garden"),
        ("HAL.\nMy purse is gone tonight.\n\nPOINS.\nThou liest.", 'Who says "My purse is gone tonight"?', "HAL"),
        ("HAL.\nMy purse is gone tonight.\n\nPOINS.\nThou liest.",
         'Who answers when HAL says "My purse is gone tonight"?', "POINS"),
        ("HAL.\nWho comes there?\n\n[Enter Poins.]", 'Who enters after "Who comes there"?', "Poins"),
        ("HAL.\nI must be gone.\n\n[Exit.]\n\nPOINS.\nStay.", 'Who leaves after "I must be gone"?', "HAL"),
        ("HAL.\nFare you well.\n\n[Exit Poins.]", 'Who leaves after "Fare you well"?', "Poins"),
        ("SCENE II. London. A street.\n\nHAL.\nIs he gone to York?", "Where is scene II?", "London. A street"),
        ("LAFEU, an old Lord.\nPAROLLES, a follower of Bertram.", "Which person is an old Lord?", "LAFEU"),
    ],
)  # fmt: skip
def test_rules(text: str, question: str | None, answer: str) -> None:
    more = " in Haran in Haran in Seir in Nineveh in Bethel at York"
    found = asked(text, more)
    assert (question, answer) in found or (question is None and not found)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Moses said unto Aaron, Take a pot. Joshua said unto Aaron, Take a pot.", 'Who says "Take a pot"?'),  # two
        ("And Ahaz the son of Jotham and Ahaz the son of Micah.", "Whose son was Ahaz?"),
        ("And he said unto them, Take a pot. Aaron heard Moses.", 'Who says "Take a pot"?'),  # a pronoun
        ("And Moses said unto them, Take a pot.", 'Who says "Take a pot"?'),  # no other candidate
        ("Jacob went out to Laban. Esau dwelt in Seir.", "Where did Jacob go?"),  # no place
        ("Jacob went to Haran. Then Jacob went to Bethel. Seir.", "Where did Jacob go?"),  # twice
        ("SCENE II. The same.\n\nHAL.\nIs he gone to York?", "Where is scene II?"),
        ("HAL.\nWell.\n\nSCENE II. York.\n\n[Enter Poins.]", 'Who enters after "Well"?'),
    ],
)
def test_what_is_not_asked(text: str, question: str) -> None:
    assert question not in {q for q, _ in asked(text, " in Haran in Haran in Seir in Bethel at York said Laban")}


def test_candidates_of_each_kind() -> None:
    text = "HAL.\nIn London, on Monday, Poins met the king at Eastcheap at supper."
    found = {kind: [text[a:b] for a, b in candidates(text, kind)] for kind in (PERSON, PLACE, TIME)}
    assert found[PERSON] == ["HAL", "London", "Monday", "Poins", "the king", "Eastcheap"]
    assert found[PLACE] == ["Eastcheap"]
    assert found[TIME] == ["on Monday", "at supper"]


def test_answers_stand_where_they_are_said_to(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    for part in parts:
        for question in read(part, tmp_path):  # the reader refuses an answer that is elsewhere
            assert question.context in TEXT
            assert len(question.answers) <= 1
            for answer in question.answers:
                assert question.context[answer.start : answer.start + len(answer.text)] == answer.text


def test_counts_and_shares(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    for part, count in zip(parts, (480, 120)):
        questions = read(part, tmp_path)
        assert len(questions) == count
        without = sum(not question.answers for question in questions)
        assert without == count // 5
        per_passage = [len(p["qas"]) for article in part["data"] for p in article["paragraphs"]]
        assert sum(per_passage) == count
        assert {q.question.split()[0] for q in questions} >= {"Who", "Where", "When"}


def test_nothing_stands_in_both_parts(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    train, valid = (read(part, tmp_path) for part in parts)
    for key in ("context", "question", "title", "id"):
        assert not {getattr(q, key) for q in train} & {getattr(q, key) for q in valid}, key


def test_nothing_leaks_where_the_text_repeats_itself(tmp_path: Path) -> None:
    """The same scene in two works: neither its passages nor its questions may be in both parts."""
    scene = corpora.shakespeare()[5_000:30_000]
    other = corpora.shakespeare()[200_000:260_000]
    text = "".join(
        f"{t}\n\nby A. Writer\n\n{body}\n\n" for t, body in (("ONE", scene), ("TWO", scene), ("THREE", other))
    )
    train, valid = (read(part, tmp_path) for part in make_questions(text, Settings(count=400, valid_fraction=0.3)))
    assert {q.title for q in train} | {q.title for q in valid} == {"One", "Two", "Three"}
    assert not {q.context for q in train} & {q.context for q in valid}
    assert not {q.question for q in train} & {q.question for q in valid}


def test_a_question_without_an_answer_looks_like_one_with(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    for part in parts:
        for article in part["data"]:
            for paragraph in article["paragraphs"]:
                assert len({qa["question"] for qa in paragraph["qas"]}) == len(paragraph["qas"])
                for qa in paragraph["qas"]:
                    if not qa["is_impossible"]:
                        assert "plausible_answers" not in qa
                        continue
                    (plausible,) = qa["plausible_answers"]
                    start, text = plausible["answer_start"], plausible["text"]
                    assert paragraph["context"][start : start + len(text)] == text != ""
                    quote = qa["question"].partition('"')[2].rpartition('"')[0]
                    assert not quote or " ".join(quote.split()) not in " ".join(paragraph["context"].split())


def test_guessing_does_not_go_far(parts: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path) -> None:
    """At most half of the answers are the nearest candidate; and the guesses find some, so they are none of straw."""
    for part in parts:
        questions = [question for question in read(part, tmp_path) if question.answers]
        nearest = squad_scores(questions, guess_nearest(questions)).exact.mean()
        first = squad_scores(questions, guess_first(questions)).exact.mean()
        assert 0.25 < nearest < 0.6
        assert 0.1 < first < 0.5


def test_the_seed_decides_all(parts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    random.seed(5)  # the module's own state must not matter
    assert make_questions(TEXT, SMALL) == parts
    assert make_questions(TEXT, Settings(count=600, seed=1)) != parts


def test_only_some_rules() -> None:
    part, _ = make_questions(TEXT, Settings(count=100, only=("enters", "scene"), no_answer=0.0))
    starts = {qa["question"].split()[1] for a in part["data"] for p in a["paragraphs"] for qa in p["qas"]}
    assert starts == {"enters", "is"}


def test_works_are_found() -> None:
    one, two = "Anna met Otto in Rome. " * 9, "Ida met Max. " * 30
    works = passages(f"\n\nA TALE\n\nby Jane Doe\n\n{one}\n[Exit.]OTTO\n\nby Bo Li\n\n{two}", 60)
    assert [{p.title for p in work} for work in works] == [{"A Tale"}, {"Otto"}]
    assert "OTTO" not in works[0][-1].text
    plain = passages("Anna met Otto in Rome today.\n" * 400, 60)
    assert [work[0].title for work in plain][:2] == ["part 1", "part 2"]
    assert len(plain[0]) == 20


def test_progress_reaches_the_end() -> None:
    seen: list[tuple[int, int]] = []
    make_questions(TEXT[:200_000], Settings(count=50), lambda done, total: seen.append((done, total)))
    total = seen[0][1]
    assert seen == [(i, total) for i in range(1, total + 1)]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"count": 1}, "count must be at least 2, not 1"),
        ({"length": 3}, "length must be at least 40, not 3"),
        ({"per_passage": 0}, "per_passage must be at least 1"),
        ({"valid_fraction": 1.0}, "valid_fraction must be between 0 and 1, not 1.0"),
        ({"no_answer": -0.1}, "no_answer must be from 0 to below 1, not -0.1"),
        ({"only": ("speeches",)}, "there is no rule 'speeches'; there are answer, begat"),
    ],
)
def test_settings_that_make_no_sense(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        make_questions(TEXT, Settings(**changed))


@pytest.mark.parametrize("text", ["", "hello", "no names here. " * 500, "Anna the son of Otto, Ida the son of Max."])
def test_a_text_that_gives_nothing(text: str) -> None:
    with pytest.raises(DataError, match=r"of \d+ passages in \d+ works .* both parts need some"):
        make_questions(text)


PIECES = [
    *("Anna", "Otto", "the LORD", "said unto", "said", "went to", "Rome", "in", "the seventh day", "begat", "ANNA.\n"),
    *("[Enter", "[Exit.]", "Otto.]", "SCENE II. ", "\n\n", "\n", ". ", ", ", '"', "“", "”", "ß", "İ", "\u2028"),
    *("\u00a0", "by Jane Doe", "the son of", "king of", "\U0001f600", "e\u0301"),
]


@settings(deadline=None)
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=60).map(" ".join) | st.text())
def test_any_text_gives_sound_questions_or_none(text: str) -> None:
    for work in passages(text, 40):
        for passage in work:
            assert text[passage.start :].startswith(passage.text)
            assert passage.text == passage.text.strip() != ""
    for found in questions_in(text, Lexicon(text)):
        assert 0 <= found.start < found.end <= len(text)
        assert text[found.start : found.end].strip() == text[found.start : found.end]
        assert found.question.endswith("?")
    try:
        parts = make_questions(text * 30, Settings(count=20, length=40))
    except DataError:
        return
    for part in parts:
        assert all(p["qas"] for article in part["data"] for p in article["paragraphs"])
