"""A tokenizer whose tokens are characters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.text.tokenizer import FILE_NAME, Ids, Tokenizer, parse

# One match per character, newlines too: the library's WordLevel model then sees single characters.
EACH_CHARACTER = {
    "type": "Split",
    "pattern": {"Regex": "[\\s\\S]"},
    "behavior": "Isolated",
    "invert": False,
}


class CharTokenizer(Tokenizer):
    """One token per Unicode character (code point); ids count the characters in code-point order.

    `unknown`, if given, is one more token, with the last id, for every character that is not in the
    vocabulary; it decodes to its own name. Without it such a character is a DataError.
    """

    def __init__(self, characters: Iterable[str], unknown: str | None = None) -> None:
        characters = list(characters)
        _check_characters(characters, unknown)
        tokens = characters + ([] if unknown is None else [unknown])
        self.unknown = unknown
        self._tokens = tokens
        self._ids = {token: i for i, token in enumerate(tokens)}
        self._bytes = [token.encode("utf-8") for token in tokens]

        self._code_points = np.array([ord(c) for c in characters], dtype="<u4")
        # One entry beyond the largest code point: `take` clips all larger ones to it.
        self._id_of_code = np.full(int(self._code_points.max()) + 2, -1, dtype=np.int32)
        self._id_of_code[self._code_points] = np.arange(len(characters))

    @classmethod
    def train(cls, texts: str | Iterable[str], unknown: str | None = None) -> CharTokenizer:
        """The vocabulary of a text, or of several: their characters, sorted.

        Errors: DataError if there is no character at all, or a lone surrogate.
        """
        seen = np.zeros(0x110000, dtype=bool)
        for text in [texts] if isinstance(texts, str) else texts:
            seen[_code_points(text)] = True
        if not seen.any():
            raise DataError("CharTokenizer.train: the text is empty, so there is no vocabulary")
        return cls([chr(code) for code in np.flatnonzero(seen)], unknown)

    @property
    def vocab_size(self) -> int:
        """V: the characters, and `unknown` if there is one."""
        return len(self._tokens)

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger[Any]]:
        """The token ids of `text`, shape (N,) for N characters.

        Errors: DataError for a character outside the vocabulary, naming it and its position
        (counted from 0), unless there is an `unknown` token.
        """
        return self._encode(text, 0)

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """Encode adjacent parts of one text; positions in errors count from its beginning."""
        position = 0
        for chunk in chunks:
            yield self._encode(chunk, position)
            position += len(chunk)

    def _encode(self, text: str, position: int) -> NDArray[np.unsignedinteger[Any]]:
        ids = self._id_of_code.take(_code_points(text), mode="clip")
        if ids.size and ids.min() < 0:
            missing = ids < 0
            if self.unknown is None:
                first = int(missing.argmax())
                raise DataError(
                    f"character {text[first]!r} (U+{ord(text[first]):04X}) at position "
                    f"{position + first} is not in the vocabulary of {self.vocab_size} characters"
                )
            ids[missing] = self.vocab_size - 1
        return ids.astype(self.dtype)

    def decode(self, ids: Ids) -> str:
        """The text of token ids. Errors: DataError for an id outside 0 .. V - 1."""
        array = self._checked(ids)
        if self.unknown is not None and (array == self.vocab_size - 1).any():
            return "".join(map(self._tokens.__getitem__, array.tolist()))
        packed: bytes = self._code_points[array].tobytes()
        return packed.decode("utf-32-le")

    def token_to_id(self, token: str) -> int | None:
        """The id of a character, or of `unknown`; None if it is not in the vocabulary."""
        return self._ids.get(token)

    def id_to_token(self, index: int) -> str | None:
        """The character of an id; None outside 0 .. V - 1."""
        return self._tokens[index] if 0 <= index < len(self._tokens) else None

    def token_bytes(self, index: int) -> bytes:
        """The UTF-8 bytes of a character: always a whole one."""
        return self._bytes[index]

    def to_json(self) -> str:
        """A tokenizer.json: the library's WordLevel model over single characters.

        Without an `unknown` token the library, too, refuses a foreign character: it looks for its
        `unk_token`, a name that no vocabulary of single characters holds.
        """
        return json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": EACH_CHARACTER,
                "post_processor": None,
                "decoder": {"type": "Fuse"},
                "model": {
                    "type": "WordLevel",
                    "vocab": self._ids,
                    "unk_token": "<unk>" if self.unknown is None else self.unknown,
                },
            },
            ensure_ascii=False,
            indent=2,
        )

    @classmethod
    def from_json(cls, content: str, source: str = FILE_NAME) -> CharTokenizer:
        """The inverse of `to_json`. Errors: DataError naming `source`."""
        data = parse(content, source)
        model = data["model"]
        vocab = model.get("vocab")
        if model.get("type") != "WordLevel" or data.get("pre_tokenizer") != EACH_CHARACTER:
            raise DataError(f"{source}: is not a character tokenizer ({model.get('type')} model)")
        if (
            not isinstance(vocab, dict)
            or any(type(i) is not int for i in vocab.values())
            or sorted(vocab.values()) != list(range(len(vocab)))
        ):
            raise DataError(f"{source}: the vocabulary does not number its tokens 0, 1, 2, ...")
        tokens = sorted(vocab, key=vocab.__getitem__)
        unknown = model.get("unk_token") if model.get("unk_token") in vocab else None
        if unknown is not None and tokens.pop() != unknown:
            raise DataError(f"{source}: the unknown token {unknown!r} must have the last id")
        try:
            return cls(tokens, unknown)
        except DataError as error:
            raise DataError(f"{source}: {error}") from None

    def _identity(self) -> object:
        return {"kind": "char", "tokens": self._tokens}


def _code_points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _check_characters(characters: list[str], unknown: str | None) -> None:
    if not characters:
        raise DataError("CharTokenizer: a vocabulary needs at least one character")
    for token in characters:
        if len(token) != 1:
            raise DataError(f"CharTokenizer: token {token!r} is {len(token)} characters, not 1")
        if "\ud800" <= token <= "\udfff":
            raise DataError(f"CharTokenizer: U+{ord(token):04X} is a lone surrogate, no character")
    if characters != sorted(set(characters)):
        raise DataError("CharTokenizer: characters must be sorted and each there once")
    if unknown is not None and (len(unknown) < 2 or unknown != unknown.strip()):
        raise DataError(
            f"CharTokenizer: unknown is {unknown!r}; it needs at least 2 characters, so that it "
            "differs from every character, and no blanks at its ends"
        )
