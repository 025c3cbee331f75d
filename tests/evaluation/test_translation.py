"""BLEU, chrF and ROUGE as their packages take them, baselines, and pictures of alignments."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from minilm.errors import ConfigError, DataError, MissingExtraError, ShapeError
from minilm.evaluation import draw_alignment
from minilm.evaluation.translation import lead, rouge_measures, rouge_scores, translation_scores

SAID = ["le chat noir dort", "il a vu la maison rouge", "un chien"]
MEANT = ["le chat noir dort ici", "il a vu la grande maison rouge", "un chien"]


def test_bleu_and_chrf_stand_with_their_signature(eval_extra):
    sacrebleu = importlib.import_module("sacrebleu")
    scores = translation_scores(SAID, MEANT)
    assert scores["bleu"].value == sacrebleu.corpus_bleu(SAID, [MEANT]).score
    assert scores["chrf"].value == sacrebleu.corpus_chrf(SAID, [MEANT]).score
    assert scores["bleu"].value < scores["chrf"].value < 100
    assert "tok:13a" in str(scores["bleu"])
    assert f"version:{sacrebleu.__version__}" in scores["chrf"].signature


def test_rouge_of_each_and_of_all(eval_extra):
    each = rouge_scores(SAID, MEANT)
    assert each["rouge1"] == pytest.approx([100 * 8 / 9, 100 * 12 / 13, 100])  # F1 = 2 same / (words of both)
    assert each["rouge2"][1] == pytest.approx(100 * 2 * 4 / 11)
    measures = rouge_measures(SAID, MEANT)
    assert measures["rougeL"].value == pytest.approx(np.mean(each["rougeL"]))
    assert measures["rouge2"].low < measures["rouge2"].value <= measures["rouge2"].high


@pytest.mark.parametrize("scores", [translation_scores, rouge_scores])
def test_what_cannot_be_compared(scores):
    with pytest.raises(DataError, match="2 texts cannot be compared with 1 references"):
        scores(["a", "b"], ["a"])
    with pytest.raises(DataError, match="0 texts"):
        scores([], [])


@pytest.mark.parametrize(("scores", "name"), [(translation_scores, "sacrebleu"), (rouge_scores, "rouge-score")])
def test_a_missing_package_is_named(scores, name, monkeypatch):
    def refuse(module):
        raise ImportError(module)

    monkeypatch.setattr("minilm.evaluation.extras.importlib.import_module", refuse)
    with pytest.raises(MissingExtraError, match=rf"needs {name}: pip install 'minilm\[eval\]'"):
        scores(["a"], ["a"])


def test_first_sentences():
    text = "It rained. Was it cold? It was 3.5 degrees.\nNobody came!"
    assert lead(text, 2) == "It rained. Was it cold?"
    assert lead(text, 3) == "It rained. Was it cold? It was 3.5 degrees."
    assert lead(text, 9) == text.replace("\n", " ")


def test_an_alignment_is_drawn(tmp_path):
    weights = np.full((2, 3), 1 / 3)
    assert draw_alignment(weights, ["the", " cat", "</s>"], ["le", " $chat"], tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(ShapeError, match=r"weights \(2, 3\) for 3 tokens and 2"):
        draw_alignment(weights, ["a", "b"], ["a", "b", "c"], tmp_path / "b.png")
    with pytest.raises(ConfigError, match=r"ends in \.png or \.svg"):
        draw_alignment(weights, ["a", "b", "c"], ["a", "b"], tmp_path / "b.jpg")
