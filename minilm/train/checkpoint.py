"""Checkpoints: one file with all that a run needs to go on as if it had never stopped.

    RUN/checkpoint.safetensors   weights, the optimiser's memory, where the run stands
    RUN/config.json              the run's TrainConfig
    RUN/tokenizer.json           how text becomes tokens
    RUN/tokens.bin               the corpus as tokens

The checkpoint is written beside its place and renamed: there is always a whole one, the new or the old.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import CheckpointError, ConfigError, MinilmError
from minilm.models.gpt import GPT, GPTConfig
from minilm.serialization import load_with_metadata, save
from minilm.tensor import Tensor
from minilm.text import load_tokenizer
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.text.tokenizer import Tokenizer
from minilm.train.config import TrainConfig
from minilm.train.trainer import DivergedError, Progress, Trainer

FILE_NAME = "checkpoint.safetensors"
VERSION = 1
_MODEL, _OPTIMIZER = "model.", "optimizer."


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write the trainer's state to `folder`.

    Errors: OSError, and DivergedError for a state that is not finite, with the old checkpoint untouched.
    """
    tensors = {_MODEL + name: tensor for name, tensor in _distinct(trainer.model).items()}
    steps: dict[str, int] = {}
    for number, memory in trainer.optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{number}.{name}"] = value
            else:
                steps[f"{number}.{name}"] = value
    p = trainer.progress
    for name, tensor in tensors.items():
        if not np.isfinite(tensor.array).all():
            raise DivergedError(f"{name} holds NaN or infinity at step {p.step}: the run diverged, nothing is saved")
    record = {
        "version": VERSION,
        "config": trainer.config.to_dict(),
        "model": trainer.model.config.to_dict(),
        "optimizer": steps,
        "progress": {"step": p.step, "loss": _finite(p.loss), "validation_loss": p.validation_loss,
                     "seconds": p.seconds, "recent": p.recent},
    }  # fmt: skip
    save(tensors, folder / FILE_NAME, {"minilm": json.dumps(record)})


def load_run(folder: str | os.PathLike[str]) -> tuple[GPT, Tokenizer]:
    """The model and tokenizer of a run, ready to generate.

    Errors: CheckpointError or DataError that names the file that is missing, cut short or does not fit.
    """
    place = _folder(folder)
    tensors, record = _read(place)
    model = _model(place, tensors, record)
    tokenizer = load_tokenizer(place / TOKENIZER)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"{place}: the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}"
        )
    return model.eval(), tokenizer


def read_config(folder: str | os.PathLike[str]) -> TrainConfig:
    """The configuration that the checkpoint in `folder` was written with. Errors: as `load_run`."""
    place = _folder(folder)
    return _config(place, _read(place)[1])


def resume(trainer: Trainer, folder: str | os.PathLike[str]) -> None:
    """Put weights, optimiser and progress of a checkpoint into a fresh trainer, which then goes on from there.

    Errors: CheckpointError that names the file and what does not fit; nothing is changed then.
    """
    place = _folder(folder)
    tensors, record = _read(place)
    if record["model"] != trainer.model.config.to_dict():
        differing = [k for k, v in trainer.model.config.to_dict().items() if record["model"].get(k) != v]
        raise CheckpointError(
            f"{place / FILE_NAME}: holds a model with another {', '.join(differing)} than the one to be resumed"
        )
    weights = _weights(place, trainer.model, tensors)
    try:
        progress = _progress(record["progress"], trainer.config.steps)
        trainer.optimizer.load_state_dict(
            {
                "state": _optimizer_memory(tensors, record["optimizer"]),
                "param_groups": trainer.optimizer.state_dict()["param_groups"],
            }
        )
    except (MinilmError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place / FILE_NAME}: where the run stood cannot be read: {error}") from None
    trainer.model.load_state_dict(weights)
    trainer.progress = progress


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


def _progress(p: dict[str, Any], steps: int) -> Progress:
    return Progress(
        step=int(p["step"]),
        steps=steps,
        loss=float("nan") if p["loss"] is None else p["loss"],
        validation_loss=p["validation_loss"],
        seconds=p["seconds"],
        recent=list(p["recent"]),
    )


def _distinct(model: GPT) -> dict[str, Tensor]:
    """The model's tensors, tied ones once, under the first of their names."""
    seen: dict[int, str] = {}
    return {
        name: tensor for name, tensor in model.state_dict().items() if seen.setdefault(id(tensor.array), name) == name
    }


def _weights(place: Path, model: GPT, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state for `load_state_dict`, tied names filled in. Errors: CheckpointError for a missing tensor or shape."""
    own = model.state_dict()
    first: dict[int, str] = {}
    weights = {}
    for name, tensor in own.items():
        source = _MODEL + first.setdefault(id(tensor.array), name)
        if source not in tensors:
            raise CheckpointError(f"{place / FILE_NAME}: the tensor {source} is missing")
        if tensors[source].shape != tensor.shape:
            raise CheckpointError(
                f"{place / FILE_NAME}: {source} has shape {tensors[source].shape}, the model needs {tensor.shape}"
            )
        weights[name] = tensors[source]
    return weights


def _folder(folder: str | os.PathLike[str]) -> Path:
    place = Path(folder)
    if not place.is_dir():
        raise CheckpointError(f"{place}: there is no such folder; a run is the folder that training wrote")
    if not (place / FILE_NAME).is_file():
        raise CheckpointError(f"{place}: holds no {FILE_NAME}, so it is no run of minilm's")
    return place


def _read(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = load_with_metadata(place / FILE_NAME)
    try:
        record = json.loads(metadata["minilm"])
        version = record["version"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{place / FILE_NAME}: was not written by minilm's training") from None
    if version != VERSION:
        raise CheckpointError(f"{place / FILE_NAME}: is of version {version}; this minilm reads version {VERSION}")
    for part in ("config", "model", "optimizer", "progress"):
        if not isinstance(record.get(part), dict):
            raise CheckpointError(f"{place / FILE_NAME}: its record has no {part}")
    return tensors, record


def _config(place: Path, record: dict[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.from_dict(record["config"])
    except (ConfigError, KeyError) as error:
        raise CheckpointError(f"{place / FILE_NAME}: its configuration cannot be used: {error}") from None


def _model(place: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> GPT:
    try:
        model = GPT(GPTConfig.from_dict(record["model"]))
    except (MinilmError, KeyError) as error:
        raise CheckpointError(f"{place / FILE_NAME}: its model cannot be built: {error}") from None
    model.load_state_dict(_weights(place, model, tensors))
    return model


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if value == value else None


def with_vocabulary(config: TrainConfig, vocab_size: int) -> GPTConfig:
    """The model's shape with the tokenizer's number of tokens."""
    return replace(config.model, vocab_size=vocab_size)
