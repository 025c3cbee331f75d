"""Measures of tagging: tokens that are right, and named entities by seqeval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.evaluation.extras import needed
from minilm.evaluation.intervals import Measure, bootstrap_interval

Tags = Sequence[Sequence[str]]


def is_bio(tags: Iterable[str]) -> bool:
    """Whether tags mark spans: O, and B-, I-, E- or S- before a span's type, with at least one of these."""
    found = set(tags) - {"O"}
    return bool(found) and all(re.match("[BIES]-.", tag) for tag in found)


def tagging_measures(
    true: Tags, predicted: Tags, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Measure]:
    """token_accuracy and, where the tags mark spans (`is_bio`), the spans' precision, recall and f1.

    true, predicted: the tags of each sentence's words. A span counts as right if its type and both its ends are.
    Intervals are bootstrapped over sentences: words of one sentence are not independent.

    Errors: MissingExtraError without seqeval; DataError for sentences that do not belong together, or none.

    Source: seqeval's f1_score (micro-averaged, its default mode), which follows conlleval (Tjong Kim Sang & Buchholz
    2000).
    """
    counts = _token_counts(true, predicted)
    options: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed, "of": "sentences"}
    measures = {"token_accuracy": _share(counts[:, 0], counts[:, 1], **options)}
    if is_bio(tag for sentence in true for tag in sentence):
        right, found, wanted = _span_counts(true, predicted).T
        measures["precision"] = _share(right, found, **options)
        measures["recall"] = _share(right, wanted, **options)
        measures["f1"] = _share(2 * right, found + wanted, **options)
    return measures


def _token_counts(true: Tags, predicted: Tags) -> NDArray[np.int64]:
    """For each sentence: the words that are right, and all of them (S, 2)."""
    if len(true) != len(predicted) or not len(true):
        raise DataError(f"tags of {len(true)} sentences and predictions of {len(predicted)} cannot be compared")
    rows = []
    for i, (one, other) in enumerate(zip(true, predicted)):
        if len(one) != len(other):
            raise DataError(f"sentence {i}: {len(one)} tags and {len(other)} predictions")
        rows.append((sum(a == b for a, b in zip(one, other)), len(one)))
    return np.array(rows, dtype=np.int64)


def _span_counts(true: Tags, predicted: Tags) -> NDArray[np.int64]:
    """For each sentence: the spans that are right, those predicted, and those that are there (S, 3)."""
    spans = needed("seqeval.metrics.sequence_labeling", "a measure of named entities").get_entities
    rows = []
    for one, other in zip(true, predicted):
        wanted, found = set(spans(list(one))), set(spans(list(other)))
        rows.append((len(wanted & found), len(found), len(wanted)))
    return np.array(rows, dtype=np.int64)


def _share(part: NDArray[np.int64], whole: NDArray[np.int64], **options: Any) -> Measure:
    """The sum of parts by the sum of wholes, over sentences; 0 where there is no whole, as in seqeval."""

    def share(drawn: NDArray[np.int64]) -> float:
        total = int(whole[drawn].sum())
        return float(part[drawn].sum() / total) if total else 0.0

    return bootstrap_interval(share, len(part), **options)
