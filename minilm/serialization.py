"""Tensors in files: safetensors, which any framework reads and in which nothing can be executed.

    8 bytes   the length of the header, little-endian
    header    JSON: {"__metadata__": texts, NAME: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    tensors   one after the other, little-endian, in C order; their offsets count from here

A file appears whole or not at all: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from minilm.errors import CheckpointError
from minilm.files import written_whole
from minilm.tensor import Tensor

PIECE_BYTES, SYNC_BYTES = 4 << 20, 64 << 20
TYPES = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "complex64": "C64", "bool": "BOOL"},
    **{f"{kind}int{bits}": f"{'U' if kind else 'I'}{bits}" for kind in ("", "u") for bits in (8, 16, 32, 64)},
}  # the format's names of NumPy's types
READABLE = ("BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64")  # safetensors' names of types


def save(
    tensors: Mapping[str, Any],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write tensors (or arrays) by name to `path`, with texts beside them.

    Tensors that share memory, such as tied weights, are written once for each name. What is written is brought to the
    disk every 64 MiB, and not copied before.

    Args:
        progress: called with the number of bytes whenever some were written.
    Errors: CheckpointError for a type of numbers that the format lacks; OSError of the file system, with what stood at
    `path` untouched.
    """
    arrays = {name: np.asarray(t.detach().numpy() if isinstance(t, Tensor) else t) for name, t in tensors.items()}
    names = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))  # so that each is aligned
    with written_whole(path) as file:
        file.write(_header({name: arrays[name] for name in names}, metadata))
        unsynced = 0
        for piece in (piece for name in names for piece in pieces(arrays[name])):
            file.write(piece)
            unsynced += len(piece)
            if unsynced >= SYNC_BYTES:  # else all of the waiting comes at the end, where nobody sees how far it is
                file.flush()
                os.fsync(file.fileno())
                unsynced = 0
            if progress is not None:
                progress(len(piece))


def pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    """An array's bytes, little-endian and in C order, in pieces of at most 4 MiB."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    if array.size:  # else there is no memory to view
        content = array.reshape(-1).view(np.uint8).data
        for first in range(0, len(content), PIECE_BYTES):
            yield content[first : first + PIECE_BYTES]


def _header(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None) -> bytes:
    """The length of a JSON text, 8 bytes, then that text: where each tensor lies after it; a multiple of 8 in all."""
    described: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, array in arrays.items():
        if array.dtype.name not in TYPES or name == "__metadata__":
            raise CheckpointError(f"{name} of type {array.dtype} cannot be written as safetensors")
        span = [offset, offset + array.nbytes]
        described[name] = {"dtype": TYPES[array.dtype.name], "shape": array.shape, "data_offsets": span}
        offset += array.nbytes
    text = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


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
