"""SQuAD's two measures, exact match and F1, by their official definition."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minilm.data.squad import Question
from minilm.errors import DataError
from minilm.evaluation.intervals import Measure, bootstrap_mean

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class SquadScores:
    """For each question (N,): exact match (0 or 1), F1 (0 to 1), and whether it has an answer."""

    exact: NDArray[np.float64]
    f1: NDArray[np.float64]
    answerable: NDArray[np.bool_]


def normalize_answer(text: str) -> str:
    """Lower case, without ASCII punctuation, then without a, an and the, words apart by one blank."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, answer: str) -> float:
    """1 if the two are the same when normalised, else 0."""
    return float(normalize_answer(predicted) == normalize_answer(answer))


def f1_score(predicted: str, answer: str, version: int = 2) -> float:
    """The harmonic mean of the words' precision and recall, words counted as often as they occur in both.

    Where either has no word when normalised, F1 is 1 if neither has and else 0; in version 1 it is 0 in both cases.
    """
    found, wanted = normalize_answer(predicted).split(), normalize_answer(answer).split()
    if not found or not wanted:
        return float(version == 2 and found == wanted)
    common = sum((Counter(found) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def squad_scores(questions: Sequence[Question], predictions: Mapping[str, str], version: int = 2) -> SquadScores:
    """The scores of predicted answers by their questions' ids, each the best over the question's answers.

    version: 2 for evaluate-v2.0.py, in which an answer without words when normalised is not counted, and a question
        without answers wants ""; 1 for evaluate-v1.1.py.

    Errors: DataError for a question without a prediction, or (version 1) without answers.

    Source: evaluate-v1.1.py and evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer/ (Rajpurkar et al.
    2016 and 2018).
    """
    if version not in (1, 2):
        raise DataError(f"SQuAD has the versions 1 and 2, not {version}")
    if not questions:
        raise DataError("there are no questions, so there is nothing to measure")
    exact, f1 = np.zeros(len(questions)), np.zeros(len(questions))
    for i, question in enumerate(questions):
        if question.id not in predictions:
            missing = sum(q.id not in predictions for q in questions)
            raise DataError(f"{question.where}: there is no prediction ({missing} of {len(questions)} lack one)")
        answers = [answer.text for answer in question.answers]
        if version == 2:
            answers = [text for text in answers if normalize_answer(text)] or [""]
        elif not answers:
            raise DataError(f"{question.where}: has no answer, which SQuAD 1 does not know")
        predicted = predictions[question.id]
        exact[i] = max(exact_match(predicted, answer) for answer in answers)
        f1[i] = max(f1_score(predicted, answer, version) for answer in answers)
    return SquadScores(exact, f1, np.array([bool(question.answers) for question in questions]))


def squad_measures(
    scores: SquadScores, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Measure]:
    """exact and f1 in percent; where some questions have no answer, also of those that have one and of the others.

    The names of these are evaluate-v2.0.py's: HasAns_exact, NoAns_f1 and so on. Intervals are bootstrapped over
    questions.
    """
    groups = {"": np.ones_like(scores.answerable)}
    if not scores.answerable.all():
        groups |= {"HasAns_": scores.answerable, "NoAns_": ~scores.answerable}
    options = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return {
        f"{group}{name}": bootstrap_mean(100 * values[chosen], "questions", **options)
        for group, chosen in groups.items()
        if chosen.any()
        for name, values in (("exact", scores.exact), ("f1", scores.f1))
    }
