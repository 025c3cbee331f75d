"""Answers in windows of their contexts, and from logits back to text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import Answer, AnswerWindows, answer_windows, best_answers
from minilm.data.answer_inputs import Candidate, answer_positions
from minilm.data.squad import Question
from minilm.errors import DataError
from minilm.text import BertTokenizer

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "who",
    "what",
    "a",
    "b",
    "c",
    "d",
    "e",
    "em",
    "##bed",
    "##s",
    "?",
]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer({token: i for i, token in enumerate(WORDS)}, source="test")


def asked(context: str, answer: str | None, question: str = "who?", name: str = "q") -> Question:
    answers = () if answer is None else (Answer(answer, context.index(answer)),)
    return Question(name, question, context, answers, "", "dev.json", "data[0]")


def test_positions_in_each_window(tokenizer: BertTokenizer) -> None:
    questions = [asked("a b c embeds d e", "Embeds d".lower()), asked("a b", None)]
    windows = answer_windows(tokenizer, questions, max_length=10, doc_stride=2, max_question_length=3)
    assert [tokenizer.convert_ids_to_tokens(row["input_ids"]) for row in windows.rows] == [
        ["[CLS]", "who", "?", "[SEP]", "a", "b", "c", "em", "##bed", "[SEP]"],
        ["[CLS]", "who", "?", "[SEP]", "em", "##bed", "##s", "d", "e", "[SEP]"],
        ["[CLS]", "who", "?", "[SEP]", "a", "b", "[SEP]"],
    ]
    assert [(row["start_positions"], row["end_positions"]) for row in windows.rows] == [(0, 0), (4, 7), (0, 0)]
    assert windows.question.tolist() == [0, 0, 1]
    assert windows.rows[1]["token_type_ids"].tolist() == [0] * 4 + [1] * 6
    assert windows.offsets[1].tolist() == [[-1, -1]] * 4 + [[6, 8], [8, 11], [11, 12], [13, 14], [15, 16], [-1, -1]]
    assert windows.unreachable == 0
    unlabelled = answer_windows(tokenizer, questions, 10, 2, 3, labelled=False)
    assert set(unlabelled.rows[0]) == {"input_ids", "token_type_ids", "attention_mask"}


def test_parts_of_many_questions_are_as_the_whole(tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [asked("a b c embeds d e", "d"), asked("a b", None), asked("a b c d e a b c", "e"), asked("c", "c")]
    whole = answer_windows(tokenizer, questions, 10, 2, 3)
    monkeypatch.setattr("minilm.data.answer_inputs.PART", 3)
    seen: list[tuple[int, int]] = []
    parts = answer_windows(tokenizer, questions, 10, 2, 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 4), (4, 4)]
    assert parts.question.tolist() == whole.question.tolist() == [0, 0, 1, 2, 2, 3]
    assert [o.tolist() for o in parts.offsets] == [o.tolist() for o in whole.offsets]
    assert [{k: np.asarray(v).tolist() for k, v in row.items()} for row in parts.rows] == [
        {k: np.asarray(v).tolist() for k, v in row.items()} for row in whole.rows
    ]
    assert parts.unreachable == whole.unreachable == 0


def test_an_answer_longer_than_a_window_is_counted(tokenizer: BertTokenizer) -> None:
    for max_length, starts in ((10, [4]), (9, [4, 0])):
        windows = answer_windows(tokenizer, [asked("a b c d e", "a b c d")], max_length, 1, 3)
        assert [row["start_positions"] for row in windows.rows] == starts
        assert windows.unreachable == 0
    windows = answer_windows(tokenizer, [asked("a b c d e", "a b c d e"), asked("a", None)], 9, 1, 3)
    assert [row["start_positions"] for row in windows.rows] == [0, 0, 0]
    assert windows.unreachable == 1


def test_positions_of_parts_of_words_and_blanks() -> None:
    offsets = np.array([[-1, -1], [-1, -1], [2, 4], [4, 7], [9, 12], [-1, -1]])
    for text, start, expected in [
        ("ab", 2, (2, 2)),
        ("b", 3, (2, 2)),
        ("bcd", 3, (2, 3)),
        ("abcde fgh", 3, (2, 4)),
        ("  ", 7, (0, 0)),  # between two tokens
        ("x", 1, (0, 0)),  # before the window
        ("xxx", 10, (0, 0)),  # goes on behind it
    ]:
        assert answer_positions(offsets, Answer(text, start)) == expected
    assert answer_positions(np.full((3, 2), -1), Answer("a", 0)) == (0, 0)


def test_long_questions_are_cut(tokenizer: BertTokenizer) -> None:
    long = asked("a b c", "b", question="who embeds " * 40)
    windows = answer_windows(tokenizer, [long], max_length=12, doc_stride=1, max_question_length=6)
    tokens = tokenizer.convert_ids_to_tokens(windows.rows[0]["input_ids"])
    assert tokens == ["[CLS]", "who", "em", "##bed", "##s", "who", "em", "[SEP]", "a", "b", "c", "[SEP]"]
    assert windows.rows[0]["start_positions"] == 9


def test_no_room_is_refused(tokenizer: BertTokenizer) -> None:
    for options in ({"max_length": 12, "doc_stride": 6, "max_question_length": 3}, {"max_question_length": 0},
                    {"max_length": 12, "doc_stride": -1, "max_question_length": 3}):  # fmt: skip
        with pytest.raises(DataError, match="would not go on"):
            answer_windows(tokenizer, [asked("a", "a")], **options)


# --- from logits to answers ------------------------------------------------------------------------------


@pytest.fixture
def two(tokenizer: BertTokenizer) -> tuple[list[Question], AnswerWindows]:
    """Windows (a b c em ##bed), (em ##bed ##s d e) of one question and (a b) of another."""
    questions = [asked("a b c embeds d e", "embeds d"), asked("a b", None, name="r")]
    return questions, answer_windows(tokenizer, questions, max_length=10, doc_stride=2, max_question_length=3)


def logits(windows: AnswerWindows, **peaks: list[tuple[int, int, float]]) -> list[list[np.ndarray]]:
    arrays = [[np.zeros(10) for _ in windows.rows] for _ in range(2)]
    for array, name in zip(arrays, ("start", "end")):
        for window, place, value in peaks.get(name, []):
            array[window][place] = value
    return arrays


def test_the_best_span_of_all_windows(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    start, end = logits(windows, start=[(0, 5, 3.0), (1, 4, 4.0), (2, 4, 1.0)], end=[(0, 6, 2.0), (1, 7, 4.0)])
    first, second = best_answers(start, end, windows, questions)
    assert (first.id, first.text, first.null_difference) == ("q", "embeds d", -8.0)
    assert second.text == "a"
    assert (second.candidates[0].start, second.candidates[0].score) == (0, 1.0)
    texts = [candidate.text for candidate in first.candidates]
    assert texts[0] == "embeds d"
    assert texts.index("b c") > 0
    assert [c.score for c in first.candidates] == sorted((c.score for c in first.candidates), reverse=True)
    assert sum(c.probability for c in first.candidates) == pytest.approx(1)
    assert len({(c.start, c.text) for c in first.candidates}) == len(first.candidates) == 20
    assert len(best_answers(start, end, windows, questions, n_best=3)[0].candidates) == 3


def test_neither_questions_nor_padding_nor_ends_before_starts(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    everywhere = [(0, i, 9.0) for i in (0, 1, 2, 3, 9)] + [(2, i, 9.0) for i in (0, 1, 2, 3, 6, 7, 8, 9)]
    start, end = logits(windows, start=[*everywhere, (0, 8, 5.0), (2, 5, 5.0)], end=[*everywhere, (0, 4, 5.0)])
    first, second = best_answers(start, end, windows, questions)
    assert first.candidates[0].score == 5.0
    assert first.text in ("bed", "a")  # window 0: the start at "bed" or the end at "a"
    assert second.text == "b"


def test_a_span_in_two_windows_has_the_better_score(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    for better, worse in ((0, 1), (1, 0)):
        place = {0: 7, 1: 4}  # "em" in each
        start, end = logits(windows, start=[(better, place[better], 5.0), (worse, place[worse], 2.0)])
        (found, _) = best_answers(start, end, windows, questions)
        assert [c.score for c in found.candidates if c.text == "em"] == [5.0]


def test_long_answers_are_left_out(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    start, end = logits(windows, start=[(1, 4, 4.0)], end=[(1, 7, 4.0)])
    assert best_answers(start, end, windows, questions, max_answer_length=4)[0].text == "embeds d"
    assert best_answers(start, end, windows, questions, max_answer_length=3)[0].text != "embeds d"


def test_no_answer_is_measured_by_its_least_window(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    start, end = logits(windows, start=[(0, 0, 9.0), (1, 0, 3.0), (1, 4, 2.0)], end=[(0, 0, 9.0), (1, 0, 2.0)])
    first, second = best_answers(start, end, windows, questions, no_answer=True)
    assert (first.text, first.null_difference) == ("", 3.0)  # 3 + 2 in window 1, less 2 + 0
    assert second.text == "a"  # a tie is no more than the threshold
    assert best_answers(start, end, windows, questions, no_answer=True, null_threshold=3.0)[0].text == "em"
    assert best_answers(start, end, windows, questions)[0].text == "em"
    share = sum(candidate.probability for candidate in first.candidates)
    scores = np.array([candidate.score for candidate in first.candidates])
    assert share == pytest.approx(np.exp(scores).sum() / (np.exp(scores).sum() + np.exp(5.0)))


def test_a_context_without_tokens(tokenizer: BertTokenizer) -> None:
    question = asked("\u200b", None)
    windows = answer_windows(tokenizer, [question], 20, 2, 5)
    (found,) = best_answers(np.zeros((1, 20)), np.zeros((1, 20)), windows, [question])
    assert (found.text, found.candidates, found.null_difference) == ("", (), np.inf)


def test_logits_of_all_windows_are_needed(two: tuple[list[Question], AnswerWindows]) -> None:
    questions, windows = two
    with pytest.raises(DataError, match="logits of 2 windows for 3"):
        best_answers(np.zeros((3, 10)), np.zeros((2, 10)), windows, questions)


@given(data=st.data())
def test_sure_logits_give_the_answer_back(tokenizer: BertTokenizer, data: st.DataObject) -> None:
    words = data.draw(st.lists(st.sampled_from(["a", "b", "embeds", "x", "d,"]), min_size=1, max_size=30))
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(first + 2, len(words) - 1)))
    context = " ".join(words)
    text = " ".join(words[first : last + 1])
    at = len(" ".join(words[:first])) + (first > 0)
    question = Question("q", "what?", context, (Answer(text, at),), "", "f", "p")
    windows = answer_windows(tokenizer, [question], max_length=20, doc_stride=9, max_question_length=5)
    assert windows.unreachable == 0
    start, end = np.zeros((len(windows.rows), 25)), np.zeros((len(windows.rows), 25))
    for i, row in enumerate(windows.rows):
        start[i, row["start_positions"]] = end[i, row["end_positions"]] = 10
    (found,) = best_answers(start, end, windows, [question], max_answer_length=9)
    assert isinstance(found.candidates[0], Candidate)
    assert (found.text, found.candidates[0].start) == (text, at)
