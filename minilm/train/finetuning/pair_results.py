"""What a run over pairs of texts leaves behind: the best model, what it writes, and a report.

RUN/model/              config.json, model.safetensors, tokenizer.json: for `minilm translate`, or transformers
RUN/predictions.jsonl   each validation pair with what the best model writes
RUN/report.md           the measures, time, speed, examples
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from minilm.errors import MissingExtraError
from minilm.evaluation.report import write_report
from minilm.files import written_whole
from minilm.models.generation_config import GENERATION, GenerationConfig
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.train.averaging import averaged_weights
from minilm.train.checkpoint import load_best
from minilm.train.finetuning.results import MODEL, PREDICTIONS, REPORT, save_model, write_rows
from minilm.train.observers import Observer, peak_memory

EXAMPLES = 5  # that the report shows


class PairResults(Observer):
    """Writes them when training ends; an interrupted run writes none."""

    def __init__(self, corpus: Any) -> None:
        self.corpus = corpus

    def ended(self, trainer: Any) -> None:
        """Go back to the best weights, and write what they can do."""
        if trainer.folder is None or trainer.interrupted:
            return
        corpus, folder, model = self.corpus, trainer.folder, trainer.model.eval()
        chosen = choose_weights(trainer, corpus)
        began = time.perf_counter()
        _, predictions = corpus.task.predicted(model, corpus.encoded, corpus.validation)
        seconds = time.perf_counter() - began
        save_model(model, corpus, folder / MODEL)
        save_generation(model.config, corpus.config, folder / MODEL)
        write_rows(corpus.task.rows(predictions, corpus.validation), folder / PREDICTIONS)
        self._report(trainer, predictions, seconds, chosen)

    def _report(self, trainer: Any, predictions: list[Any], seconds: float, chosen: str) -> None:
        corpus, folder, p, c = self.corpus, trainer.folder, trainer.progress, trainer.config
        written = sum(len(prediction.tokens) for prediction in predictions)
        try:
            measures = corpus.task.described(predictions, corpus.validation)
        except MissingExtraError as error:
            measures = {"measures": str(error)}
        start = c.pretrained or "random weights"
        about: dict[str, object] = {
            "model": f"{sum(x.numel() for x in trainer.model.parameters()):,} parameters, from {start}",
            "pairs": f"{len(corpus.train):,} learnt from, {len(corpus.validation):,} tested on",
            **{f"note {number}": note for number, note in enumerate(corpus.notes, 1)},
            "training": f"{p.step:,} steps in {p.seconds:,.1f} s, {p.tokens / max(p.seconds, 1e-9):,.0f} tokens/s, "
            "those of both sides without padding",
            "weights": chosen,
            **measures,
            "decoding": f"a beam of {c.num_beams}, length penalty {c.length_penalty:g}; "
            f"{written / max(seconds, 1e-9):,.0f} tokens/s",
        }
        sections = ["## Examples", ""]
        for prediction, pair in list(zip(predictions, corpus.validation))[:EXAMPLES]:
            for what, text in (("source", pair.source), ("target", pair.target), ("written", prediction.text)):
                sections.append(f"- {what}: {' '.join(text.split())}")
            sections.append("")
        title = f"{c.task}: {folder.name}"
        count = len(corpus.validation)
        write_report(folder / REPORT, title, {}, count, seconds, peak_memory(), about, sections=sections)


def choose_weights(trainer: Any, corpus: Any) -> str:
    """Give the model its best checkpoint's weights or the mean of the last ones', whichever is better; in words, which.

    What says so is what the run goes by: the loss of the validation pairs, or a measure. Errors: CheckpointError.
    """
    load_best(trainer)
    model, metric = trainer.model, trainer.config.metric
    alone = f"of step {trainer.progress.best_checkpoint}"
    if trainer.config.average == 1:
        return alone
    steps, mean = averaged_weights(trainer.folder, trainer.config, trainer.config.average)
    if len(steps) < 2:
        return alone
    own = {name: Tensor(tensor.array.copy()) for name, tensor in model.state_dict().items()}

    def worth() -> float:
        loss, measures = corpus.assess(model)
        return -loss if metric == "loss" else measures[metric]

    with no_grad():
        best = worth()
        model.load_state_dict({name: Tensor(value.astype(own[name].array.dtype)) for name, value in mean.items()})
        averaged = worth()
        if averaged <= best:
            model.load_state_dict(own)
    words = f"the mean of those of steps {', '.join(map(str, steps))}"
    pair = f"{metric} {abs(averaged):.4f} and {abs(best):.4f}"
    return f"{words}; {alone} is worse ({pair})" if averaged > best else f"{alone}; {words} is no better ({pair})"


def save_generation(shape: Any, config: Any, folder: Path) -> None:
    """How transformers' `generate` writes what this library writes."""
    known = GenerationConfig.of(shape)
    settings = {
        "num_beams": config.num_beams,
        "length_penalty": config.length_penalty,
        "max_length": 2 * config.max_target + 1,  # with the first token, which is given
        "bad_words_ids": [[token] for token in known.suppress_tokens] or None,
        "pad_token_id": shape.pad_token_id,
        "eos_token_id": known.eos_token_id,
        "decoder_start_token_id": shape.decoder_start_token_id,
        "forced_eos_token_id": known.eos_token_id if known.forced_eos else None,
    }
    with written_whole(folder / GENERATION, "w") as file:
        file.write(json.dumps(settings, indent=2) + "\n")
