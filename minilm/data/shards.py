"""A corpus as a folder of token files, read as one sequence.

    DIR/shard-00000.bin, ...   token files, of one piece of the input each (see cutting.py)
    DIR/tokenizer.json         the tokenizer
    DIR/index.json             what the shards are, with checksums; written last: with it the folder is whole

`minilm tokenize` (tokenize_files in sharding.py) makes one.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.tokenfile import TokenFile
from minilm.errors import DataError
from minilm.files import checksum, written_whole
from minilm.text import load_tokenizer
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.text.tokenizer import Tokenizer

INDEX = "index.json"
VERSION = 1
OPEN_AT_A_TIME = 256  # each memory map holds a file open, and a process may have 1024

Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Shard:
    """A line of the index.

    Attributes:
        file: its name in the folder; None where deduplication left nothing. tokens: how many.
        sha256: of the file. source, start, end: the bytes start .. end - 1 of that file are its text.
    """

    file: str | None
    tokens: int
    sha256: str | None
    source: str
    start: int
    end: int


def write_index(folder: Path, tokenizer: Tokenizer, plan: Mapping[str, Any], shards: Sequence[Shard]) -> None:
    """Write index.json, whole or not at all. Errors: OSError."""
    content = {
        "version": VERSION,
        "fingerprint": tokenizer.fingerprint.hex(),
        "vocab_size": tokenizer.vocab_size,
        "tokens": sum(shard.tokens for shard in shards),
        "plan": plan,
        "shards": [asdict(shard) for shard in shards],
    }
    with written_whole(folder / INDEX) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())


def read_index(folder: Path) -> dict[str, Any]:
    """What `write_index` wrote, with `Shard`s. Errors: DataError, naming the file."""
    path = folder / INDEX
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["version"] != VERSION:
            raise DataError(f"{path}: has version {content['version']}; this minilm reads version {VERSION}")
        shards = content["shards"] = [Shard(**shard) for shard in content["shards"]]
        bytes.fromhex(content["fingerprint"])
        if content["tokens"] != sum(shard.tokens for shard in shards) or content["tokens"] < 1:
            raise DataError(f"{path}: its shards do not have the {content['tokens']} tokens that it says")
    except FileNotFoundError:
        what = "this is a folder without index.json" if folder.is_dir() else "there is no such folder"
        raise DataError(f"{folder}: {what}; `minilm tokenize` makes one, and writes that file last") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise (
            error if isinstance(error, DataError) else DataError(f"{path}: is no index of shards ({error!r})")
        ) from None
    return content


class ShardedTokens:
    """The tokens of all shards of a folder as one sequence of shape (N,), uint8, uint16 or uint32.

    An index gives a number, a slice or an array of indices an array of its shape. Shards are mapped
    into memory when they are first asked for; a slice inside one shard copies nothing. `window` gives
    a part of the sequence without reading any of it.

    Errors: DataError, naming the file, for an index or a shard that is missing, damaged in its length
    or header, or of another tokenizer; IndexError outside -N .. N - 1. What is damaged further inside
    only `verify` sees.
    """

    ndim = 1

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)
        index = read_index(self.path)
        self.shards: list[Shard] = [shard for shard in index["shards"] if shard.file is not None]
        self.vocab_size: int = index["vocab_size"]
        self.fingerprint = bytes.fromhex(index["fingerprint"])
        self.dtype = np.dtype(np.min_scalar_type(max(self.vocab_size - 1, 0)))
        self._ends = np.array(list(accumulate(shard.tokens for shard in self.shards)))
        self._starts = self._ends - [shard.tokens for shard in self.shards]
        self._open: dict[int, TokenFile] = {}
        self._begin, self._end = 0, int(self._ends[-1])

    def window(self, start: int, stop: int) -> ShardedTokens:
        """The tokens start .. stop - 1 as a sequence of its own, as slicing counts them."""
        start, stop, _ = slice(start, stop).indices(len(self))
        part = object.__new__(type(self))
        part.__dict__.update(self.__dict__, _begin=self._begin + start, _end=self._begin + max(start, stop))
        return part

    @property
    def shape(self) -> tuple[int]:
        """(N,)."""
        return (len(self),)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder. Errors: DataError if it is not the one that wrote the shards."""
        tokenizer = load_tokenizer(self.path / TOKENIZER)
        if tokenizer.fingerprint != self.fingerprint:
            raise DataError(f"{self.path / TOKENIZER}: is another tokenizer than the one that wrote the shards")
        return tokenizer

    def verify(self) -> str:
        """Read every shard and compare its checksum; the SHA-256 of all checksums, which stands for all tokens.

        Errors: DataError naming the first shard whose content is not what was written.
        """
        digest = hashlib.sha256(self.fingerprint)
        for number, shard in enumerate(self.shards):
            path = self._file(number).path
            if (found := checksum(path)) != shard.sha256:
                raise DataError(f"{path}: is damaged: its SHA-256 is {found[:12]}, was {str(shard.sha256)[:12]}")
            digest.update(bytes.fromhex(found))
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._end - self._begin

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._range(self._begin + start, self._begin + max(start, stop))
            index = np.arange(start, stop, step)
        if not isinstance(index, np.ndarray):
            return self._gather(np.array([operator.index(index)]))[0]
        return self._gather(index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self[:], dtype, copy=copy)

    def __repr__(self) -> str:
        return f"ShardedTokens({str(self.path)!r}, {len(self)} tokens, {len(self.shards)} shards, {self.dtype})"

    def _range(self, start: int, stop: int) -> Tokens:
        first = int(np.searchsorted(self._ends, start, side="right"))
        parts = []
        while start < stop:
            offset = int(self._starts[first])
            parts.append(self._file(first).tokens[start - offset : stop - offset])
            start, first = int(self._ends[first]), first + 1
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else np.empty(0, self.dtype)

    def _gather(self, indices: NDArray[Any]) -> Tokens:
        if indices.dtype.kind not in "iu":
            raise IndexError(f"ShardedTokens: an index is an integer, a slice or integers, not {indices.dtype}")
        outside = (indices < -len(self)) | (indices >= len(self))
        if outside.any():
            raise IndexError(f"ShardedTokens: there is no token {indices[outside].flat[0]} among {len(self)}")
        places = np.where(indices < 0, indices + len(self), indices).astype(np.int64) + self._begin
        numbers = np.searchsorted(self._ends, places, side="right")
        result = np.empty(indices.shape, self.dtype)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            result[here] = self._file(number).tokens[places[here] - self._starts[number]]
        return result

    def _file(self, number: int) -> TokenFile:
        if number not in self._open:
            shard = self.shards[number]
            file = TokenFile(self.path / str(shard.file))
            if (len(file), file.fingerprint, file.dtype) != (shard.tokens, self.fingerprint, self.dtype):
                raise DataError(f"{file.path}: is not the shard of {shard.tokens} tokens that {INDEX} speaks of")
            if len(self._open) >= OPEN_AT_A_TIME:
                del self._open[next(iter(self._open))]
            self._open[number] = file
        return self._open[number]
