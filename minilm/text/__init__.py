"""Tokenizers: text to token numbers and back."""

from __future__ import annotations

import os

from minilm.errors import DataError
from minilm.text.bpe import BPETokenizer
from minilm.text.char import CharTokenizer
from minilm.text.tokenizer import StreamDecoder, Tokenizer, parse, read_file

__all__ = ["BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load a tokenizer.json (the file or its folder), whichever kind it is.

    Errors: DataError, naming the file, if it is missing or holds a kind that minilm does not know.
    """
    content = read_file(path)
    model = parse(content, str(path))["model"]
    kinds: dict[object, type[Tokenizer]] = {"WordLevel": CharTokenizer, "BPE": BPETokenizer}
    if model.get("type") not in kinds:
        raise DataError(
            f"{path}: the model is {model.get('type')!r}; known are {', '.join(map(repr, kinds))}"
        )
    return kinds[model["type"]].from_json(content, str(path))
