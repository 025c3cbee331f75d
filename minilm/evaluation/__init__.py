"""How good predictions are, and how sure that is: measures with intervals, pictures and reports."""

from minilm.evaluation.classification import (
    classification_measures,
    confusion_matrix,
    regression_measures,
)
from minilm.evaluation.intervals import Measure, bootstrap_interval, wilson_interval
from minilm.evaluation.picture import draw_confusion
from minilm.evaluation.report import write_report
from minilm.evaluation.squad import normalize_answer, squad_measures, squad_scores
from minilm.evaluation.tagging import is_bio, tagging_measures

__all__ = [
    "Measure",
    "bootstrap_interval",
    "classification_measures",
    "confusion_matrix",
    "draw_confusion",
    "is_bio",
    "normalize_answer",
    "regression_measures",
    "squad_measures",
    "squad_scores",
    "tagging_measures",
    "wilson_interval",
    "write_report",
]
