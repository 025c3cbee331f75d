"""Is fine-tuning BERT as good as in PyTorch, and what share of its time does it take?

    python benchmarks/bert_finetuning_reference.py --model DIR --classify FILE --tag FILE
    python benchmarks/bert_finetuning_reference.py --model DIR --classify FILE --steps 40      shorter, for the times
    python benchmarks/bert_finetuning_reference.py --model DIR --qa TRAIN VALID

Both begin with the same weights, see the same batches in the same order and take the same steps of AdamW, with the same
rates, decay and clipping, by transformers' model of the same name; dropout draws differ. After each epoch both are
tested on the part of the file that is held out. They take turns, 20 steps at a time; the share is of the seconds of
steps and tests together, and says something only where nothing else runs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_sections.turns import MINILM, PYTORCH, Moved, Ours, Side, Twin, share, take_turns
from minilm.models.bert_config import BertConfig
from minilm.models.hub import found
from minilm.models.pretrained import read_config
from minilm.tensor import Tensor
from minilm.train.finetuning.corpus import Source
from minilm.train.run import new_run
from minilm.train.tasks import task

RECIPES: dict[str, dict[str, Any]] = {
    "classify": {"max_length": 64, "batch_size": 32, "epochs": 2, "train_fraction": 0.8, "grad_clip": 0.0},
    "tag": {"max_length": 128, "batch_size": 16, "epochs": 3, "train_fraction": 0.8},
    "qa": {
        **{"max_length": 160, "stride": 40, "batch_size": 8, "epochs": 2},
        **{"learning_rate": 1.5e-4, "warmup_steps": 30, "metric": "exact"},
    },
}


def configured(name: str, model: str | Path) -> Any:
    """The configuration of a run of that task on that model; texts are no longer than it can read."""
    shape = read_config(found(model), BertConfig, {}).to_dict()
    kind: Any = task(name).config
    recipe: dict[str, Any] = {"max_length": kind.max_length, **RECIPES.get(name, {})}
    known = shape["max_position_embeddings"]
    if recipe["max_length"] > known:
        recipe["max_length"] = known
        if name == "qa":
            recipe["stride"] = known // 3
    return kind.build(None, {"pretrained": str(model), "model": shape, **recipe})


def compare(
    trainer: Any,
    corpus: Any,
    folder: Path,
    steps: int = 0,
    tests: bool = True,
    judged: Callable[[Any, list[Any]], dict[str, Any]] | None = None,
    say: Callable[[str], None] = print,
    moved: Moved | None = None,
) -> dict[str, Any]:
    """Train both, and what they reach and take, as plain figures.

    trainer, corpus: of a new run. folder: where weights are put for PyTorch. steps: only so many; 0 for all.
    tests: whether both are tested after each epoch, and at the end. judged: the measures of a corpus's predictions;
    by default the task's, without intervals.
    """
    config = trainer.config

    def loss(twin: Twin, batch: Any) -> Any:
        ids, types, mask = map(Tensor, batch[:3])
        return twin.called(ids, mask, types, **corpus.task.named(batch[-1])).loss

    sides: dict[str, Side] = {MINILM: Ours(trainer), PYTORCH: Twin(trainer, folder, loss)}
    total, metric = min(steps or config.steps, config.steps), config.METRICS[0]
    judged = judged or (lambda corpus, predictions: corpus.task.measured(predictions, corpus.validation))
    say(f"{config.task}: {len(corpus.train):,} examples, {total} steps of {config.batch_size}")
    epochs: list[dict[str, Any]] = []
    for first in range(0, total, trainer.data.steps):
        end = min(first + trainer.data.steps, total)
        take_turns(sides, trainer.data, first, end, moved)
        if tests:
            measures = {name: judged(corpus, side.predictions(corpus)) for name, side in sides.items()}
            epochs.append({"step": end, "measures": measures})
            values = ", ".join(f"{name} {value_of(found[metric]):.4f}" for name, found in measures.items())
            say(f"  after step {end}: {values}")
    spent = {name: side.seconds + side.testing for name, side in sides.items()}
    say(f"  seconds: {', '.join(f'{n} {s:.1f}' for n, s in spent.items())}; share {share(sides):.2f}")
    return {
        "examples": len(corpus.train),
        "held_out": len(corpus.validation),
        "steps": total,
        "metric": metric,
        "config": config.to_dict(),
        "epochs": epochs,
        "seconds": {name: {"steps": side.seconds, "tests": side.testing} for name, side in sides.items()},
        "share": share(sides),
        "losses": {name: side.losses for name, side in sides.items()},
    }


def value_of(measure: Any) -> float:
    """A measure's value, with an interval or without."""
    return float(measure["value"] if isinstance(measure, dict) else measure)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder of a pretrained BERT")
    parser.add_argument("--classify", type=Path, help="a TSV, CSV or JSON lines file of labelled texts")
    parser.add_argument("--tag", type=Path, help="a CoNLL or CoNLL-U file")
    parser.add_argument("--qa", type=Path, nargs=2, metavar=("TRAIN", "VALID"), help="two SQuAD files")
    parser.add_argument("--steps", type=int, default=0, help="only so many steps, without tests; 0 for all")
    given = parser.parse_args()
    sources = {name: Source(path) for name in ("classify", "tag") if (path := getattr(given, name)) is not None}
    if given.qa is not None:
        sources["qa"] = Source(*given.qa)
    for name, source in sources.items():
        with tempfile.TemporaryDirectory() as place:
            trainer, corpus = new_run(source, Path(place) / "run", configured(name, given.model))
            compare(trainer, corpus, Path(place) / "twin", given.steps, tests=not given.steps)


if __name__ == "__main__":
    main()
