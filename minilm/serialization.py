"""Tensors in files: safetensors, which any framework reads and in which nothing can be executed.

A file appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as _to_bytes

from minilm.errors import CheckpointError
from minilm.files import written_whole
from minilm.tensor import Tensor

READABLE = ("BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64")  # safetensors' names of types


def save(tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors (or arrays) by name to `path`, with texts beside them.

    Tensors that share memory, such as tied weights, are written once for each name.
    Errors: OSError of the file system, with what stood at `path` untouched.
    """
    arrays = {
        name: np.ascontiguousarray(t.detach().numpy() if isinstance(t, Tensor) else t) for name, t in tensors.items()
    }
    # ascontiguousarray makes a 0-d array 1-d
    arrays = {
        name: array.reshape(np.shape(getattr(tensors[name], "array", tensors[name]))) for name, array in arrays.items()
    }
    content = _to_bytes(arrays, dict(metadata) if metadata else None)  # an empty dict can spoil the header
    with written_whole(path) as file:
        file.write(content)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Errors: CheckpointError that names the file and what is wrong."""
    return load_with_metadata(path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The texts of a safetensors file alone. Errors: CheckpointError for a file that is missing, cut or none."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: it cannot be read as safetensors, perhaps it was cut short ({error})") from None


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the texts of a safetensors file.

    The header is checked as a whole before anything is allocated: sizes, offsets that overlap or leave the file.
    Numbers of the type bfloat16, which NumPy lacks, become float32, which holds them exactly.

    Errors: CheckpointError for a file that is missing, truncated or no safetensors file, and for
    weights that are not finite.
    """
    place = Path(path)
    if not place.is_file():
        raise CheckpointError(f"{place}: there is no such file")
    try:
        with safe_open(place, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: Tensor(_array(file, place, name)) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{place}: it cannot be read as safetensors, perhaps it was cut short ({error})"
        ) from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not np.isfinite(tensor.array).all():
            raise CheckpointError(f"{place}: the tensor {name} holds NaN or infinity")
    return tensors, metadata


def _array(file: Any, place: Path, name: str) -> Any:
    """One tensor of an open file whose header was found to be whole."""
    dtype = file.get_slice(name).get_dtype()
    if dtype not in READABLE:
        raise CheckpointError(f"{place}: {name} is of a type of numbers that minilm does not read, {dtype}")
    if dtype != "BF16":
        return np.array(file.get_tensor(name))
    with place.open("rb") as raw:  # the library gives NumPy no bfloat16: the upper half of a float32
        size = int.from_bytes(raw.read(8), "little")
        header = json.loads(raw.read(size))[name]
        begin, end = header["data_offsets"]
        raw.seek(8 + size + begin)
        upper = np.frombuffer(raw.read(end - begin), "<u2")
    return (upper.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(header["shape"])
