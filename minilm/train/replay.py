"""Any step of a run once more: its batch, its weights before and after, its loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import ConfigError
from minilm.modes import no_grad
from minilm.train.batches import Batch
from minilm.train.corpus import Corpus
from minilm.train.objective import mean_loss
from minilm.train.run import restored_run
from minilm.train.trainer import Trainer, precision


@dataclass
class Replay:
    """A step that was done again.

    Attributes:
        trainer: with the weights after the step; `trainer.progress` has its loss and the gradient's norm.
        corpus: the run's, to decode the batch.
        batch: what the step learnt from. losses: of each example, with the weights before the step.
        loss: of the step. started_from: the step of the checkpoint that the way there began at.
    """

    trainer: Trainer
    corpus: Corpus
    batch: Batch
    losses: list[float]
    loss: float
    started_from: int


def replay(folder: Path, step: int) -> Replay:
    """Do the steps from the nearest checkpoint up to `step` (1 is the first) again, to the same bits; writes nothing.

    Errors: ConfigError for a step that the run has not done or that is none; CheckpointError for a folder without run.
    """
    done = restored_run(folder)[0].progress.step
    if not 1 <= step <= done:
        raise ConfigError(f"step {step} cannot be replayed: the run has done steps 1 to {done}")
    trainer, corpus = restored_run(folder, until=step - 1)
    started_from = trainer.progress.step
    with precision(trainer.config.precision), np.errstate(all="ignore"):
        while trainer.progress.step < step - 1:
            trainer.step(trainer.data.batch(trainer.progress.step))
        batch = trainer.data.batch(step - 1)
        losses = _losses(trainer.model, batch)
        trainer.progress.recent.clear()
        trainer.step(batch)
    return Replay(trainer, corpus, batch, losses, trainer.progress.recent[-1], started_from)


def _losses(model: Any, batch: Batch) -> list[float]:
    """The loss of each example, without dropout."""
    model.eval()
    with no_grad():
        found = [mean_loss(model, [tuple(x[i : i + 1] for x in batch)]) for i in range(len(batch[0]))]
    model.train()
    return found


def render(found: Replay, examples: int = 3) -> str:
    """The step in words, with so many of its examples, those with the greatest loss first."""
    p, order = found.trainer.progress, sorted(range(len(found.losses)), key=lambda i: -found.losses[i])
    lines = [
        f"step {p.step}, from the checkpoint of step {found.started_from}",
        f"  loss {found.loss:.6f}  learning rate {p.learning_rate:.3g}  gradient norm {p.gradient_norm:.6f}",
        f"  the examples' losses, without dropout: {min(found.losses):.3f} to {max(found.losses):.3f}",
    ]
    tokenizer, padding = found.corpus.tokenizer, getattr(found.corpus.tokenizer, "pad_token_id", -1)
    for i in order[: max(examples, 0)]:
        tokens = found.batch[0][i]
        text = tokenizer.decode(tokens[tokens != padding])
        lines += [f"\nexample {i}, loss {found.losses[i]:.6f}", repr(text)]
    return "\n".join(lines)
