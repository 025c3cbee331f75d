"""Measures and their intervals, beside scikit-learn, SciPy, seqeval and numbers worked out by hand."""

from __future__ import annotations

import math
import random
import sys

import numpy as np
import pytest

from minilm.errors import DataError, MissingExtraError
from minilm.evaluation import (
    Measure,
    bootstrap_interval,
    classification_measures,
    confusion_matrix,
    is_bio,
    regression_measures,
    tagging_measures,
    wilson_interval,
)
from minilm.evaluation.classification import measures_of_confusion
from minilm.evaluation.intervals import bootstrap_mean


def drawn_labels(n: int, classes: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, n)
    return true, np.where(rng.random(n) < right, true, rng.integers(0, classes, n))


# --- intervals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718), (15, 148, 0.0624, 0.1605), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_is_newcombes(successes: int, n: int, low: float, high: float) -> None:
    """The four examples of Newcombe 1998, table I, method 3."""
    measure = wilson_interval(successes, n)
    assert measure.value == successes / n
    assert (round(measure.low, 4), round(measure.high, 4)) == (low, high)
    mirrored = wilson_interval(n - successes, n)
    assert mirrored.low == pytest.approx(1 - measure.high)
    assert mirrored.high == pytest.approx(1 - measure.low)


def test_wilson_is_scipys(eval_extra: None) -> None:
    from scipy.stats import binomtest

    for successes, n, confidence in [(3, 7, 0.9), (500, 1000, 0.99), (7, 7, 0.95)]:
        theirs = binomtest(successes, n).proportion_ci(confidence, method="wilson")
        ours = wilson_interval(successes, n, confidence)
        assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    scores = np.random.default_rng(1).random(2000)
    measure = bootstrap_mean(scores, resamples=2000)
    half = 1.96 * scores.std() / math.sqrt(2000)
    assert measure.value == pytest.approx(scores.mean())
    assert measure.low == pytest.approx(scores.mean() - half, abs=0.1 * half)
    assert measure.high == pytest.approx(scores.mean() + half, abs=0.1 * half)
    assert measure == bootstrap_mean(scores, resamples=2000)
    assert measure.low != bootstrap_mean(scores, resamples=2000, seed=1).low
    narrow = bootstrap_mean(scores, resamples=2000, confidence=0.5)
    assert narrow.high - narrow.low < 0.5 * (measure.high - measure.low)
    assert measure.method == "percentile bootstrap over examples, 2000 resamples"
    assert str(Measure(0.5, 0.25, 0.75, 0.95, "m")) == "0.5000 (95%: 0.2500 to 0.7500, m)"


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Of 300 samples 95% intervals should miss about 15 times: 7 to 27 times in all but one run of a thousand."""
    missed = {"bootstrap": 0, "wilson": 0}
    for seed in range(300):
        right = np.random.default_rng(seed).random(100) < 0.7
        for name, measure in [
            ("bootstrap", bootstrap_mean(right, resamples=200, seed=seed)),
            ("wilson", wilson_interval(int(right.sum()), 100)),
        ]:
            missed[name] += not measure.low <= 0.7 <= measure.high
    assert all(7 <= count <= 27 for count in missed.values()), missed


def test_undefined_resamples_are_left_out() -> None:
    values = np.array([math.nan, 1.0])
    measure = bootstrap_interval(lambda i: float(values[i[0]]), 2, resamples=50)
    assert (measure.low, measure.high) == (1.0, 1.0)
    assert math.isnan(bootstrap_interval(lambda i: math.nan, 2, resamples=5).low)


def test_intervals_refuse() -> None:
    for call, why in [
        (lambda: wilson_interval(3, 2), "3 of 2"),
        (lambda: wilson_interval(0, 0), "no examples"),
        (lambda: wilson_interval(1, 2, confidence=1.0), "between 0 and 1"),
        (lambda: bootstrap_mean([]), "no examples"),
        (lambda: bootstrap_mean([1.0], resamples=0), "resamples is 0"),
    ]:
        with pytest.raises(DataError, match=why):
            call()


# --- classification ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "right"), [(2, 0.85), (5, 0.4), (3, 1.0), (1, 1.0)])
def test_measures_are_scikit_learns(eval_extra: None, classes: int, right: float) -> None:
    from sklearn import metrics

    true, predicted = drawn_labels(300, classes, right)
    true, predicted = true * 2, predicted * 2  # not every number is a class
    found = classification_measures(true, predicted, resamples=200)
    expected = {f"f1_{a}": metrics.f1_score(true, predicted, average=a) for a in ("macro", "micro", "weighted")}
    expected["matthews"] = metrics.matthews_corrcoef(true, predicted) if classes > 1 else 0.0
    assert found["accuracy"].value == metrics.accuracy_score(true, predicted)
    assert found["accuracy"].method == "Wilson score interval"
    of_confusion = measures_of_confusion(confusion_matrix(true // 2, predicted // 2, classes))
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, abs=1e-12)
        assert of_confusion[name] == pytest.approx(value, abs=1e-12)
        assert found[name].low <= value <= found[name].high
    theirs = [[300]]  # where there is one class they warn
    if classes > 1:
        theirs = metrics.confusion_matrix(true, predicted, labels=2 * np.arange(classes))
    assert np.array_equal(confusion_matrix(true // 2, predicted // 2, classes), theirs)


def test_a_class_that_is_never_predicted(eval_extra: None) -> None:
    from sklearn import metrics

    true, predicted = [0, 0, 1, 2, 2], [0, 1, 1, 1, 0]
    found = classification_measures(true, predicted, resamples=10)
    assert found["f1_macro"].value == pytest.approx(metrics.f1_score(true, predicted, average="macro"))
    assert measures_of_confusion(confusion_matrix(true, predicted, 3))["f1_macro"] == pytest.approx((0.5 + 0.5) / 3)


def test_correlations_are_scipys(eval_extra: None) -> None:
    from scipy import stats

    rng = np.random.default_rng(2)
    true = rng.random(200)
    predicted = true**2 + 0.2 * rng.standard_normal(200)
    found = regression_measures(true, predicted, resamples=200)
    assert found["pearson"].value == pytest.approx(stats.pearsonr(true, predicted).statistic)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(true, predicted).statistic)
    assert found["pearson"].low < found["pearson"].value < found["pearson"].high
    constant = regression_measures(true, np.zeros(200), resamples=5)
    assert math.isnan(constant["pearson"].value)
    assert math.isnan(constant["spearman"].high)


def test_classification_refuses(eval_extra: None) -> None:
    for call, why in [
        (lambda: classification_measures([1, 2], [1]), r"shape \(2,\) and predictions of shape \(1,\)"),
        (lambda: classification_measures([], []), "no examples"),
        (lambda: regression_measures([1.0], [2.0]), "at least two"),
        (lambda: confusion_matrix([0, 2], [0, 1], 2), "0 to 2 are not all of 2 classes"),
        (lambda: confusion_matrix([0, 1], [0, -1], 2), "-1 to 0 are not all"),
    ]:
        with pytest.raises(DataError, match=why):
            call()


# --- tagging -------------------------------------------------------------------------------------------


def test_spans_are_seqevals(eval_extra: None) -> None:
    from seqeval import metrics

    draw = random.Random(4)
    tags = ["O", "O", "B-PER", "I-PER", "B-ORG", "I-ORG", "I-LOC", "E-LOC", "S-PER"]
    for _ in range(20):
        true = [[draw.choice(tags) for _ in range(draw.randint(0, 9))] for _ in range(30)]
        predicted = [[tag if draw.random() < 0.7 else draw.choice(tags) for tag in row] for row in true]
        found = tagging_measures(true, predicted, resamples=20)
        assert found["precision"].value == pytest.approx(metrics.precision_score(true, predicted))
        assert found["recall"].value == pytest.approx(metrics.recall_score(true, predicted))
        assert found["f1"].value == pytest.approx(metrics.f1_score(true, predicted))
        assert found["token_accuracy"].value == pytest.approx(metrics.accuracy_score(true, predicted))
        assert found["f1"].low <= found["f1"].value <= found["f1"].high
        assert "over sentences" in found["f1"].method


def test_nothing_found_is_zero(eval_extra: None) -> None:
    found = tagging_measures([["B-X", "O"]], [["O", "O"]], resamples=5)
    assert [found[name].value for name in ("precision", "recall", "f1", "token_accuracy")] == [0, 0, 0, 0.5]


def test_other_tags_have_accuracy_alone() -> None:
    found = tagging_measures([["NOUN", "ADP"], ["X"]], [["NOUN", "X"], ["X"]], resamples=5)
    assert list(found) == ["token_accuracy"]
    assert found["token_accuracy"].value == 2 / 3
    assert is_bio(["O", "B-PER", "I-X-Y"])
    assert not is_bio(["O"])
    assert not is_bio(["B-", "O"])
    assert not is_bio(["B-PER", "NOUN"])


def test_tagging_refuses() -> None:
    for true, predicted, why in [
        ([["O"]], [], "1 sentences and predictions of 0"),
        ([], [], "0 sentences"),
        ([["O"], ["O", "O"]], [["O"], ["O"]], "sentence 1: 2 tags and 1 predictions"),
    ]:
        with pytest.raises(DataError, match=why):
            tagging_measures(true, predicted)


def test_missing_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.metrics", "scipy", "scipy.stats", "seqeval", "seqeval.metrics.sequence_labeling"):
        monkeypatch.setitem(sys.modules, name, None)
    for call, package in [
        (lambda: classification_measures([0, 1], [0, 1]), "scikit-learn"),
        (lambda: regression_measures([0, 1], [0, 1]), "scipy"),
        (lambda: tagging_measures([["B-X"]], [["O"]]), "seqeval"),
    ]:
        with pytest.raises(MissingExtraError, match=rf"needs {package}: pip install 'minilm\[eval\]'"):
            call()
    assert tagging_measures([["X"]], [["O"]], resamples=1)["token_accuracy"].value == 0


def test_extras_are_loaded_when_used() -> None:
    import subprocess

    code = "import sys, minilm.evaluation; print(*({'sklearn', 'scipy', 'seqeval', 'matplotlib'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("\n", "")
