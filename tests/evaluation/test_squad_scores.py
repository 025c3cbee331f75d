"""Exact match and F1 as SQuAD's official scripts define them."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.data import Answer
from minilm.data.squad import Question
from minilm.errors import DataError
from minilm.evaluation import normalize_answer, squad_measures, squad_scores
from minilm.evaluation.squad import exact_match, f1_score


def question(name: str, *answers: str) -> Question:
    return Question(name, "?", "context", tuple(Answer(text, 0) for text in answers), "", "dev.json", f"data[{name}]")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Normans!", "normans"),
        ("the end of THE theatre", "end of theatre"),  # words, not parts of words
        ("a-an the", "aan"),  # punctuation goes first, and joins; articles then
        ("U.S.A.", "usa"),
        ("A", ""),
        ("the a An", ""),
        ("the, a", ""),
        ("$5.4 billion", "54 billion"),
        ("“Norman”", "“norman”"),  # ASCII punctuation only
        ("a–b", "–b"),  # a dash is no letter, so here a stands alone
        ("ÉCOLE\u00a0a\tb\n", "école b"),
        ("naïve aé", "naïve aé"),
        ("the_end", "theend"),
        ("  ", ""),
    ],
)
def test_normalised(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("predicted", "answer", "exact", "f1", "f1_of_version_1"),
    [
        ("the Normans", "Normans.", 1, 1, 1),
        ("Norman kings", "Norman", 0, 2 / 3, 2 / 3),
        ("b b c", "b c c", 0, 2 / 3, 2 / 3),  # words count as often as they occur in both
        ("b b b b", "b", 0, 2 * 0.25 / 1.25, 0.4),
        ("x", "y", 0, 0, 0),
        ("", "", 1, 1, 0),
        ("the", "a", 1, 1, 0),  # both are empty when normalised
        ("", "the", 1, 1, 0),
        ("", "Norman", 0, 0, 0),
        ("Norman", "", 0, 0, 0),
        ("a", "Norman", 0, 0, 0),
        ("kings Norman", "Norman kings", 0, 1, 1),  # F1 knows no order
    ],
)
def test_pairs(predicted: str, answer: str, exact: float, f1: float, f1_of_version_1: float) -> None:
    assert exact_match(predicted, answer) == exact
    assert f1_score(predicted, answer) == pytest.approx(f1)
    assert f1_score(predicted, answer, version=1) == pytest.approx(f1_of_version_1)


def test_the_best_of_several_answers_for_each_measure() -> None:
    scores = squad_scores([question("0", "Norman kings", "Norman", "x y")], {"0": "Norman kings of x y"})
    assert scores.exact.tolist() == [0]
    assert scores.f1.tolist() == [pytest.approx(2 * 2 / 5 * 1 / (2 / 5 + 1))]


def test_no_answer_in_version_2() -> None:
    questions = [
        question("0"),
        question("1"),
        question("2", "Norman"),
        question("3", "the", "Norman"),
        question("4", "the"),
    ]
    predictions = {"0": "", "1": "Norman", "2": "", "3": "", "4": "", "more": "x"}
    scores = squad_scores(questions, predictions)
    # Answers without a word are not counted: question 3 wants "Norman" alone, question 4 wants "".
    assert scores.exact.tolist() == scores.f1.tolist() == [1, 0, 0, 0, 1]
    assert scores.answerable.tolist() == [False, False, True, True, True]
    assert squad_scores([question("0")], {"0": "the"}).exact.tolist() == [1]  # is "" when normalised


def test_version_1() -> None:
    scores = squad_scores([question("0", "the", "Norman")], {"0": "a"}, version=1)
    assert (scores.exact.tolist(), scores.f1.tolist()) == ([1], [0])


def test_measures_in_percent() -> None:
    questions = [question(str(i), *(["Norman kings"] if i < 6 else [])) for i in range(10)]
    predictions = {str(i): ["Norman kings", "Norman", ""][i % 3] for i in range(10)}
    measures = squad_measures(squad_scores(questions, predictions), resamples=200)
    names = ["exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1"]
    assert list(measures) == names
    # 0, 3 exact of six; 1, 4 have F1 2/3; of 6 to 9 only 8 says nothing
    expected = [30, 10 * (2 + 2 * 2 / 3 + 1), 100 / 3, 100 * (2 + 4 / 3) / 6, 25, 25]
    np.testing.assert_allclose([measures[name].value for name in names], expected)
    assert measures["exact"].low < 30 < measures["exact"].high <= 100
    assert "over questions" in measures["f1"].method
    assert list(squad_measures(squad_scores([question("0", "x")], {"0": "x"}), resamples=2)) == ["exact", "f1"]
    assert list(squad_measures(squad_scores([question("0")], {"0": "x"}), resamples=2)) == ["exact", "f1", *names[4:]]


def test_refused() -> None:
    for questions, predictions, version, why in [
        ([question("0", "x"), question("1", "x")], {"0": "x"}, 2, r"data\[1\].*no prediction \(1 of 2 lack"),
        ([question("0")], {"0": "x"}, 1, r"data\[0\].*has no answer"),
        ([], {}, 2, "there are no questions"),
        ([question("0")], {"0": ""}, 3, "versions 1 and 2, not 3"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=why):
            squad_scores(questions, predictions, version)
