"""From labelled texts to a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.data.classification import TextExample
from minilm.errors import DataError
from minilm.text.wordpiece import BertTokenizer

KEYS = ("input_ids", "token_type_ids", "attention_mask")
PART = 1000  # texts that are tokenised at a time


@dataclass(frozen=True)
class TextRows:
    """N rows: `input_ids`, `token_type_ids`, `attention_mask`, int64 of shape (T,) each, T differing, and `labels`.

    truncated: the numbers of the examples of which an end is left out, since they are too long.
    """

    rows: list[dict[str, Any]]
    truncated: NDArray[np.int64]


def text_rows(
    tokenizer: BertTokenizer,
    examples: Sequence[TextExample],
    labels: NDArray[Any] | None = None,
    max_length: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TextRows:
    """Tokenise labelled texts (or pairs), to `max_length` tokens at most, by default as many as the model takes.

    labels: (N,), numbers of classes or numbers to predict; `labels` of each row is one of them, of its dtype.
    progress: called with (texts done, texts) as it goes.

    Errors: DataError for labels of another number than the texts', or a max_length that leaves no room.
    """
    if labels is not None and len(labels) != len(examples):
        raise DataError(f"text_rows: {len(labels)} labels for {len(examples)} texts")
    limit = tokenizer.model_max_length if max_length is None else max_length
    rows: list[dict[str, Any]] = []
    whole: list[int] = []  # tokens of each text, were it not cut
    for start in range(0, len(examples), PART):
        part = examples[start : start + PART]
        texts, pairs = [e.text for e in part], None
        if any(e.pair is not None for e in part):
            pairs = [e.pair or "" for e in part]
        encoded = tokenizer(texts, pairs, truncation=True, max_length=limit)
        rows += [{key: np.array(encoded[key][i], dtype=np.int64) for key in KEYS} for i in range(len(part))]
        whole += tokenizer(texts, pairs, truncation=False, return_length=True)["length"]
        if progress is not None:
            progress(len(rows), len(examples))
    if labels is not None:
        for row, label in zip(rows, labels):
            row["labels"] = label
    return TextRows(rows, np.flatnonzero(np.array(whole) > limit))
