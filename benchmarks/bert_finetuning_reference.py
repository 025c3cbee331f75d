"""Is fine-tuning BERT as good as in PyTorch, and what share of its time does it take?

    python benchmarks/bert_finetuning_reference.py --model DIR --classify FILE --tag FILE
    python benchmarks/bert_finetuning_reference.py --model DIR --classify FILE --steps 40      shorter, for the times

Both begin with the same weights, see the same batches in the same order and take the same steps of AdamW, with the same
rates, decay and clipping, by transformers' model of the same name; dropout draws differ. After each epoch both are
tested on the part of the file that is held out. They take turns, epoch by epoch or, with --steps, ten steps at a time;
the share is of the seconds of steps and tests together, and says something only where nothing else runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from minilm.models.bert_config import BertConfig
from minilm.models.hub import found
from minilm.models.pretrained import read_config
from minilm.train.batches import IGNORED
from minilm.train.finetuning.corpus import Source
from minilm.train.run import new_run
from minilm.train.tasks import task
from minilm.train.validation import assess

RECIPES = {
    "classify": {"max_length": 64, "batch_size": 32, "epochs": 2, "train_fraction": 0.8, "grad_clip": 0.0},
    "tag": {"max_length": 128, "batch_size": 16, "epochs": 3, "train_fraction": 0.8},
}


class Twin:
    """The same run in PyTorch."""

    def __init__(self, trainer: Any, corpus: Any, folder: Path) -> None:
        import torch
        import transformers

        self.trainer, self.corpus, self.torch = trainer, corpus, torch
        trainer.model.save_pretrained(folder)
        name = type(trainer.model).__name__
        self.model = getattr(transformers, name).from_pretrained(folder)
        config = trainer.config
        groups = [
            {"params": [p for p in self.model.parameters() if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in self.model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        betas = config.beta1, config.beta2
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)

    def outputs(self, batch: Any) -> Any:
        """Loss and scores of a batch."""
        ids, types, mask, labels = (self.torch.from_numpy(np.ascontiguousarray(x)) for x in batch)
        return self.model(ids, attention_mask=mask, token_type_ids=types, labels=labels)

    def steps(self, first: int, end: int) -> None:
        """The steps first ... end - 1."""
        config, schedule = self.trainer.config, self.trainer.config.schedule()
        self.model.train()
        for step in range(first, end):
            for group in self.optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule(step)
            self.optimizer.zero_grad()
            self.outputs(self.trainer.data.batch(step)).loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
            self.optimizer.step()

    def accuracy(self) -> float:
        """The share of held-out targets that are guessed right."""
        self.model.eval()
        right = count = 0
        with self.torch.no_grad():
            for index in range(self.trainer.data.evaluations):
                batch = self.trainer.data.validation(index)
                guessed = self.outputs(batch).logits.argmax(-1).numpy()
                asked = batch[-1] != IGNORED
                right, count = right + int((guessed == batch[-1])[asked].sum()), count + int(asked.sum())
        return right / count


def compare(name: str, model: str, file: Path, steps: int) -> None:
    """Train both, and print what they reach and take."""
    shape = read_config(found(model), BertConfig, {}).to_dict()
    config = task(name).config.build(None, {"pretrained": model, "model": shape, **RECIPES[name]})
    with tempfile.TemporaryDirectory() as place:
        trainer, corpus = new_run(Source(file), Path(place) / "run", config)
        twin = Twin(trainer, corpus, Path(place) / "twin")
        total = min(steps or trainer.config.steps, trainer.config.steps)
        every = 10 if steps else trainer.data.steps
        seconds = np.zeros(2)
        print(f"{name}: {len(corpus.train):,} examples, {total} steps of {trainer.config.batch_size}")
        trainer.model.train()
        for first in range(0, total, every):
            end = min(first + every, total)
            began = time.perf_counter()
            for step in range(first, end):
                trainer.step(trainer.data.batch(step))
            measures = {} if steps else assess(trainer)[1]
            middle = time.perf_counter()
            twin.steps(first, end)
            accuracy = None if steps else twin.accuracy()
            seconds += middle - began, time.perf_counter() - middle
            if accuracy is not None:
                ours = measures[trainer.config.METRICS[0]]
                print(f"  after step {end}: minilm {ours:.4f}, PyTorch {accuracy:.4f}")
        print(f"  seconds: minilm {seconds[0]:.1f}, PyTorch {seconds[1]:.1f}; share {seconds[0] / seconds[1]:.2f}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the folder of a pretrained BERT")
    parser.add_argument("--classify", type=Path, help="a TSV, CSV or JSON lines file of labelled texts")
    parser.add_argument("--tag", type=Path, help="a CoNLL or CoNLL-U file")
    parser.add_argument("--steps", type=int, default=0, help="only so many steps, without tests; 0 for all")
    given = parser.parse_args()
    for name in ("classify", "tag"):
        if getattr(given, name) is not None:
            compare(name, given.model, getattr(given, name), given.steps)


if __name__ == "__main__":
    main()
