"""A run from a text to a folder: what `minilm train` and `minilm demo` do, without the command line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from minilm import random
from minilm.errors import CheckpointError, ConfigError
from minilm.models.gpt import GPT
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.train.checkpoint import FILE_NAME, read_config, resume, save_checkpoint, with_vocabulary
from minilm.train.config import FILE_NAME as CONFIG
from minilm.train.config import TrainConfig
from minilm.train.corpus import TOKENS, Corpus
from minilm.train.observers import LOG
from minilm.train.picture import FILE_NAME as PICTURE
from minilm.train.trainer import Trainer

FILES = (FILE_NAME, CONFIG, TOKENIZER, TOKENS, LOG, PICTURE)  # what a run writes into its folder

# What may differ between a run and its continuation without making it another run.
_MAY_CHANGE = ("steps", "eval_every", "eval_batches", "sample_every", "sample_length", "checkpoint_every", "log_every")


def new_run(
    source: str | os.PathLike[str] | None,
    folder: Path,
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Trainer, Corpus]:
    """A trainer for a fresh run in `folder`, which is made; `source` None is the Shakespeare that ships.

    From the moment that this returns, the folder holds a whole run, at step 0; when it fails, nothing is left of it.

    Errors: CheckpointError if `folder` holds a file that the run would overwrite, such as another run's;
    DataError for a text that cannot be used; OSError for a folder that cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file, and a run needs a folder")
    if taken(folder) == FILE_NAME:
        raise CheckpointError(
            f"{folder}: holds a run already, which stays as it is; go on with it by --resume, or name another folder"
        )
    if taken(folder):
        raise CheckpointError(f"{folder}: holds a {taken(folder)}, which a run would overwrite; name another folder")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        corpus = Corpus.prepare(source, folder, config, progress)
        blocks = corpus.blocks(config.model.block_size)
        config.model = with_vocabulary(config, corpus.tokenizer.vocab_size)
        config.save(folder)
        random.manual_seed(config.seed)
        trainer = Trainer(_model(config), *blocks, config, folder)
        save_checkpoint(trainer, folder)
    except BaseException:
        for name in FILES:
            with contextlib.suppress(OSError):  # here and below: the error that is on its way says more
                (folder / name).unlink()
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return trainer, corpus


def _model(config: TrainConfig) -> GPT:
    try:
        return GPT(config.model)
    except (ValueError, OverflowError) as error:  # NumPy's, for more than an array can hold
        raise ConfigError(f"the model cannot be built: {error}") from None


def taken(folder: Path) -> str | None:
    """The first of a run's files that is in `folder` already; None if there is none."""
    return next((name for name in FILES if (folder / name).exists()), None)


def continued_run(folder: Path, settings: Mapping[str, Any]) -> tuple[Trainer, Corpus]:
    """A trainer that goes on with the run in `folder`.

    Args:
        settings: changes of the configuration, of those that leave the run the same run: more steps, and how
            often it is looked at.
    Errors: CheckpointError, DataError for a folder that is no whole run; ConfigError for another change.
    """
    config = read_config(folder)
    for key in settings:
        if key not in _MAY_CHANGE:
            raise ConfigError(
                f"{key} cannot change when a run goes on, since it would be another run; {', '.join(_MAY_CHANGE)} can"
            )
    config = TrainConfig.from_dict({**config.to_dict(), **settings})
    corpus = Corpus.load(folder, config)
    trainer = Trainer(GPT(config.model), *corpus.blocks(config.model.block_size), config, folder)
    resume(trainer, folder)
    if trainer.progress.step >= config.steps:
        raise ConfigError(
            f"the run is at step {trainer.progress.step} of {config.steps}: there is nothing left to do; "
            f"for more: --set steps={2 * config.steps}"
        )
    config.save(folder)
    return trainer, corpus
