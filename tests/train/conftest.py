"""Runs small enough to be trained many times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minilm.train import LogFile, TrainConfig, Trainer
from minilm.train.run import new_run

TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 40
SMALL = {
    "model.block_size": 8,
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 8,
    "batch_size": 3,
    "steps": 24,
    "warmup_steps": 4,
    "eval_every": 5,
    "eval_batches": 2,
    "log_every": 3,
    "checkpoint_every": 7,
    "sample_every": 0,
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file with a text."""
    path = tmp_path / "cat.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def settings_of_small() -> list[str]:
    """The same for the command line."""
    return [f"--set={name}={value}" for name, value in SMALL.items()]


@pytest.fixture(scope="session")
def small() -> Callable[..., TrainConfig]:
    """small(steps=5): the configuration of a small run."""
    return lambda **settings: TrainConfig.build(None, {**SMALL, **settings})


@pytest.fixture
def begin(text: Path, tmp_path: Path, small: Callable[..., TrainConfig]) -> Callable[..., Trainer]:
    """begin("name", steps=5): the trainer of a small new run, with a log."""

    def begin(name: str = "run", source: Path = text, **settings: object) -> Trainer:
        trainer, _ = new_run(source, tmp_path / name, small(**settings))
        trainer.observers = [LogFile(tmp_path / name)]
        return trainer

    return begin


class StopAfter:
    """Asks to end after so many micro-batches."""

    def __init__(self, trainer: Trainer, micro_batches: int) -> None:
        self.trainer, self.left, self.loss = trainer, micro_batches, trainer.model.loss
        trainer.model.loss = self.counted

    def counted(self, *batch: Any) -> Any:
        """The model's loss; the last one asks to end."""
        if self.trainer.model.training:
            self.left -= 1
            self.trainer.interrupted |= self.left == 0
        return self.loss(*batch)


@pytest.fixture(scope="session")
def stop_after() -> type[StopAfter]:
    """stop_after(trainer, 5): the trainer ends after five micro-batches."""
    return StopAfter
