"""What a fine-tuning run leaves behind: the best model, its predictions, and a report.

    RUN/model/              config.json, model.safetensors, the tokenizer's files: for `minilm predict`, or transformers
    RUN/predictions.jsonl   each validation example with what the best model says
    RUN/report.md           the measures with their confidence intervals, time, memory
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from minilm.files import written_whole
from minilm.train.observers import Observer

MODEL, PREDICTIONS, REPORT, MATRIX = "model", "predictions.jsonl", "report.md", "confusion.png"
FILES = (MODEL, PREDICTIONS, REPORT, MATRIX, "train.jsonl", "validation.jsonl")
KEPT = ("max_length", "stride", "max_answer", "best", "no_answer", "batch_size", "tags")  # what predicting needs


class Results(Observer):
    """Writes them when training ends; an interrupted run writes none."""

    def __init__(self, corpus: Any) -> None:
        self.corpus = corpus

    def ended(self, trainer: Any) -> None:
        """Go back to the best checkpoint, and write what it can do."""
        if trainer.folder is None or trainer.interrupted:
            return
        from minilm.train.checkpoint import load_best

        load_best(trainer)
        corpus, folder, model = self.corpus, trainer.folder, trainer.model
        model.eval()
        loss, predictions = corpus.task.predicted(model, corpus.encoded, corpus.validation)
        save_model(model, corpus, folder / MODEL)
        write_rows(corpus.task.rows(predictions, corpus.validation), folder / PREDICTIONS)


def save_model(model: Any, corpus: Any, folder: Path) -> None:
    """The model as Hugging Face's library reads it, with what `minilm predict` needs to know besides."""
    values = dataclasses.asdict(corpus.config)
    kept = {"task": corpus.config.task, **{name: values[name] for name in KEPT if name in values}}
    model.config.others["task_specific_params"] = {"minilm": kept}
    model.save_pretrained(folder)
    corpus.tokenizer.save_pretrained(folder)


def write_rows(rows: Any, path: Path) -> None:
    """Objects as JSON lines; the file appears whole."""
    with written_whole(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
