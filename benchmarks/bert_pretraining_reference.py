"""Does BERT's pre-training reach what the same model reaches in PyTorch, and how long do both take?

    python benchmarks/bert_pretraining_reference.py                 as `minilm pretrain-bert` by default
    python benchmarks/bert_pretraining_reference.py --steps 300     shorter: the schedule is that of so many steps

Both begin with the same weights, see the same batches in the same order (the Shakespeare that ships, its last tenth
held out) and take the same steps of AdamW, with the same learning rates, decay and clipping. The twin is
transformers' BertForPreTraining, its scores computed for the masked tokens alone, as ours are; in "bf16" its products
run under autocast. Accuracies are over the same held-out batches. They take turns, 20 steps at a
time. Seconds are of the steps alone; they compare only where nothing else runs on the machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bert_sections.turns import MINILM, PYTORCH, Moved, Ours, Side, Twin, share, take_turns
from minilm.train.pretraining import PretrainConfig
from minilm.train.run import new_run
from minilm.train.trainer import precision
from minilm.train.validation import measure


def configured(steps: int, **settings: Any) -> PretrainConfig:
    """The configuration of a run of so many steps, with a warm-up of a tenth of them at most; measured at its end."""
    warmup_steps = min(PretrainConfig().warmup_steps, steps // 10)
    every = {"eval_every": steps, "eval_batches": 1, "warmup_steps": warmup_steps}
    config: PretrainConfig = PretrainConfig.build(None, {"steps": steps, **every, **settings})
    return config


def scores(twin: Twin, batch: Any) -> tuple[Any, Any, Any, Any]:
    """The twin's scores of masked tokens (n, V) and of pairs (B, 2), each with its labels."""
    ids, types, present, labels, label = twin.tensors(batch)
    states = twin.model.bert(ids, attention_mask=present, token_type_ids=types)
    masked = labels >= 0
    tokens = twin.model.cls.predictions(states.last_hidden_state[masked])
    pairs = twin.model.cls.seq_relationship(states.pooler_output)
    return tokens.float(), labels[masked], pairs.float(), label


def loss(twin: Twin, batch: Any) -> Any:
    """The sum of the two tasks' means."""
    tokens, labels, pairs, label = scores(twin, batch)
    cross_entropy = twin.torch.nn.functional.cross_entropy
    return cross_entropy(tokens, labels) + cross_entropy(pairs, label)


def measure_twin(twin: Twin, data: Any, batches: int) -> dict[str, float]:
    """Its accuracies and its loss on so many held-out batches."""
    sums = np.zeros(6)
    with twin.tested():
        for index in range(batches):
            tokens, labels, pairs, label = scores(twin, data.validation(index))
            for at, (found, wanted) in enumerate(((tokens, labels), (pairs, label))):
                total = twin.torch.nn.functional.cross_entropy(found, wanted, reduction="sum")
                sums[3 * at : 3 * at + 3] += ((found.argmax(-1) == wanted).sum(), total, len(wanted))
    masked, following = sums[:3], sums[3:]
    return {
        "masked_accuracy": masked[0] / masked[2],
        "next_sentence_accuracy": following[0] / following[2],
        "loss": masked[1] / masked[2] + following[1] / following[2],
    }


def compare(
    trainer: Any, folder: Path, batches: int, only: str | None = None, moved: Moved | None = None
) -> dict[str, Any]:
    """Train both (or `only` one), and what they reach on so many held-out batches and take, as plain figures.

    trainer: of a new run. folder: where weights are put for PyTorch.
    """
    config, sides = trainer.config, dict[str, Side]()
    if only != PYTORCH:
        sides[MINILM] = Ours(trainer)
    if only != MINILM:
        sides[PYTORCH] = Twin(trainer, folder, loss)
    take_turns(sides, trainer.data, 0, config.steps, moved)
    measures: dict[str, dict[str, float]] = {}
    with precision(config.precision):
        found = measure(trainer, batches)
        baseline = found.pop("accuracy_by_frequency")
        if MINILM in sides:
            measures[MINILM] = {**found, "loss": trainer.evaluate(batches)}
    for twin in sides.values():
        if isinstance(twin, Twin):
            measures[PYTORCH] = measure_twin(twin, trainer.data, batches)
    return {
        "steps": config.steps,
        "batches": batches,
        "baseline": baseline,
        "config": config.to_dict(),
        "measures": measures,
        "seconds": {name: side.seconds for name, side in sides.items()},
        "share": share(sides),
        "losses": {name: side.losses for name, side in sides.items()},
    }


def line(name: str, figures: dict[str, Any]) -> str:
    """A library's results in words."""
    found, baseline = figures["measures"][name], figures["baseline"]
    seconds = figures["seconds"][name]
    return (
        f"{name:<8} masked {found['masked_accuracy']:.1%} ({found['masked_accuracy'] / baseline:.2f} times "
        f"{baseline:.1%} by frequency)  next sentence {found['next_sentence_accuracy']:.1%}  loss {found['loss']:.3f}  "
        f"{seconds:.0f} s, {seconds / figures['steps'] * 1000:.0f} ms a step"
    )


def main() -> int:
    """Train both and print how far each came; exit code 1 if ours is below three times the baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=PretrainConfig().steps)
    parser.add_argument("--seed", type=int, default=PretrainConfig().seed)
    parser.add_argument("--precision", choices=("bf16", "float32"), default=PretrainConfig().precision)
    parser.add_argument("--batches", type=int, default=200, help="held-out ones, to measure on")
    parser.add_argument("--only", choices=(MINILM, PYTORCH))
    given = parser.parse_args()
    config = configured(given.steps, seed=given.seed, precision=given.precision)
    with tempfile.TemporaryDirectory() as place:
        trainer, _ = new_run(None, Path(place) / "run", config)
        figures = compare(trainer, Path(place) / "twin", given.batches, given.only)
    for name in figures["measures"]:
        print(line(name, figures))
    ours = figures["measures"].get(MINILM)
    return int(ours is not None and ours["masked_accuracy"] < 3 * figures["baseline"])


if __name__ == "__main__":
    sys.exit(main())
