"""How good predictions are, and how sure that is: measures with intervals, pictures and reports."""

from minilm.evaluation.classification import (
    classification_measures,
    confusion_matrix,
    regression_measures,
)
from minilm.evaluation.intervals import Measure, bootstrap_interval, wilson_interval
from minilm.evaluation.picture import draw_alignment, draw_confusion
from minilm.evaluation.report import write_report
from minilm.evaluation.squad import normalize_answer, squad_measures, squad_scores
from minilm.evaluation.tagging import is_bio, tagging_measures
from minilm.evaluation.translation import lead, rouge_measures, translation_scores

__all__ = [
    "Measure",
    "bootstrap_interval",
    "classification_measures",
    "confusion_matrix",
    "draw_alignment",
    "draw_confusion",
    "is_bio",
    "lead",
    "normalize_answer",
    "regression_measures",
    "rouge_measures",
    "squad_measures",
    "squad_scores",
    "tagging_measures",
    "translation_scores",
    "wilson_interval",
    "write_report",
]
