"""The tokens of texts that a model reads and writes: subwords of both sides together, and what ends them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError
from minilm.files import written_whole
from minilm.text.bpe import BPETokenizer
from minilm.text.tokenizer import FILE_NAME, check_surrogates, read_file

if TYPE_CHECKING:
    import tokenizers

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SETTINGS = "tokenizer_config.json"
PIECES = ("source.spm", "spiece.model")  # models of SentencePiece, Marian's and T5's


class PairTokenizer:
    """Texts as tokens that end with </s>, by a tokenizer.json that has this and <pad>, as Marian's and T5's have them.

    One vocabulary serves source and target, so that what both share, names above all, has the same tokens.
    Folders that have SentencePiece models instead are read too (`sentencepiece_pairs.py`).

    Source: Sennrich, Haddow & Birch 2016, section 3.2, "joint BPE".
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str = FILE_NAME) -> None:
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        ids: dict[str, Any] = {token: backend.token_to_id(token) for token in (PAD, END)}
        for token, index in ids.items():
            if index is None:
                raise DataError(f"{source}: has no token {token}, which padding and ends are written with")
        self.pad_token_id: int = ids[PAD]
        self.eos_token_id: int = ids[END]
        ending = backend.encode("").ids
        if ending != [self.eos_token_id]:
            raise DataError(f"{source}: does not end texts with {END}, and with nothing else around them")

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> PairTokenizer:
        """Learn byte-level pairs from texts of both sides; see BPETokenizer.train, also for the errors."""
        from tokenizers import Tokenizer, processors

        learnt = BPETokenizer.train(texts, vocab_size, (PAD, END, UNKNOWN))
        backend = Tokenizer.from_str(learnt.to_json())
        backend.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
        return cls(backend)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> PairTokenizer:
        """That of a folder: its tokenizer.json, Marian's source.spm, target.spm and vocab.json, or T5's spiece.model.

        Errors: DataError; MissingExtraError for models of SentencePiece without their library.
        """
        from tokenizers import Tokenizer

        place = Path(folder) / FILE_NAME
        if not place.is_file() and any(place.with_name(name).is_file() for name in PIECES):
            from minilm.text.sentencepiece_pairs import SentencePiecePairs

            return SentencePiecePairs.from_pretrained(folder)
        content = read_file(place)
        try:
            backend = Tokenizer.from_str(content)
        except Exception as error:  # the library raises bare Exceptions
            raise DataError(f"{place}: the tokenizers library refuses it: {error}") from None
        return cls(backend, str(place))

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer reads too."""
        place = Path(folder)
        with written_whole(place / FILE_NAME, "w") as file:
            file.write(self._backend.to_str(pretty=True))
        known = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
        settings = {key: token for key, token in known.items() if self._backend.token_to_id(token) is not None}
        with written_whole(place / SETTINGS, "w") as file:
            file.write(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **settings}, indent=2) + "\n")

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return int(self._backend.get_vocab_size())

    def encode(self, texts: Sequence[str], target: bool = False) -> list[NDArray[np.int64]]:
        """The tokens of each text, the last of them </s>.

        Args:
            target: whether they are targets, which some of Marian's folders cut differently.
        Errors: DataError for a text that cannot be encoded; its number is the error's `index`.
        """
        try:
            rows = self._rows(texts, target)
        except (TypeError, UnicodeEncodeError):
            for number, text in enumerate(texts):
                try:
                    check_surrogates(text)
                except DataError as error:
                    raise _of(number, error) from None
            raise
        arrays = [np.array(row, np.int64) for row in rows]
        for number, ids in enumerate(arrays):
            inside = np.isin(ids[:-1], (self.pad_token_id, self.eos_token_id))
            if inside.any():
                token = END if ids[inside.argmax()] == self.eos_token_id else PAD
                raise _of(number, DataError(f"{token} stands in the text, where it would be taken for the token"))
        return arrays

    def _rows(self, texts: Sequence[str], target: bool) -> list[list[int]]:
        """The tokens of each text, </s> included, before they are checked."""
        return [row.ids for row in self._backend.encode_batch_fast(list(texts))]

    def decode(self, ids: Any) -> str:
        """The text of tokens; special ones are left out."""
        return str(self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=True)).strip()

    def pieces(self, ids: Any) -> list[str]:
        """Each token as a text of its own, as for a picture."""
        return [self._backend.decode([index], skip_special_tokens=False) for index in np.asarray(ids).tolist()]


def _of(number: int, error: DataError) -> DataError:
    error.index = number  # type: ignore[attr-defined]
    return error
