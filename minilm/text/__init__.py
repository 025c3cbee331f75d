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
    kind = model.get("type", "BPE" if "merges" in model else None)  # GPT-2's own file has no type
    if kind not in kinds:
        raise DataError(f"{path}: the model is {kind!r}; known are {', '.join(map(repr, kinds))}")
    return kinds[kind].from_json(content, str(path))
