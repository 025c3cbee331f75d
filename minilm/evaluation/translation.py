"""How like references texts are: BLEU and chrF of translations by sacrebleu, ROUGE of summaries by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from minilm.data.sentences import sentences as split
from minilm.errors import DataError
from minilm.evaluation.extras import needed
from minilm.evaluation.intervals import Measure, bootstrap_mean

ROUGE = ("rouge1", "rouge2", "rougeL")


@dataclass(frozen=True)
class Score:
    """A measure of a whole text, in percent, and the signature that says exactly how it was taken."""

    value: float
    signature: str

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.signature})"


def translation_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Score]:
    """BLEU and chrF of translations with one reference each, as sacrebleu takes them by default.

    Source: Papineni et al. 2002; Popovic 2015; Post 2018, for why the signature must stand beside the number.
    Errors: MissingExtraError without sacrebleu; DataError for no translation, or another number of references.
    """
    _check(hypotheses, references)
    metrics = needed("sacrebleu.metrics", "BLEU and chrF")
    scores = {}
    for name, kind in (("bleu", metrics.BLEU), ("chrf", metrics.CHRF)):
        metric = kind()
        value = metric.corpus_score(list(hypotheses), [list(references)]).score
        scores[name] = Score(float(value), str(metric.get_signature()))
    return scores


def rouge_scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of each summary: F1 in percent, words without endings.

    Source: Lin 2004. Errors: MissingExtraError without rouge-score; DataError as `translation_scores`.
    """
    _check(hypotheses, references)
    scorer = needed("rouge_score.rouge_scorer", "ROUGE").RougeScorer(list(ROUGE), use_stemmer=True)
    found = [scorer.score(reference, hypothesis) for hypothesis, reference in zip(hypotheses, references)]
    return {name: [100 * one[name].fmeasure for one in found] for name in ROUGE}


def rouge_measures(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, Measure]:
    """The means of `rouge_scores`, with their intervals."""
    scores = rouge_scores(hypotheses, references)
    return {name: bootstrap_mean(values, of="summaries") for name, values in scores.items()}


def lead(text: str, sentences: int) -> str:
    """The first sentences of a text: what a summary must be better than.

    Source: Nenkova 2005, for how good this is of news.
    """
    found = (sentence for sentence in split([text], 0) if sentence is not None)
    return " ".join(islice(found, sentences))


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses)} texts cannot be compared with {len(references)} references")
