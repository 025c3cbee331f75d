"""The tokens of Marian's and T5's folders that have SentencePiece models and no tokenizer.json.

    Marian: source.spm and target.spm cut texts into pieces, vocab.json numbers the pieces of both
    T5:     spiece.model cuts texts and numbers the pieces; behind them stand <extra_id_99> ... <extra_id_0>

Source: Kudo & Richardson 2018, "SentencePiece". Their library cuts the texts (`pip install 'minilm[sentencepiece]'`).
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import DataError, MissingExtraError
from minilm.files import written_whole
from minilm.text.pair_tokenizer import END, PAD, SETTINGS, UNKNOWN, PairTokenizer

SOURCE, TARGET, VOCAB, ONE = "source.spm", "target.spm", "vocab.json", "spiece.model"
FILES = (SOURCE, TARGET, VOCAB, ONE, SETTINGS, "special_tokens_map.json")
EXTRA = 100  # tokens that a T5 was trained to fill gaps with, unless its settings say how many
SPACE = "\u2581"  # what pieces begin words with
LANGUAGE = re.compile(r">>.*?<<", re.DOTALL)  # the language to translate to, where a Marian knows several


class SentencePiecePairs(PairTokenizer):
    """A PairTokenizer of such a folder. Ids and texts are those of transformers' MarianTokenizer and T5Tokenizer.

    Args:
        files: the folder's files by name, of those in FILES. place: what errors call the folder.
    Errors: DataError for files that are missing or damaged; MissingExtraError without the library.
    """

    def __init__(self, files: dict[str, bytes], place: Path) -> None:
        self._files, self._place = files, place
        settings = self._json(SETTINGS) if SETTINGS in files else {}
        if ONE in files:
            self._source = self._target = self._processor(ONE)
            extra, V = settings.get("extra_ids", EXTRA), self._source.get_piece_size()
            if type(extra) is not int or extra < 0:
                raise DataError(f"{place / SETTINGS}: extra_ids must be at least 0, not {extra!r}")
            ids = {self._source.id_to_piece(index): index for index in range(V)}
            gaps = {f"<extra_id_{extra - 1 - n}>": V + n for n in range(extra)}
            ids.update({token: index for token, index in gaps.items() if token not in ids})
        else:
            if settings.get("separate_vocabs"):
                raise DataError(f"{place / SETTINGS}: separate_vocabs is not supported: both sides have one vocabulary")
            self._source, self._target = self._processor(SOURCE), self._processor(TARGET)
            gaps, ids = {}, self._json(VOCAB)
            if not ids or {type(index) for index in ids.values()} != {int} or min(ids.values()) < 0:
                raise DataError(f"{place / VOCAB}: pieces and their numbers were expected")
        for token in (PAD, END, UNKNOWN):
            if token not in ids:
                raise DataError(f"{place / (ONE if ONE in files else VOCAB)}: has no token {token}")
        self._numbers = ids
        self._pieces = {index: piece for piece, index in ids.items()}
        self.pad_token_id, self.eos_token_id = ids[PAD], ids[END]
        # What stands for itself in a text, and is not cut.
        self._whole = re.compile("(" + "|".join(map(re.escape, (PAD, END, UNKNOWN, *gaps))) + ")")
        self._special = {PAD, END, UNKNOWN, *gaps}

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> SentencePiecePairs:
        """That of a folder. Errors: see the class."""
        place = Path(folder)
        return cls({name: (place / name).read_bytes() for name in FILES if (place / name).is_file()}, place)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the same files, which transformers' tokenizers read too."""
        kind = {"tokenizer_class": "T5Tokenizer" if ONE in self._files else "MarianTokenizer"}
        made = {SETTINGS: (json.dumps(kind, indent=2) + "\n").encode()}
        for name, content in {**made, **self._files}.items():
            with written_whole(Path(folder) / name) as file:
                file.write(content)

    @property
    def vocab_size(self) -> int:
        """V: one more than the largest id."""
        return max(self._pieces) + 1

    def decode(self, ids: Any) -> str:
        """The text of tokens; special ones are left out."""
        pieces = [self._piece(index) for index in np.asarray(ids).tolist()]
        text = self._source.decode([piece for piece in pieces if piece not in self._special])
        return str(text).replace(SPACE, " ").strip()

    def pieces(self, ids: Any) -> list[str]:
        """Each token as a text of its own, as for a picture."""
        return [self._piece(index).replace(SPACE, " ") for index in np.asarray(ids).tolist()]

    def _rows(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        return [self._encoded(text, self._target if target else self._source) for text in texts]

    def _encoded(self, text: str, processor: Any) -> list[int]:
        unknown, found = self._numbers[UNKNOWN], []
        for number, part in enumerate(self._whole.split(text)):
            if number % 2:
                found.append(self._numbers[part])
                continue
            language = LANGUAGE.match(part) if ONE not in self._files else None
            if language is not None:
                found.append(self._numbers.get(language[0], unknown))
                part = part[language.end() :]
            found += [self._numbers.get(piece, unknown) for piece in processor.encode(part.encode(), out_type=str)]
        return [*found, self.eos_token_id]

    def _piece(self, index: int) -> str:
        return self._pieces.get(index, UNKNOWN)

    def _processor(self, name: str) -> Any:
        """The library's model in a file. Errors: see the class."""
        content = self._files.get(name)
        if content is None:
            raise DataError(f"{self._place / name}: there is no such file")
        try:
            library = importlib.import_module("sentencepiece")
        except ImportError:
            needs = "needs sentencepiece: pip install 'minilm[sentencepiece]'"
            raise MissingExtraError(f"{self._place / name} {needs}") from None
        processor = library.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(content)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self._place / name}: is no model of SentencePiece ({error})") from None
        return processor

    def _json(self, name: str) -> dict[str, Any]:
        try:
            values = json.loads(self._files.get(name, b"").decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self._place / name}: it cannot be read as JSON ({error})") from None
        if not isinstance(values, dict):
            raise DataError(f"{self._place / name}: a JSON object was expected, not {type(values).__name__}")
        return values
