"""A run from a text to a folder: what `minilm train`, `demo` and `pretrain-bert` do, without the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from minilm import __version__, random
from minilm.errors import CheckpointError, ConfigError
from minilm.files import LOCK, locked
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.train.checkpoint import (
    FOLDER,
    config_of,
    newest,
    restore,
    run_folder,
    save_checkpoint,
)
from minilm.train.config import FILE_NAME as CONFIG
from minilm.train.config import RunConfig
from minilm.train.corpus import SHARDS, TOKENS, Places
from minilm.train.finetuning.corpus import Source
from minilm.train.finetuning.results import FILES as FINETUNED
from minilm.train.observers import COSTS, LOG, TENSORBOARD, TIMING
from minilm.train.picture import FILE_NAME as PICTURE
from minilm.train.pretraining import PRETRAINED, SENTENCES
from minilm.train.tasks import config_from, task
from minilm.train.trainer import Trainer

# What a run writes into its folder.
FILES = (
    FOLDER,
    CONFIG,
    TOKENIZER,
    TOKENS,
    SENTENCES,
    SHARDS,
    LOG,
    TIMING,
    COSTS,
    PICTURE,
    TENSORBOARD,
    PRETRAINED,
    *FINETUNED,
)

# What may differ between a run and its continuation without making it another run.
_MAY_CHANGE = (
    *("steps", "eval_every", "eval_batches", "sample_every", "sample_length", "log_every", "patience", "on_nan"),
    *("checkpoint_every", "keep_checkpoints", "micro_batch_size"),
)


def new_run(
    source: str | os.PathLike[str] | Places | Source | None,
    folder: Path,
    config: RunConfig,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Trainer, Any]:
    """A trainer for a fresh run in `folder`, which is made, and its corpus; `config` says of which kind it is.

    `source` None is the Shakespeare that ships. It may be a folder of shards too, or pairs of such folders and weights;
    their tokens are not copied. Fine-tuning takes a Source.

    From the moment that this returns, the folder holds a whole run, at step 0; when it fails, nothing is left of it.

    Errors: CheckpointError if `folder` holds a file that the run would overwrite, such as another run's;
    DataError for a text that cannot be used; OSError for a folder that cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file, and a run needs a folder")
    if taken(folder) == FOLDER:
        raise CheckpointError(
            f"{folder}: holds a run already, which stays as it is; go on with it by --resume, or name another folder"
        )
    if taken(folder):
        raise CheckpointError(f"{folder}: holds a {taken(folder)}, which a run would overwrite; name another folder")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            corpus = task(config.task).corpus.prepare(source, folder, config, progress)
            data = corpus.data(config)
            config = corpus.completed(config)
            config.save(folder)
            random.manual_seed(config.seed)
            trainer = Trainer(_model(config, corpus), data, config, folder)
            config.begin(trainer.model)
            if hasattr(corpus, "start"):
                corpus.start(trainer.model)
            trainer.data_checksum = corpus.checksum()
            save_checkpoint(trainer, folder)
    except BaseException:
        with contextlib.suppress(OSError):  # here and below: the error that is on its way says more
            shutil.rmtree(folder / FOLDER)
        for name in (*FILES, LOCK):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return trainer, corpus


def _model(config: RunConfig, corpus: Any) -> Any:
    try:
        model = task(config.task).model(config.model)
    except (ValueError, OverflowError) as error:  # NumPy's, for more than an array can hold
        raise ConfigError(f"the model cannot be built: {error}") from None
    if hasattr(corpus, "prepared"):
        corpus.prepared(model)
    return model


def taken(folder: Path) -> str | None:
    """The first of a run's files that is in `folder` already; None if there is none."""
    return next((name for name in FILES if (folder / name).exists()), None)


def continued_run(folder: Path, settings: Mapping[str, Any], allow: Collection[str] = ()) -> tuple[Trainer, Any]:
    """A trainer that goes on with the run in `folder`.

    Args:
        settings: changes of the configuration, of those that leave the run the same run: more steps, how
            often it is looked at, how many examples are in memory at a time.
        allow: differences to put up with: "data" that have changed, another "version" of minilm.
    Errors: CheckpointError, DataError for a folder that is no whole run, or whose data or minilm are others than they
    were; ConfigError for another change; LockedError if another process trains it.
    """
    for key in settings:
        if key not in _MAY_CHANGE:
            raise ConfigError(
                f"{key} cannot change when a run goes on, since it would be another run; {', '.join(_MAY_CHANGE)} can"
            )
    trainer, corpus = restored_run(folder, settings=settings, allow=allow)
    config, progress = trainer.config, trainer.progress
    if progress.stopped and config.patience and progress.worse < config.patience:
        progress.stopped = False
    if progress.done:
        raise ConfigError(
            f"the run is at step {progress.step} of {config.steps}: there is nothing left to do; "
            f"for more: --set steps={2 * config.steps}"
        )
    with locked(folder):
        config.save(folder)
        if settings:  # the steps from here on are this configuration's: a replay must find it
            save_checkpoint(trainer, folder)
    return trainer, corpus


def restored_run(
    folder: Path, until: int | None = None, settings: Mapping[str, Any] | None = None, allow: Collection[str] = ()
) -> tuple[Trainer, Any]:
    """A trainer as the newest checkpoint of the run in `folder` left it; nothing in the folder is changed.

    Args:
        until: the newest checkpoint of at most so many steps. settings, allow, errors: as `continued_run`.
    """
    path, tensors, record = newest(run_folder(folder), until)
    config = config_from({**config_of(path, record).to_dict(), **(settings or {})})
    corpus = task(config.task).corpus.load(folder, config)
    trainer = Trainer(_model(config, corpus), corpus.data(config), config, folder)
    trainer.data_checksum = corpus.checksum()
    if record.get("data") != trainer.data_checksum and "data" not in allow:
        raise CheckpointError(
            f"{corpus.name}: is not what the run learnt from (checksum {trainer.data_checksum[:12]}, was "
            f"{str(record.get('data'))[:12]}); to go on with it all the same: --allow data"
        )
    if record.get("minilm") != __version__ and "version" not in allow:
        raise CheckpointError(
            f"{path}: was written by minilm {record.get('minilm')}, and this is {__version__}, which may compute other "
            "bits; to go on all the same: --allow version"
        )
    restore(trainer, path, tensors, record)
    return trainer, corpus
