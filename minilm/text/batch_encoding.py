"""What a call of BertTokenizer gives: the model's inputs, and where in the text each token comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minilm.errors import DataError

if TYPE_CHECKING:
    import tokenizers


class BatchEncoding(dict[str, Any]):
    """A dictionary (`input_ids`, `token_type_ids`, `attention_mask`, ...) whose keys are attributes, too.

    `encodings` holds what the `tokenizers` library gave, one Encoding per row; None where the rows come from
    elsewhere (padded afterwards, or collated). Words, offsets and sequences are read from there.

    Source: the class of this name in Hugging Face transformers.
    """

    def __init__(
        self, fields: Mapping[str, Any] | None = None, encodings: Sequence[tokenizers.Encoding] | None = None
    ) -> None:
        super().__init__(fields or {})
        self.encodings = None if encodings is None else list(encodings)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"this BatchEncoding has {', '.join(self) or 'nothing'}, no {name!r}") from None

    def tokens(self, i: int = 0) -> list[str]:
        """The tokens of row i, special ones too."""
        tokens: list[str] = self._row(i).tokens
        return tokens

    def word_ids(self, i: int = 0) -> list[int | None]:
        """For each token of row i the number of its word; None for special tokens.

        Words are those that were given (is_split_into_words), else what stands between blanks and punctuation.
        """
        words: list[int | None] = self._row(i).word_ids
        return words

    def sequence_ids(self, i: int = 0) -> list[int | None]:
        """For each token of row i: 0 for the first text, 1 for its pair, None for special tokens."""
        sequences: list[int | None] = self._row(i).sequence_ids
        return sequences

    def char_to_token(self, i: int, character: int, sequence_index: int = 0) -> int | None:
        """The token of row i with this character of the text in it; None if there is none (blanks, truncation)."""
        token: int | None = self._row(i).char_to_token(character, sequence_index)
        return token

    def token_to_chars(self, i: int, token: int) -> tuple[int, int] | None:
        """The characters (start, end) of a token of row i in its text; None for special tokens."""
        span: tuple[int, int] | None = self._row(i).token_to_chars(token)
        return span

    def to(self, device: Any) -> BatchEncoding:
        """The Tensors on a device; all else stays as it is."""
        moved = {key: value.to(device) if hasattr(value, "to") else value for key, value in self.items()}
        return BatchEncoding(moved, self.encodings)

    def _row(self, i: int) -> tokenizers.Encoding:
        if self.encodings is None:
            raise DataError("BatchEncoding: these rows do not come from the tokenizer, so where is not known")
        if not -len(self.encodings) <= i < len(self.encodings):
            raise DataError(f"BatchEncoding: there is no row {i} among {len(self.encodings)}")
        return self.encodings[i]


def as_tensors(fields: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """Lists as they are (None), as NumPy arrays ("np") or as Tensors ("ml"), all int64.

    Errors: DataError if rows differ in length, or for another kind.
    """
    if kind is None:
        return dict(fields)
    if kind not in ("ml", "np"):
        raise DataError(f"return_tensors is {kind!r}; known are 'ml' (minilm's Tensors), 'np' (NumPy) and None (lists)")
    arrays = {}
    for name, rows in fields.items():
        lengths = {len(row) for row in rows if isinstance(row, list | tuple)}
        if len(lengths) > 1:
            raise DataError(
                f"{name}: rows of {min(lengths)} to {max(lengths)} tokens make no array; "
                "give padding=True, and truncation=True if they may be too long"
            )
        arrays[name] = np.asarray(rows, dtype=np.int64)
    if kind == "np":
        return arrays
    from minilm.creation import from_numpy

    return {name: from_numpy(array) for name, array in arrays.items()}
