"""What every tokenizer can do, and decoding token by token."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole

FILE_NAME = "tokenizer.json"

Ids = Sequence[int] | NDArray[np.integer[Any]]
T = TypeVar("T", bound="Tokenizer")


class Tokenizer(ABC):
    """Text to token numbers and back. `decode(encode(text)) == text` for all that `encode` takes, but for BERT's kind.

    Files are in the format of the `tokenizers` library (`tokenizer.json`), which loads them and
    gives the same numbers.
    """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """V, the number of tokens; every id is in 0 .. V - 1."""

    @abstractmethod
    def encode_array(self, text: str) -> NDArray[np.unsignedinteger[Any]]:
        """The token ids of `text`, shape (N,), in `self.dtype`."""

    @abstractmethod
    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """Encode adjacent parts of one text; joined, the arrays equal `encode_array` of the whole.

        Holds one part in memory at a time (and, for word-based kinds, the last word before it).
        """

    @abstractmethod
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as written in tokenizer.json; None if there is none."""

    @abstractmethod
    def id_to_token(self, index: int) -> str | None:
        """The token of an id, as written in tokenizer.json; None if there is none."""

    @abstractmethod
    def token_bytes(self, index: int) -> bytes:
        """The UTF-8 bytes that a token stands for, possibly only part of a character."""

    @abstractmethod
    def to_json(self) -> str:
        """The content of tokenizer.json."""

    @classmethod
    @abstractmethod
    def from_json(cls: type[T], content: str, source: str = FILE_NAME) -> T:
        """The inverse of `to_json`; `source` names the file in a DataError."""

    @abstractmethod
    def _identity(self) -> object:
        """All that decides which ids a text gets, as plain JSON values."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """The smallest unsigned integer type that holds every id: uint8, uint16 or uint32."""
        return np.dtype(np.min_scalar_type(max(self.vocab_size - 1, 0)))

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 (32 bytes) of what decides the ids: equal for tokenizers that encode alike."""
        plain = json.dumps(self._identity(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(plain.encode()).digest()

    def encode(self, text: str) -> list[int]:
        """The token ids of `text` as a list."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def decode(self, ids: Ids) -> str:
        """The text of token ids; bytes that form no character become U+FFFD.

        Errors: DataError for an id outside 0 .. V - 1.
        """
        return b"".join(map(self.token_bytes, self._checked(ids).tolist())).decode("utf-8", "replace")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write tokenizer.json to `path`, or into it if it is a folder; whole or not at all."""
        with written_whole(_file(path)) as file:
            file.write(self.to_json().encode("utf-8"))

    @classmethod
    def load(cls: type[T], path: str | os.PathLike[str]) -> T:
        """Read what `save` wrote, from a file or from the folder that holds it.

        Errors: DataError, naming the file, if it is missing or is no tokenizer of this kind.
        """
        return cls.from_json(read_file(path), str(_file(path)))

    def _checked(self, ids: Ids) -> NDArray[np.integer[Any]]:
        array = np.asarray(ids)
        if array.size == 0:
            return array.reshape(-1).astype(np.int64)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise DataError(f"decode: ids must be integers in one dimension, not {array.dtype} {array.shape}")
        for bad in (array.min(), array.max()):
            if not 0 <= bad < self.vocab_size:
                raise DataError(f"decode: id {bad} is outside the vocabulary of {self.vocab_size} tokens")
        return array

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size})"


class StreamDecoder:
    """Decode while ids arrive: text comes out as soon as its characters are whole.

    A byte-level token may hold half a character; it is kept until the other half arrives. All
    that `feed` and `flush` gave, joined, equals `tokenizer.decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: int | Ids) -> str:
        """Take one id or several; give the text that is now certain, perhaps ""."""
        several = self.tokenizer._checked(np.atleast_1d(np.asarray(ids)))
        return self._decoder.decode(b"".join(map(self.tokenizer.token_bytes, several.tolist())))

    def flush(self) -> str:
        """The end: a character left half becomes U+FFFD. The decoder can then be used anew."""
        return self._decoder.decode(b"", final=True)


def _file(path: str | os.PathLike[str]) -> Path:
    return Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)


def read_file(path: str | os.PathLike[str]) -> str:
    """The content of a tokenizer.json, given the file or its folder; DataError if unreadable."""
    file = _file(path)
    try:
        return file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise DataError(f"{file}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a tokenizer ({error})") from None


def parse(content: str, source: str) -> dict[str, Any]:
    """tokenizer.json as a dictionary with a "model" dictionary in it; DataError otherwise."""
    try:
        data = json.loads(content)
    except ValueError as error:
        raise DataError(f"{source}: is not JSON ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise DataError(f'{source}: has no "model", so it is no tokenizer.json')
    return data


def check_surrogates(text: str) -> None:
    """Errors: DataError for a lone surrogate, naming it and its position."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = f"U+{ord(text[error.start]):04X} at position {error.start}"
        raise DataError(f"{where} is a lone surrogate, no character") from None
