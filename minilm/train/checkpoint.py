"""Checkpoints: each a file with all that a run needs to go on as if it had never stopped.

    RUN/checkpoints/step-00000500.safetensors   weights, the optimiser's memory, where the run stands
    RUN/config.json                             the run's RunConfig
    RUN/tokenizer.json                          how text becomes tokens
    RUN/tokens.bin                              the corpus as tokens

A checkpoint is written beside its place, brought to the disk and renamed, so there is always a whole one; and it
carries a checksum, so that one which the disk has spoilt since is known, and the one before it serves.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from minilm import __version__
from minilm.errors import CheckpointError, ConfigError, DamagedError, MinilmError
from minilm.serialization import load_metadata, load_with_metadata, pieces, save
from minilm.tensor import Tensor
from minilm.text import load_tokenizer
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.text.tokenizer import Tokenizer
from minilm.train.config import RunConfig
from minilm.train.progress import Progress
from minilm.train.tasks import config_from, task
from minilm.train.trainer import DivergedError, Trainer

FOLDER = "checkpoints"
VERSION = 2
_NAME = re.compile(r"step-(\d+)(?:\+(\d+))?\.safetensors")
_MODEL, _OPTIMIZER, _AVERAGE, _GRADIENT = "model.", "optimizer.", "average.", "gradient."
_CARRIED = "carried"  # the state that a recurrent model goes on with


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, and an older one serves in its place."""


def save_checkpoint(trainer: Trainer, folder: Path, progress: Callable[[float], None] | None = None) -> Path:
    """Write the trainer's state to `folder`, then remove checkpoints that are no longer to be kept.

    The newest `config.keep_checkpoints` are kept, the first, and the one with the best validation loss.

    Args:
        progress: called again and again with the share that is done, from 0 to 1.
    Errors: OSError, and DivergedError for a state that is not finite, with the old checkpoints untouched.
    """
    p = trainer.progress
    if p.evaluated_at == p.step and not p.worse:
        p.best_checkpoint = p.step
    tensors, counts = _state(trainer)
    for name, tensor in tensors.items():
        if not np.isfinite(tensor.array).all():
            raise DivergedError(f"{name} holds NaN or infinity at step {p.step}: the run diverged, nothing is saved")
    record = json.dumps(
        {
            "version": VERSION,
            "minilm": __version__,
            "data": trainer.data_checksum,
            "config": trainer.config.to_dict(),
            "model": trainer.model.config.to_dict(),
            "optimizer": counts,
            "progress": p.to_dict(),
        }
    )
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    path = place / f"step-{p.step:08d}{f'+{p.examples}' if p.examples else ''}.safetensors"
    total, done = 2 * sum(tensor.array.nbytes for tensor in tensors.values()), 0  # each byte is hashed and written

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress is not None:
            progress(done / total)

    save(tensors, path, {"minilm": record, "sha256": _checksum(tensors, record, count)}, count)
    _remove_old(place, trainer.config.keep_checkpoints, p.best_checkpoint)
    return path


def checkpoints(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints of a run, the newest first."""
    found = [(match, path) for path in (Path(folder) / FOLDER).glob("*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(((int(m[1]), int(m[2] or 0)), path) for m, path in found)][::-1]


def step_of(path: Path) -> int:
    """How many steps were done when a checkpoint was written."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _state(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The trainer's tensors, and its counts, by name."""
    tensors = {_MODEL + name: tensor for name, tensor in _distinct(trainer.model).items()}
    counts: dict[str, int] = {}
    for number, memory in trainer.optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{number}.{name}"] = value
            else:
                counts[f"{number}.{name}"] = value
    if getattr(trainer.model, "carried", None) is not None:
        tensors[_CARRIED] = trainer.model.carried
    if trainer.average is not None:
        tensors.update({f"{_AVERAGE}{i}": Tensor(value) for i, value in enumerate(trainer.average.values)})
        counts["average.updates"] = trainer.average.updates
    if trainer.progress.examples:  # in the middle of a batch
        grads = {f"{_GRADIENT}{i}": p.grad for i, p in enumerate(trainer.model.parameters()) if p.grad is not None}
        tensors.update(grads)
    return tensors, counts


def _checksum(tensors: dict[str, Tensor], record: str, progress: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 over all that a checkpoint holds; `progress` is told the size of each piece."""
    digest = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        array = tensors[name].array
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        for piece in pieces(array):
            digest.update(piece)
            progress(len(piece))
    return digest.hexdigest()


def _remove_old(place: Path, keep: int, best: int | None) -> None:
    """Remove what is neither new, nor the first, nor the best; only after the new one is safe."""
    for path in checkpoints(place.parent)[keep:]:
        if step_of(path) not in (0, best):
            path.unlink(missing_ok=True)


def load_run(folder: str | os.PathLike[str], kinds: Collection[str] | None = None) -> tuple[Any, Tokenizer]:
    """The model and tokenizer of a run, ready to use: with the averaged weights, if the run averaged them.

    Args:
        kinds: the kinds of runs (`tasks.py`) of which it must be one; None for any.
    Errors: CheckpointError or DataError that names the file that is missing, cut short or does not fit.
    """
    place = run_folder(folder)
    path, tensors, record = newest(place)
    config = config_of(path, record)
    if kinds is not None and config.task not in kinds:
        raise CheckpointError(f"{place}: is a run of the kind {config.task}; needed is one of {', '.join(kinds)}")
    model = model_of(path, config, tensors, record)
    tokenizer = load_tokenizer(place / TOKENIZER)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{place}: the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        )
    return model.eval(), tokenizer


def read_config(folder: str | os.PathLike[str]) -> RunConfig:
    """The configuration that the checkpoint in `folder` was written with. Errors: as `load_run`."""
    place = run_folder(folder)
    path, _, record = newest(place)
    return config_of(path, record)


def resume(trainer: Trainer, folder: str | os.PathLike[str]) -> None:
    """Put the newest checkpoint's weights, optimiser and progress into a fresh trainer, which goes on from there.

    Errors: CheckpointError that names the file and what does not fit; nothing is changed then.
    """
    restore(trainer, *newest(run_folder(folder)))


def restore(trainer: Trainer, path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """The same from a checkpoint that was read. Errors: as `resume`."""
    if record["model"] != trainer.model.config.to_dict():
        differing = [k for k, v in trainer.model.config.to_dict().items() if record["model"].get(k) != v]
        raise CheckpointError(f"{path}: holds a model with another {', '.join(differing)} than the one to be resumed")
    weights = _weights(path, trainer.model, tensors)
    parameters = list(trainer.model.parameters())
    try:
        progress = Progress.from_dict(record["progress"], trainer.config.steps)
        average = _numbered(tensors, _AVERAGE, parameters) if trainer.average is not None else []
        held = [i for i in range(len(parameters)) if f"{_GRADIENT}{i}" in tensors]  # others had none yet
        gradients = dict(zip(held, _numbered(tensors, _GRADIENT, parameters, held)))
        updates = record["optimizer"].get("average.updates", 0)
        counts = {name: value for name, value in record["optimizer"].items() if not name.startswith(_AVERAGE)}
        trainer.optimizer.load_state_dict(
            {
                "state": _optimizer_memory(tensors, counts),
                "param_groups": trainer.optimizer.state_dict()["param_groups"],
            }
        )
    except (MinilmError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: where the run stood cannot be read: {error}") from None
    trainer.model.load_state_dict(weights)
    if hasattr(trainer.model, "carried"):
        trainer.model.carried = tensors.get(_CARRIED)
    trainer.progress = progress
    if trainer.average is not None:
        trainer.average.values, trainer.average.updates = [t.array for t in average], updates
    for i, parameter in enumerate(parameters):
        parameter.grad = gradients.get(i)


def _numbered(
    tensors: dict[str, Tensor], prefix: str, parameters: list[Any], which: Iterable[int] | None = None
) -> list[Tensor]:
    """A tensor for each parameter, or for `which` of them. Errors: ValueError for one missing or of another shape."""
    found = []
    for i in range(len(parameters)) if which is None else which:
        tensor = tensors.get(f"{prefix}{i}")
        if tensor is None or tensor.shape != parameters[i].shape:
            raise ValueError(f"the tensor {prefix}{i} is missing or does not fit")
        found.append(tensor)
    return found


def _optimizer_memory(tensors: dict[str, Tensor], steps: dict[str, int]) -> dict[int, dict[str, Any]]:
    """What `save_checkpoint` took from the optimiser, by the number of the parameter."""
    memory: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            number, _, what = name.removeprefix(_OPTIMIZER).partition(".")
            memory.setdefault(int(number), {})[what] = tensor
    for name, value in steps.items():
        number, _, what = name.partition(".")
        memory.setdefault(int(number), {})[what] = value
    return memory


def _distinct(model: Any) -> dict[str, Tensor]:
    """The model's tensors, tied ones once, under the first of their names."""
    seen: dict[int, str] = {}
    return {
        name: tensor for name, tensor in model.state_dict().items() if seen.setdefault(id(tensor.array), name) == name
    }


def _weights(path: Path, model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state for `load_state_dict`, tied names filled in. Errors: CheckpointError for a missing tensor or shape."""
    own = model.state_dict()
    first: dict[int, str] = {}
    weights = {}
    for name, tensor in own.items():
        source = _MODEL + first.setdefault(id(tensor.array), name)
        if source not in tensors:
            raise CheckpointError(f"{path}: the tensor {source} is missing")
        if tensors[source].shape != tensor.shape:
            raise CheckpointError(f"{path}: {source} has shape {tensors[source].shape}, the model needs {tensor.shape}")
        weights[name] = tensors[source]
    return weights


def run_folder(folder: str | os.PathLike[str]) -> Path:
    """`folder` as a path. Errors: CheckpointError if it holds no run."""
    place = Path(folder)
    if not place.is_dir():
        raise CheckpointError(f"{place}: there is no such folder; a run is the folder that training wrote")
    if not checkpoints(place):
        raise CheckpointError(f"{place}: holds no {FOLDER}, so it is no run of minilm's")
    return place


def newest(place: Path, until: int | None = None) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """The newest checkpoint that can be read, its file, tensors and record; a damaged one is passed over, loudly.

    Args:
        until: look only at those at the beginning of a step, of at most so many steps.
    Errors: CheckpointError if there is none.
    """
    damaged: list[DamagedError] = []
    for path in checkpoints(place):
        if until is not None and (step_of(path) > until or "+" in path.name):
            continue
        try:
            found = read_checkpoint(path)
        except DamagedError as error:
            damaged.append(error)
            continue
        for what in damaged:
            warnings.warn(f"{what}; in its place serves {path.name}", CheckpointWarning, stacklevel=3)
        return path, *found
    raise damaged[0] if damaged else CheckpointError(f"{place}: there is no checkpoint of step {until} or before")


def read_record(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors and unchecked. Errors: DamagedError."""
    try:
        record: dict[str, Any] = json.loads(load_metadata(path)["minilm"])
    except (CheckpointError, KeyError, TypeError, ValueError):
        raise DamagedError(f"{path}: is damaged, or was not written by minilm's training") from None
    return record


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of one checkpoint.

    Errors: DamagedError for one that is not as it was written, CheckpointError for one that minilm did not write.
    """
    try:
        tensors, metadata = load_with_metadata(path)
    except CheckpointError as error:
        raise DamagedError(str(error)) from None
    try:
        text = metadata["minilm"]
        record = json.loads(text)
        version = record["version"]
    except (KeyError, TypeError, ValueError):
        raise DamagedError(f"{path}: is damaged, or was not written by minilm's training") from None
    if version != VERSION:
        raise CheckpointError(f"{path}: is of version {version}; this minilm reads version {VERSION}")
    if metadata.get("sha256") != _checksum(tensors, text):
        raise DamagedError(f"{path}: is damaged: its contents are not those that were written (checksum)")
    for part in ("config", "model", "optimizer", "progress"):
        if not isinstance(record.get(part), dict):
            raise CheckpointError(f"{path}: its record has no {part}")
    return tensors, record


def config_of(path: Path, record: dict[str, Any]) -> RunConfig:
    """The configuration in a checkpoint's record. Errors: CheckpointError."""
    try:
        return config_from(record["config"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used: {error}") from None


def model_of(path: Path, config: RunConfig, tensors: dict[str, Tensor], record: dict[str, Any]) -> Any:
    """The model of a checkpoint that was read, averaged weights if the run averages. Errors: CheckpointError."""
    try:
        model = task(config.task).model(type(config.model).from_dict(record["model"]))
    except (MinilmError, KeyError) as error:
        raise CheckpointError(f"{path}: its model cannot be built: {error}") from None
    model.load_state_dict(_weights(path, model, tensors))
    parameters = list(model.parameters())
    if any(name.startswith(_AVERAGE) for name in tensors):
        for parameter, average in zip(parameters, _numbered(tensors, _AVERAGE, parameters)):
            parameter.array[...] = average.array
    return model


def load_best(trainer: Trainer) -> None:
    """Give the trainer's model the weights of the best checkpoint, averaged ones if the run averages.

    Errors: CheckpointError if it is missing or damaged.
    """
    best = trainer.progress.best_checkpoint
    for path in checkpoints(trainer.folder or ""):
        if step_of(path) == best and "+" not in path.name:
            tensors, record = read_checkpoint(path)
            model = model_of(path, trainer.config, tensors, record)
            trainer.model.load_state_dict(model.state_dict())
            return
    raise CheckpointError(f"{trainer.folder}: the best checkpoint, of step {best}, is gone")
