"""Measures of classification and regression, from scikit-learn and SciPy."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.evaluation.extras import needed
from minilm.evaluation.intervals import Measure, bootstrap_interval, wilson_interval

AVERAGES = ("macro", "micro", "weighted")


def classification_measures(
    true: Any, predicted: Any, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Measure]:
    """accuracy, f1_macro, f1_micro, f1_weighted and matthews, of labels' numbers (N,) true and predicted.

    F1 is over the classes that occur in either; of a class that a resample lacks it is 0. Accuracy has Wilson's
    interval, the others a bootstrap's.

    Errors: MissingExtraError without scikit-learn; DataError for no labels, or for more of one than of the other.

    Source: scikit-learn's accuracy_score, f1_score and matthews_corrcoef (Matthews 1975; Gorodkin 2004).
    """
    true, predicted = _pair(true, predicted, np.int64)
    metrics = needed("sklearn.metrics", "a measure of classification")
    values = {f"f1_{a}": metrics.f1_score(true, predicted, average=a, zero_division=0) for a in AVERAGES}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A single label was found")  # the correlation is 0 then
        values["matthews"] = metrics.matthews_corrcoef(true, predicted)
    accuracy = float(metrics.accuracy_score(true, predicted))
    measures = {"accuracy": wilson_interval(round(accuracy * len(true)), len(true), confidence)}

    # scikit-learn takes milliseconds a call, too many for a bootstrap. The measures of a resample depend on its
    # confusion matrix alone.
    classes = np.union1d(true, predicted)
    cells = np.searchsorted(classes, true) * len(classes) + np.searchsorted(classes, predicted)

    def resampled(name: str) -> Measure:
        def statistic(drawn: NDArray[np.int64]) -> float:
            counts = np.bincount(cells[drawn], minlength=len(classes) ** 2)
            return measures_of_confusion(counts.reshape(len(classes), len(classes)))[name]

        return bootstrap_interval(statistic, len(true), confidence, resamples, seed)

    return measures | {name: replace(resampled(name), value=float(value)) for name, value in values.items()}


def measures_of_confusion(matrix: NDArray[np.int64]) -> dict[str, float]:
    """f1_macro, f1_micro, f1_weighted and matthews of a confusion matrix (K, K); all K classes count.

    What is divided by zero is 0, as in scikit-learn.
    """
    right, wanted, found = np.diag(matrix).astype(float), matrix.sum(axis=1), matrix.sum(axis=0)
    total = float(matrix.sum())
    f1 = 2 * right / np.maximum(wanted + found, 1)
    spread = (total**2 - float((found.astype(float) ** 2).sum())) * (
        total**2 - float((wanted.astype(float) ** 2).sum())
    )
    agreement = float(right.sum()) * total - float(found.astype(float) @ wanted)
    return {
        "f1_macro": float(f1.mean()),
        "f1_micro": float(right.sum()) / total,
        "f1_weighted": float(f1 @ wanted) / total,
        "matthews": agreement / math.sqrt(spread) if spread > 0 else 0.0,
    }


def regression_measures(
    true: Any, predicted: Any, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> dict[str, Measure]:
    """pearson and spearman correlation of numbers (N,) with what was predicted; NaN where all of either are equal.

    Errors: MissingExtraError without SciPy (which comes with scikit-learn); DataError for fewer than two numbers, or
    for more of one than of the other.

    Source: SciPy's pearsonr and spearmanr.
    """
    true, predicted = _pair(true, predicted, np.float64)
    if len(true) < 2:
        raise DataError("a correlation needs at least two examples")
    stats = needed("scipy.stats", "a correlation")

    def interval(correlation: Any) -> Measure:
        def statistic(drawn: NDArray[np.int64]) -> float:
            one, other = true[drawn], predicted[drawn]
            if np.ptp(one) == 0 or np.ptp(other) == 0:
                return math.nan
            return float(correlation(one, other).statistic)

        return bootstrap_interval(statistic, len(true), confidence, resamples, seed)

    return {"pearson": interval(stats.pearsonr), "spearman": interval(stats.spearmanr)}


def confusion_matrix(true: Any, predicted: Any, classes: int) -> NDArray[np.int64]:
    """How often class i (row) was predicted as class j (column), (K, K). Errors: DataError for numbers beyond K - 1."""
    true, predicted = _pair(true, predicted, np.int64)
    for numbers in (true, predicted):
        if numbers.min() < 0 or numbers.max() >= classes:
            raise DataError(f"confusion_matrix: {numbers.min()} to {numbers.max()} are not all of {classes} classes")
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _pair(true: Any, predicted: Any, dtype: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    one, other = np.asarray(true, dtype=dtype), np.asarray(predicted, dtype=dtype)
    if one.ndim != 1 or one.shape != other.shape:
        raise DataError(f"labels of shape {one.shape} and predictions of shape {other.shape} do not belong together")
    if not len(one):
        raise DataError("there are no examples, so there is nothing to measure")
    return one, other
