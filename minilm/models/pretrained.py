"""Models in Hugging Face's directories: config.json and model.safetensors, read and written.

What stands in the file and what the model has must agree by name and shape. What does not is listed: weights of the
encoder that are missing, and shapes that do not fit, are errors; a head that is new, or one that is left over, as when
a pretrained encoder gets a classifier, is a warning. Nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from minilm import nn
from minilm.errors import CheckpointError, ConfigError
from minilm.files import written_whole
from minilm.models.hub import found
from minilm.modes import no_grad
from minilm.nn.state import state_tensors
from minilm.serialization import load, save
from minilm.tensor import Tensor

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

M = TypeVar("M", bound="PretrainedModel")


class PretrainedWarning(UserWarning):
    """Not all weights came from the file, or not all went into the model."""


@dataclass
class LoadingReport:
    """What did not agree between a file and a model.

    Attributes:
        missing_keys: weights that the file lacks; they have new initial values.
        unexpected_keys: weights in the file that the model lacks.
        mismatched_keys: (name, shape in the file, shape in the model).
    """

    missing_keys: list[str] = field(default_factory=list)
    unexpected_keys: list[str] = field(default_factory=list)
    mismatched_keys: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = field(default_factory=list)

    def __str__(self) -> str:
        misfits = [f"{name} {there}, not {here}" for name, there, here in self.mismatched_keys]
        parts = {
            "missing, with new initial values": self.missing_keys,
            "not of this model, left out": self.unexpected_keys,
            "of another shape": misfits,
        }
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names)


class PretrainedModel(nn.Module):
    """A model that is read from and written to Hugging Face's directories; it is made of a `config`.

    Attributes:
        prefix: what the names of the body's weights begin with, in a model with a head.
        body: how they go on: those that no one trains anew, so that one that is missing is an error.
        beside_body: how others below the prefix begin, which may be missing.
        made: how the names end of what a model makes itself, and a file may lack. unwritten: of what it never holds.
        constants: names in older files, which are no weights.
    """

    config_class: Any = None
    config: Any
    prefix = "bert."
    body: tuple[str, ...] = ("embeddings.", "encoder.")
    beside_body: tuple[str, ...] = ("pooler.",)
    made: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()
    constants: tuple[str, ...] = ("embeddings.position_ids", "embeddings.token_type_ids")

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def initialise(self, part: nn.Module) -> None:
        """New initial values for a part of the model."""
        initialise(part, self.config)

    def meet(self, weights: Mapping[str, Tensor]) -> None:
        """Take the form that a file's weights need, before they are copied."""

    @classmethod
    def from_pretrained(
        cls: type[M],
        name: str | os.PathLike[str],
        *,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **settings: Any,
    ) -> Any:
        """The model of a directory, or of a name on Hugging Face's hub, in evaluation mode; numbers become float32.

        Args:
            name: a folder with config.json and model.safetensors (or its shards); else a name such as
                "bert-base-uncased", looked for in the local cache, then downloaded if huggingface_hub is installed.
            ignore_mismatched_sizes: give weights of another shape new initial values, as for a head of other classes.
            output_loading_info: return (model, LoadingReport).
            settings: keys of the configuration that shall differ, as num_labels=3.

        Warns: PretrainedWarning that lists what was missing or left over.
        Errors: CheckpointError for files that are missing, damaged or do not fit, ConfigError for the configuration.
        """
        folder = found(name)
        config = read_config(folder, cls.config_class, settings)
        with nn.init.undrawn():
            model = cls(config)
        weights = read_weights(folder)
        model.meet(weights)
        report = fill(model, weights, str(folder), ignore_mismatched_sizes)
        if str(report):
            warnings.warn(f"{folder} and {cls.__name__}: {report}", PretrainedWarning, stacklevel=2)
        model.eval()
        return (model, report) if output_loading_info else model

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, which transformers reads too, into `folder`; it is made if need be.

        Tied weights are written once. Errors: OSError of the file system; each file is whole, the old one or the new.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        config = {"architectures": [type(self).__name__], **self.config.to_dict(), "dtype": _dtype(self)}
        config["architectures"] = [type(self).__name__]
        config.pop("torch_dtype", None)  # the older name of the same
        text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        weights = {names[0]: tensor for names, tensor in _distinct(self) if not names[0].endswith(self.unwritten)}
        save(weights, place / WEIGHTS, {"format": "pt"})  # what transformers wants to read there
        with written_whole(place / CONFIG, "w") as file:
            file.write(text)


def read_config(folder: Path, kind: Any, settings: Mapping[str, Any]) -> Any:
    """The configuration in a folder, changed by `settings`. Errors: CheckpointError, ConfigError, naming the file."""
    place = folder / CONFIG
    values = read_json(place)
    if "id2label" in settings or settings.get("num_labels", 0) not in (0, len(values.get("id2label") or ())):
        for key in ("num_labels", "id2label", "label2id"):  # the file's speak of other labels
            values.pop(key, None)
    try:
        return kind.from_dict({**values, **settings})
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a folder, of one file or of the shards that an index names. Errors: CheckpointError."""
    if (folder / WEIGHTS).is_file():
        return load(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise CheckpointError(_no_weights(folder))
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{folder / INDEX}: has no weight_map from names to files")
    weights: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if name != Path(name).name:
            raise CheckpointError(f"{folder / INDEX}: names a file elsewhere, {name!r}")
        shard = load(folder / name)
        twice = set(shard) & set(weights)
        if twice:
            raise CheckpointError(f"{folder / name}: {min(twice)} stands in another shard too")
        weights.update(shard)
    absent = sorted(set(places) - set(weights))
    if absent:
        raise CheckpointError(f"{folder / INDEX}: its shards lack {', '.join(absent)}")
    return weights


def fill(model: PretrainedModel, weights: Mapping[str, Tensor], source: str, ignore_mismatched: bool) -> LoadingReport:
    """Copy weights by name into a model; all is checked before anything is changed.

    Errors: CheckpointError that lists the body's weights that are missing, and those of another shape.
    """
    report, places = LoadingReport(), _distinct(model)
    own = {name for names, _ in places for name in names}
    given = _renamed(model, weights, own, source)
    taken: list[tuple[Tensor, Tensor]] = []
    for names, tensor in places:
        there = [name for name in names if name in given]  # tied weights may stand under any of their names
        if not there:
            report.missing_keys += [] if names[0].endswith(model.made) else [names[0]]
        elif given[there[0]].shape != tensor.shape:
            report.mismatched_keys.append((there[0], given[there[0]].shape, tensor.shape))
        else:
            taken.append((tensor, given[there[0]]))
            report.unexpected_keys += [
                name for name in there[1:] if not np.array_equal(given[name].array, given[there[0]].array)
            ]
    report.unexpected_keys += [name for name in given if name not in own]
    lost = [name for name in report.missing_keys if name.removeprefix(model.prefix).startswith(model.body)]
    if lost or (report.mismatched_keys and not ignore_mismatched):
        faults = LoadingReport(lost, [], [] if ignore_mismatched else report.mismatched_keys)
        words = str(faults).replace("missing, with new initial values", "missing")
        unknown = f"; unexpected: {', '.join(report.unexpected_keys)}" if lost and report.unexpected_keys else ""
        advice = "; ignore_mismatched_sizes=True gives these new values" if faults.mismatched_keys else ""
        raise CheckpointError(f"{source}: does not fit {type(model).__name__}: {words}{unknown}{advice}")
    for name in report.missing_keys + [name for name, *_ in report.mismatched_keys]:
        model.initialise(model.get_submodule(name.rpartition(".")[0]))
    with no_grad():
        for tensor, value in taken:
            tensor.copy_(value)
    return report


def initialise(module: nn.Module, config: Any) -> None:
    """Initial values: normal with standard deviation `initializer_range`, biases 0, and 0 for padding's row."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=config.initializer_range)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            part.weight.array[part.padding_idx] = 0


def _distinct(model: nn.Module) -> list[tuple[list[str], Tensor]]:
    """The model's tensors, each once, with all names it has."""
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in state_tensors(model).items():
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def _renamed(model: PretrainedModel, weights: Mapping[str, Tensor], own: set[str], source: str) -> dict[str, Tensor]:
    """The weights under the names that the model `own`s: of older layouts, with or without the body's prefix."""
    prefix = model.prefix
    wanted = any(name.startswith(prefix) for name in own)
    there = any(name.startswith(prefix) for name in weights)
    renamed: dict[str, Tensor] = {}
    for old, tensor in weights.items():
        name = old
        for ending, modern in OLD_NAMES.items():
            name = name.removesuffix(ending) + modern if name.endswith(ending) else name
        if there and not wanted:
            name = name.removeprefix(prefix)
        elif wanted and not there and name.startswith(model.body + model.beside_body):
            name = prefix + name
        if name.removeprefix(prefix) in model.constants:
            continue
        if name in renamed:
            raise CheckpointError(f"{source}: two weights are called {name}, one of them by an older name")
        renamed[name] = tensor
    return renamed


def _no_weights(folder: Path) -> str:
    """Why a folder without safetensors cannot be read, and what to do."""
    if (folder / "pytorch_model.bin").is_file():
        return (
            f"{folder}: only pytorch_model.bin is here, a pickle, which may run anything. Convert it with PyTorch: "
            'python -c "import torch, safetensors.torch as s; '
            "w = torch.load('pytorch_model.bin', map_location='cpu', weights_only=True); "
            "s.save_file({n: t.clone().contiguous() for n, t in w.items()}, 'model.safetensors')\""
        )
    if any(folder.glob("*.ckpt*")) or (folder / "tf_model.h5").is_file():
        return (
            f"{folder}: a TensorFlow checkpoint. Convert it (pip install 'transformers<4.50' torch tensorflow): "
            'python -c "from transformers import BertConfig, BertForPreTraining; '
            "from transformers.models.bert.modeling_bert import load_tf_weights_in_bert; "
            "c = BertConfig.from_json_file('bert_config.json'); m = BertForPreTraining(c); "
            "load_tf_weights_in_bert(m, c, 'bert_model.ckpt'); m.save_pretrained('converted')\""
        )
    return f"{folder}: there is no {WEIGHTS} in it, and no {INDEX}"


def read_json(path: Path) -> dict[str, Any]:
    """A file that holds a JSON object. Errors: CheckpointError that names it."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: it cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: a group of keys was expected, not {type(values).__name__}")
    return values


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype)
