"""From questions on a text to a model's inputs, and from its logits back to answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.squad import Answer, Question
from minilm.data.text_inputs import PART
from minilm.errors import DataError
from minilm.text.wordpiece import BertTokenizer


@dataclass(frozen=True)
class AnswerWindows:
    """N windows [CLS] question [SEP] part of the context [SEP].

    rows: `input_ids`, `token_type_ids`, `attention_mask`, int64 of shape (T,) each, T differing; and, with labels, the
        numbers `start_positions` and `end_positions` of the answer's first and last token, both 0 ([CLS]) where the
        answer is not in the window, or there is none.
    question: (N,), the number of each window's question.
    offsets: for each window (T, 2), each token's characters (start, end) in the context; -1 where it is not of it.
    unreachable: how many questions have an answer that is in none of their windows as a whole.
    """

    rows: list[dict[str, Any]]
    question: NDArray[np.int64]
    offsets: list[NDArray[np.int64]]
    unreachable: int


@dataclass(frozen=True)
class Candidate:
    """A part of the context, its score (start logit + end logit) and its probability among the candidates."""

    text: str
    start: int
    score: float
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer to a question ("" for none), the best candidates, best first, and score(none) - score(best)."""

    id: str
    text: str
    candidates: tuple[Candidate, ...]
    null_difference: float


def answer_windows(
    tokenizer: BertTokenizer,
    questions: Sequence[Question],
    max_length: int = 384,
    doc_stride: int = 128,
    max_question_length: int = 64,
    labelled: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> AnswerWindows:
    """Tokenise questions with their contexts, in overlapping windows where these are long.

    max_length: tokens of a window, special ones counted.
    doc_stride: how many tokens of the context a window repeats of the one before (transformers' meaning; the original
        run_squad.py's is the step, max_length less question less this).
    max_question_length: tokens after which a question is cut off.
    labelled: set the positions of each question's first answer.
    progress: called with (questions done, questions) as it goes.

    Errors: DataError for lengths that leave no room for the context.
    """
    room = max_length - max_question_length - tokenizer.num_special_tokens_to_add(pair=True)
    if not 0 <= doc_stride < room or max_question_length < 1:
        raise DataError(
            f"answer_windows: of {max_length} tokens a question of {max_question_length} leaves {max(room, 0)} for the "
            f"context; windows that repeat {doc_stride} would not go on"
        )
    rows, offsets, numbers, found = [], [], [], np.zeros(len(questions), dtype=bool)
    for first in range(0, len(questions), PART):
        part = questions[first : first + PART]
        encoded = tokenizer(
            _cut(tokenizer, [question.question for question in part], max_question_length),
            [question.context for question in part],
            truncation="only_second",
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for i, n in enumerate(encoded.overflow_to_sample_mapping):
            keys = ("input_ids", "token_type_ids", "attention_mask")
            row: dict[str, Any] = {key: np.array(encoded[key][i], dtype=np.int64) for key in keys}
            of_context = np.array([s == 1 for s in encoded.sequence_ids(i)])
            place = np.where(of_context[:, None], np.array(encoded.offset_mapping[i], dtype=np.int64), -1)
            if labelled:
                answers = part[n].answers
                start, end = answer_positions(place, answers[0]) if answers else (0, 0)
                row |= {"start_positions": start, "end_positions": end}
                found[first + n] |= start > 0 or not answers
            rows.append(row)
            offsets.append(place)
            numbers.append(first + n)
        if progress is not None:
            progress(first + len(part), len(questions))
    return AnswerWindows(rows, np.array(numbers, np.int64), offsets, int((~found).sum()) if labelled else 0)


def answer_positions(offsets: NDArray[np.int64], answer: Answer) -> tuple[int, int]:
    """The first and the last token of an answer in a window; (0, 0) unless the window holds all of it.

    offsets: (T, 2), each token's characters in the context; -1 where it is not of it.

    Source: Devlin et al. 2019, section 4.2: where there is no answer, both are at [CLS].
    """
    end = answer.start + len(answer.text)
    context = np.flatnonzero(offsets[:, 0] >= 0)
    if not len(context) or offsets[context[0], 0] > answer.start or offsets[context[-1], 1] < end:
        return 0, 0
    touched = context[(offsets[context, 0] < end) & (offsets[context, 1] > answer.start)]
    return (int(touched[0]), int(touched[-1])) if len(touched) else (0, 0)


def best_answers(
    start_logits: Sequence[Any] | NDArray[Any],
    end_logits: Sequence[Any] | NDArray[Any],
    windows: AnswerWindows,
    questions: Sequence[Question],
    n_best: int = 20,
    max_answer_length: int = 30,
    no_answer: bool = False,
    null_threshold: float = 0.0,
) -> list[Prediction]:
    """The answer to each question from the logits of all its windows.

    start_logits, end_logits: for each window (T or more,), what is beyond T (padding) is not read.
    n_best: how many candidates are kept, and how many starts and ends of a window are tried.
    max_answer_length: the tokens of an answer at most.
    no_answer: whether there may be none (SQuAD 2). The score of none is start + end at [CLS], the least of all windows;
        it wins if it is more than `null_threshold` above the best candidate's.

    Errors: DataError unless there are logits for each window.

    Source: Devlin et al. 2019, sections 4.2 and 4.3; Rajpurkar et al. 2018.
    """
    for logits in (start_logits, end_logits):
        if len(logits) != len(windows.rows):
            raise DataError(f"best_answers: logits of {len(logits)} windows for {len(windows.rows)}")
    spans: list[dict[tuple[int, int], float]] = [{} for _ in questions]
    null = np.full(len(questions), np.inf)
    for i, n in enumerate(windows.question):
        start = np.asarray(start_logits[i], dtype=np.float64)
        end = np.asarray(end_logits[i], dtype=np.float64)
        null[n] = min(null[n], start[0] + end[0])
        for span, score in window_spans_of(start, end, windows.offsets[i], n_best, max_answer_length):
            spans[n][span] = max(score, spans[n].get(span, -np.inf))  # windows overlap
    return [
        _prediction(question, spans[n], null[n], n_best, no_answer, null_threshold)
        for n, question in enumerate(questions)
    ]


def window_spans_of(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    offsets: NDArray[np.int64],
    n_best: int,
    max_answer_length: int,
) -> list[tuple[tuple[int, int], float]]:
    """Up to n_best spans of one window, best first: their characters (start, end) in the context, and start + end."""
    context = np.flatnonzero(offsets[:, 0] >= 0)
    starts = context[np.argsort(-start[context], kind="stable")[:n_best]]
    ends = context[np.argsort(-end[context], kind="stable")[:n_best]]
    length = ends[None, :] - starts[:, None] + 1
    scores = np.where((length >= 1) & (length <= max_answer_length), start[starts][:, None] + end[ends], -np.inf)
    best = np.argsort(-scores, axis=None, kind="stable")[:n_best]
    found = []
    for i, j in zip(*np.unravel_index(best, scores.shape)):
        if scores[i, j] > -np.inf:
            found.append(((int(offsets[starts[i], 0]), int(offsets[ends[j], 1])), float(scores[i, j])))
    return found


def _prediction(
    question: Question,
    spans: dict[tuple[int, int], float],
    null: float,
    n_best: int,
    no_answer: bool,
    threshold: float,
) -> Prediction:
    ranked = sorted(spans.items(), key=lambda item: -item[1])[:n_best]
    scores = np.array([score for _, score in ranked] + ([null] if no_answer else []))
    shares = np.exp(scores - scores.max()) if len(scores) else scores
    shares = shares / shares.sum()
    candidates = tuple(
        Candidate(question.context[start:end], start, score, float(share))
        for ((start, end), score), share in zip(ranked, shares)
    )
    difference = null - candidates[0].score if candidates else np.inf
    none = not candidates or (no_answer and difference > threshold)
    return Prediction(question.id, "" if none else candidates[0].text, candidates, float(difference))


def _cut(tokenizer: BertTokenizer, texts: Sequence[str], longest: int) -> list[str]:
    """Texts, those of more than `longest` tokens cut behind that one; the tokens before stay the same."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    return [
        text[: offsets[longest - 1][1]] if len(offsets) > longest else text
        for text, offsets in zip(texts, encoded.offset_mapping)
    ]
