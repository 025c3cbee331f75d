"""Byte-level byte-pair encoding, as in GPT-2, over the `tokenizers` library."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.text.reading import PIECE, cut_pieces, read_chunks, word_pieces
from minilm.text.tokenizer import FILE_NAME, Tokenizer, check_surrogates, parse

if TYPE_CHECKING:
    import tokenizers


class BPETokenizer(Tokenizer):
    """Frequent byte sequences are tokens; all 256 bytes are, so any Unicode text can be encoded.

    Text is first cut into words by GPT-2's pattern, each word's bytes are tokens, and the pairs in
    the learned list of merges are joined, earliest merge first. No normalisation and no prefix
    space: `decode(encode(text)) == text`.

    A special token written out in the text (`<|endoftext|>`) is encoded as that one token, as the
    `tokenizers` library does.

    Source: Sennrich, Haddow & Birch 2016, algorithm 1; Radford et al. 2019, section 2.2.
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str = FILE_NAME) -> None:
        data = parse(backend.to_str(), source)
        _check_scheme(data, source)
        self._backend = backend
        self._data = data
        self._special = {token["content"]: token["id"] for token in data["added_tokens"]}
        self._bytes = _token_bytes(data, self._special, source)

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = ("<|endoftext|>",),
        min_frequency: int = 2,
    ) -> BPETokenizer:
        """Learn merges from a text or from several, until there are `vocab_size` tokens.

        Special tokens get the first ids, then the 256 bytes, then the merges. Fewer tokens come out
        when no pair is left that occurs `min_frequency` times.

        Errors: DataError if `vocab_size` is less than 256 and the special tokens, if a special
        token is empty, repeated or has a blank in it, or if there is no text.
        """
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, pre_tokenizers, trainers

        _check_training(vocab_size, special_tokens)
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=list(special_tokens),
            initial_alphabet=sorted(_byte_of_symbol()),
            show_progress=False,
        )
        counted = _NotEmpty([texts] if isinstance(texts, str) else texts)
        backend.train_from_iterator(counted, trainer)
        if not counted.characters:
            raise DataError("BPETokenizer.train: the text is empty, so there is nothing to learn")
        return cls(backend)

    @classmethod
    def train_files(
        cls,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Sequence[str] = ("<|endoftext|>",),
        min_frequency: int = 2,
    ) -> BPETokenizer:
        """`train` on UTF-8 files of any size, read in parts that end at words."""
        several = [paths] if isinstance(paths, str | os.PathLike) else paths
        texts = (piece for path in several for piece in word_pieces(read_chunks(path)))
        return cls.train(texts, vocab_size, special_tokens, min_frequency)

    @property
    def vocab_size(self) -> int:
        """V: bytes, merges and special tokens."""
        return len(self._bytes)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Each special token and its id."""
        return dict(self._special)

    def encode_array(self, text: str) -> NDArray[np.unsignedinteger[Any]]:
        """The token ids of `text`, shape (N,). Errors: DataError for a lone surrogate."""
        try:
            batch = self._backend.encode_batch_fast(list(cut_pieces(text, PIECE)), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            check_surrogates(text)
            raise
        if not batch:
            return np.empty(0, self.dtype)
        return np.concatenate([np.array(encoding.ids, self.dtype) for encoding in batch])

    def encode_chunks(self, chunks: Iterable[str]) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        """Encode adjacent parts of one text, regrouped at words: any parts give the same ids."""
        return map(self.encode_array, word_pieces(chunks))

    def token_to_id(self, token: str) -> int | None:
        """The id of a token in GPT-2's byte alphabet ("Ġthe" is " the"), or of a special one."""
        index: int | None = self._backend.token_to_id(token)
        return index

    def id_to_token(self, index: int) -> str | None:
        """The token of an id in GPT-2's byte alphabet; None outside 0 .. V - 1."""
        if not 0 <= index < self.vocab_size:
            return None
        token: str | None = self._backend.id_to_token(index)
        return token

    def token_bytes(self, index: int) -> bytes:
        """The bytes of a token, perhaps only part of a character."""
        return self._bytes[index]

    def to_json(self) -> str:
        """The content of tokenizer.json, as the library writes it."""
        content: str = self._backend.to_str(pretty=True)
        return content

    @classmethod
    def from_json(cls, content: str, source: str = FILE_NAME) -> BPETokenizer:
        """The inverse of `to_json`; also takes GPT-2's own file. Errors: DataError."""
        from tokenizers import Tokenizer as Backend

        try:
            backend = Backend.from_str(content)
        except Exception as error:  # the library raises bare Exceptions
            raise DataError(f"{source}: the tokenizers library refuses it: {error}") from None
        return cls(backend, source)

    def _identity(self) -> object:
        model = self._data["model"]
        pairs = [m.split(" ") if isinstance(m, str) else list(m) for m in model["merges"]]
        return {"kind": "bpe", "vocab": model["vocab"], "merges": pairs, "special": self._special}


@cache
def _byte_of_symbol() -> dict[str, int]:
    """GPT-2's alphabet: printable Latin-1 bytes stand for themselves, others for 256, 257, ..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    symbols = {chr(byte): byte for byte in printable}
    return symbols | {chr(256 + i): byte for i, byte in enumerate(others)}


def _token_bytes(data: dict[str, Any], special: dict[str, int], source: str) -> list[bytes]:
    table = _byte_of_symbol()
    by_id = {i: token for token, i in data["model"]["vocab"].items()}
    by_id |= {i: token for token, i in special.items()}
    if sorted(by_id) != list(range(len(by_id))):
        raise DataError(f"{source}: the vocabulary does not number its tokens 0, 1, 2, ...")
    special_ids = set(special.values())
    rows = []
    for i in range(len(by_id)):
        token = by_id[i]
        if i in special_ids:
            rows.append(token.encode("utf-8"))
        elif all(symbol in table for symbol in token):
            rows.append(bytes(table[symbol] for symbol in token))
        else:
            raise DataError(f"{source}: token {token!r} (id {i}) is not in the byte alphabet")
    missing = len(table.keys() - data["model"]["vocab"].keys())
    if missing:
        raise DataError(f"{source}: {missing} of the 256 bytes have no token")
    return rows


def _check_scheme(data: dict[str, Any], source: str) -> None:
    """Only what the exact round trip, and cutting text at words, rest on."""
    model, before = data["model"], data.get("pre_tokenizer") or {}
    problems = [
        (model.get("type") != "BPE", f"the model is {model.get('type')}, not BPE"),
        (data.get("normalizer") is not None, "it normalises the text"),
        (before.get("type") != "ByteLevel", f"the pre-tokenizer is {before.get('type')}"),
        (bool(before.get("add_prefix_space")), "it adds a space before the text"),
        (not before.get("use_regex", True), "it does not cut the text into words"),
        (bool(model.get("dropout")), "it drops merges at random"),
    ]
    for token in data.get("added_tokens") or []:
        content = token["content"]
        spoilt = bool(token.get("rstrip") or token.get("lstrip")) or _has_blank(content)
        problems.append((spoilt, f"its token {content!r} takes in blanks"))
    for wrong, why in problems:
        if wrong:
            raise DataError(f"{source}: is not a byte-level BPE tokenizer like GPT-2's: {why}")


def _check_training(vocab_size: int, special_tokens: Sequence[str]) -> None:
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise DataError(
            f"BPETokenizer.train: vocab_size is {vocab_size}; 256 bytes and "
            f"{len(special_tokens)} special tokens need at least {least}"
        )
    if len(set(special_tokens)) != len(special_tokens):
        raise DataError(f"BPETokenizer.train: a special token is repeated in {special_tokens}")
    for token in special_tokens:
        if len(token) < 2 or _has_blank(token):
            raise DataError(f"BPETokenizer.train: special token {token!r} needs at least 2 characters, no blank")


def _has_blank(token: str) -> bool:
    return any(character.isspace() for character in token)


class _NotEmpty:
    """Pass texts on and count their characters; the library itself trains on nothing gladly."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.characters += len(text)
            yield text
