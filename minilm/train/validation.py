"""How good a trainer's model is on what it does not learn from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minilm.modes import no_grad
from minilm.train.batches import Batch
from minilm.train.objective import mean_loss, means

if TYPE_CHECKING:
    from minilm.train.trainer import Trainer


def evaluate(trainer: Trainer, batches: int | None = None, seed: int = 0) -> float:
    """The mean validation loss, in nats per target, over `batches` random batches, the same at every call.

    It is that of the averaged weights, if there are any. Errors: DataError for batches without targets.
    """
    with evaluating(trainer):
        return mean_loss(trainer.model, _batches(trainer, batches, seed))


def measure(trainer: Trainer, batches: int | None = None, seed: int = 0) -> dict[str, float]:
    """What else the model and the data measure on the same batches, such as an accuracy; {} where they do not."""
    with evaluating(trainer):
        measuring = [x for x in (trainer.model, trainer.data) if hasattr(x, "measures")]
        return means(measuring, _batches(trainer, batches, seed))


def assess(trainer: Trainer) -> tuple[float, dict[str, float]]:
    """The validation loss and the measures; data that measure the whole at once have an `assess(model)`."""
    if not hasattr(trainer.data, "assess"):
        return trainer.evaluate(), measure(trainer)
    with evaluating(trainer):
        loss, measures = trainer.data.assess(trainer.model)
        return loss, measures


@contextlib.contextmanager
def evaluating(trainer: Trainer) -> Iterator[None]:
    """Within, the model has no dropout, no gradients, and its averaged weights."""
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with no_grad(), trainer.averaged():
            yield
    finally:
        trainer.model.train(was_training)


def _batches(trainer: Trainer, count: int | None, seed: int) -> Iterator[Batch]:
    return (trainer.data.validation(index, seed) for index in range(count or trainer.config.eval_batches))
