"""Tokenizers: text to token numbers and back."""

from __future__ import annotations

import os
from pathlib import Path

from minilm.errors import DataError
from minilm.text.batch_encoding import BatchEncoding
from minilm.text.bert_files import VOCAB
from minilm.text.bpe import BPETokenizer
from minilm.text.char import CharTokenizer
from minilm.text.tokenizer import FILE_NAME, StreamDecoder, Tokenizer, parse, read_file
from minilm.text.wordpiece import BertTokenizer

__all__ = [
    "BPETokenizer",
    "BatchEncoding",
    "BertTokenizer",
    "CharTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "load_tokenizer",
]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Load a tokenizer.json (the file or its folder), whichever kind it is; or a folder with BERT's vocab.txt alone.

    Errors: DataError, naming the file, if it is missing or holds a kind that minilm does not know.
    """
    if Path(path).is_dir() and not (Path(path) / FILE_NAME).exists() and (Path(path) / VOCAB).exists():
        return BertTokenizer.from_pretrained(path)
    content = read_file(path)
    model = parse(content, str(path))["model"]
    kinds: dict[object, type[Tokenizer]] = {"WordLevel": CharTokenizer, "BPE": BPETokenizer, "WordPiece": BertTokenizer}
    # Older files have no type: GPT-2's own is known by its merges, BERT's by the mark of pieces within words.
    untyped = "BPE" if "merges" in model else "WordPiece" if "continuing_subword_prefix" in model else None
    kind = model.get("type", untyped)
    if kind not in kinds:
        raise DataError(f"{path}: the model is {kind!r}; known are {', '.join(map(repr, kinds))}")
    if kind == "WordPiece":
        return BertTokenizer.from_pretrained(path)  # with what stands in the files beside
    return kinds[kind].from_json(content, str(path))
