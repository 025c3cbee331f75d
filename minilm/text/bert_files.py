"""The files of a BERT tokenizer: vocab.txt, tokenizer_config.json and the like in tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minilm.errors import DataError
from minilm.text.reading import read_text
from minilm.text.tokenizer import FILE_NAME, parse

VOCAB, CONFIG, SPECIAL = "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"
UNLIMITED = 10**20  # a length that is none: transformers writes 1e30 where nobody said one


@dataclass
class BertSettings:
    """All that decides what a BERT tokenizer does, beside its vocabulary. Names are transformers'."""

    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: as do_lower_case
    tokenize_chinese_chars: bool = True
    clean_text: bool = True
    max_input_chars_per_word: int = 100
    model_max_length: int = int(1e30)
    unk_token: str = "[UNK]"
    sep_token: str = "[SEP]"
    pad_token: str = "[PAD]"
    cls_token: str = "[CLS]"
    mask_token: str = "[MASK]"
    # As in tokenizer.json: {"id", "content", "special", "single_word", "lstrip", "rstrip", "normalized"}.
    added_tokens: list[dict[str, Any]] = field(default_factory=list)

    def special_tokens(self) -> dict[str, str]:
        """The five special tokens by their role, in transformers' order."""
        names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
        return {name: getattr(self, name) for name in names}

    def update(self, config: Mapping[str, Any], source: str) -> None:
        """Take over what a tokenizer_config.json says. Errors: DataError for a value of the wrong type."""
        kinds = {"strip_accents": bool | None, "model_max_length": int | float | None}
        kinds |= dict.fromkeys(("do_lower_case", "tokenize_chinese_chars"), bool)
        for name, kind in kinds.items():
            if name in config:
                if not isinstance(config[name], kind):
                    raise DataError(f"{source}: {name} is {config[name]!r}")
                setattr(self, name, config[name])
        self.model_max_length = int(1e30) if self.model_max_length is None else int(self.model_max_length)
        for name in self.special_tokens():
            token = config.get(name)
            if token is not None:
                content = token.get("content") if isinstance(token, dict) else token
                if not isinstance(content, str) or not content:
                    raise DataError(f"{source}: {name} is {token!r}")
                setattr(self, name, content)


def read_pretrained(path: Path) -> tuple[dict[str, int], BertSettings, str]:
    """Vocabulary, settings and the file they come from, for a folder, a vocab.txt or a tokenizer.json.

    A folder's tokenizer.json comes before its vocab.txt; what tokenizer_config.json (or special_tokens_map.json)
    says comes before what tokenizer.json says, as in transformers.

    Errors: DataError, naming the file.
    """
    folder = path if path.is_dir() else path.parent
    file = path
    if path.is_dir():
        file = next((folder / name for name in (FILE_NAME, VOCAB) if (folder / name).exists()), path)
        if file == path:
            raise DataError(f"{path}: there is neither {FILE_NAME} nor {VOCAB} in this folder")
    config: dict[str, Any] = {}
    for name in (SPECIAL, CONFIG):
        if (folder / name).exists():
            config |= _read_object(folder / name)
    if file.suffix == ".json":
        vocab, settings = from_tokenizer_json(read_text(file), str(file))
    else:
        vocab, settings = read_vocab(file), BertSettings()
        known = config.get("added_tokens_decoder") or {}
        settings.added_tokens = [{**token, "id": int(i)} for i, token in known.items()]
    settings.update(config, str(folder / CONFIG))
    return vocab, settings, str(file)


def read_vocab(path: Path) -> dict[str, int]:
    """vocab.txt: one token a line, ids count the lines from 0. Errors: DataError for a token that is there twice."""
    lines = read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    vocab: dict[str, int] = {}
    for i, token in enumerate(lines):
        if token in vocab:
            raise DataError(f"{path}: line {i + 1}: the token {token!r} is on line {vocab[token] + 1} already")
        vocab[token] = i
    return vocab


def from_tokenizer_json(content: str, source: str) -> tuple[dict[str, int], BertSettings]:
    """Vocabulary and settings of a tokenizer.json; DataError if it is no BERT tokenizer's."""
    data = parse(content, source)
    model, normalizer = data["model"], data.get("normalizer") or {}
    before, vocab = data.get("pre_tokenizer") or {}, model.get("vocab")
    prefix = model.get("continuing_subword_prefix")
    problems = [
        (model.get("type", "WordPiece") != "WordPiece", f"the model is {model.get('type')}, not WordPiece"),
        (prefix != "##", f"pieces within a word begin with {prefix!r}, not '##'"),
        (normalizer.get("type") != "BertNormalizer", f"the normalizer is {normalizer.get('type')}"),
        (before.get("type") != "BertPreTokenizer", f"the pre-tokenizer is {before.get('type')}"),
        (not isinstance(vocab, dict), "it has no vocabulary"),
    ]
    for wrong, why in problems:
        if wrong:
            raise DataError(f"{source}: is not a BERT tokenizer: {why}")
    return vocab, BertSettings(
        do_lower_case=normalizer.get("lowercase", True),
        strip_accents=normalizer.get("strip_accents"),
        tokenize_chinese_chars=normalizer.get("handle_chinese_chars", True),
        clean_text=normalizer.get("clean_text", True),
        max_input_chars_per_word=model.get("max_input_chars_per_word", 100),
        unk_token=model.get("unk_token", "[UNK]"),
        added_tokens=data.get("added_tokens") or [],
    )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: is not a JSON object")
    return data
