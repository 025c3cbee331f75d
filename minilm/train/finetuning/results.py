"""What a fine-tuning run leaves behind: the best model, its predictions, and a report.

RUN/model/              config.json, model.safetensors, the tokenizer's files: for `minilm predict`, or transformers
RUN/predictions.jsonl   each validation example with what the best model says
RUN/report.md           the measures with their confidence intervals, time, memory
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

from minilm.errors import CheckpointError, ConfigError, MissingExtraError
from minilm.evaluation.picture import draw_confusion
from minilm.evaluation.report import write_report
from minilm.files import written_whole
from minilm.text.bert_files import CONFIG as TOKENIZER_CONFIG
from minilm.text.bert_files import SPECIAL, VOCAB
from minilm.train.finetuning.tasks import restored
from minilm.train.observers import Observer, peak_memory

MODEL, PREDICTIONS, REPORT, MATRIX = "model", "predictions.jsonl", "report.md", "confusion.png"
FILES = (
    *(MODEL, PREDICTIONS, REPORT, MATRIX, "train.jsonl", "validation.jsonl"),
    *(VOCAB, SPECIAL, TOKENIZER_CONFIG, "source.spm", "target.spm", "vocab.json", "spiece.model"),
)
KEPT = (  # what predicting needs
    *("max_length", "stride", "max_answer", "best", "no_answer", "batch_size", "tags"),
    *("max_source", "max_target", "truncate", "vocabulary", "batch_tokens", "num_beams", "length_penalty", "lead"),
)


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
        corpus, folder, model = self.corpus, trainer.folder, trainer.model.eval()
        began = time.perf_counter()
        _, predictions = corpus.task.predicted(model, corpus.encoded, corpus.validation)
        seconds = time.perf_counter() - began
        save_model(model, corpus, folder / MODEL)
        write_rows(corpus.task.rows(predictions, corpus.validation), folder / PREDICTIONS)
        self._report(trainer, predictions, seconds)

    def _report(self, trainer: Any, predictions: list[Any], seconds: float) -> None:
        corpus, folder, p = self.corpus, trainer.folder, trainer.progress
        about = {
            "model": f"{corpus.config.pretrained}, fine-tuned on {len(corpus.train):,} examples",
            "training": f"{p.step} steps in {p.seconds:.1f} s; the best checkpoint is of step {p.best_checkpoint}",
        }
        matrix, picture, names = None, None, () if corpus.task.labels is None else corpus.task.labels.names
        try:
            measures, matrix = corpus.task.judged(predictions, corpus.validation)
        except MissingExtraError as error:
            measures = {}
            about |= {**corpus.task.measured(predictions, corpus.validation), "confidence intervals": str(error)}
        if matrix is not None:
            with contextlib.suppress(MissingExtraError):  # without matplotlib
                picture = draw_confusion(matrix, names, folder / MATRIX, "How often a class is taken for which").name
        write_report(
            folder / REPORT,
            f"{corpus.config.task}: {folder.name}",
            measures,
            len(corpus.validation),
            seconds,
            peak_memory(),
            about,
            matrix,
            names,
            picture,
        )


def save_model(model: Any, corpus: Any, folder: Path) -> None:
    """The model as Hugging Face's library reads it, with what `minilm predict` needs to know besides."""
    values = dataclasses.asdict(corpus.config)
    kept = {"task": corpus.config.task, **{name: values[name] for name in KEPT if name in values}}
    model.config.others["task_specific_params"] = {"minilm": kept}
    model.save_pretrained(folder)
    corpus.tokenizer.save_pretrained(folder)


def load_model(folder: Path) -> tuple[Any, Any]:
    """The task and the model that `save_model` wrote: in `folder`, or in the `model` of a run.

    Errors: CheckpointError for a folder that holds none, or what is no fine-tuned model of minilm's.
    """
    from minilm.models.pretrained import CONFIG, read_json
    from minilm.train.tasks import task

    place = folder / MODEL if (folder / MODEL).is_dir() else folder
    if not (place / CONFIG).is_file():
        raise CheckpointError(f"{folder}: there is no {CONFIG} in it; a fine-tuned model is in the `model` of its run")
    shape = read_json(place / CONFIG)
    kept = (shape.get("task_specific_params") or {}).get("minilm")
    if not isinstance(kept, dict) or "task" not in kept:
        raise CheckpointError(f"{place}: was not fine-tuned by minilm; its config.json does not say for which task")
    kind = task(kept["task"])
    try:
        config = kind.config.from_dict({**kept, "model": shape})
    except ConfigError as error:
        raise ConfigError(f"{place / CONFIG}: {error}") from None
    return restored(config, place), kind.model.from_pretrained(place)


def write_rows(rows: Any, path: Path) -> None:
    """Objects as JSON lines; the file appears whole."""
    with written_whole(path, "w") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
