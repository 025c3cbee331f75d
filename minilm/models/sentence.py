"""Sentences as vectors: texts of one meaning lie close, as the cosine of their angle tells.

Source: Reimers & Gurevych 2019 (Sentence-BERT), section 3: the mean of the last layer's states over the tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minilm.errors import CheckpointError, DataError
from minilm.models.bert import BertModel
from minilm.models.hub import found
from minilm.models.pretrained import read_json
from minilm.modes import no_grad
from minilm.nn import functional as F
from minilm.tensor import Tensor
from minilm.text import BertTokenizer

SETTINGS, PARTS, POOLING = "sentence_bert_config.json", "modules.json", "1_Pooling/config.json"
MEAN = "pooling_mode_mean_tokens"


def mean_pooled(states: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of states (B, T, C) over the positions that hold no padding: (B, C); 0 where all do."""
    seen = Tensor((attention_mask.array != 0).astype(states.dtype)).unsqueeze(-1)  # (B, T, 1)
    return (states * seen).sum(1) / seen.sum(1).clamp(1.0)


class SentenceEncoder:
    """A BERT and its tokenizer, which give each text a vector: `encoder(["A text.", "Another."])`, an array (N, C).

    Args:
        model: the encoder, in evaluation mode. tokenizer: the one that it was trained with.
        max_length: tokens of a text beyond are left out; by default beyond what the model knows.
        normalized: whether vectors have length 1.
    """

    def __init__(
        self, model: BertModel, tokenizer: BertTokenizer, max_length: int | None = None, normalized: bool = True
    ) -> None:
        known = model.config.max_position_embeddings
        if len(tokenizer) > model.config.vocab_size:
            raise DataError(
                f"the tokenizer has {len(tokenizer)} tokens, and the model knows {model.config.vocab_size} of them"
            )
        self.model, self.tokenizer, self.normalized = model, tokenizer, normalized
        self.max_length = min(max_length or known, known)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> SentenceEncoder:
        """Of a folder or a name, as for the model; what sentence-transformers' files say beside it is kept to.

        Errors: CheckpointError for files that are missing or ask for another pooling than the mean, DataError for the
        tokenizer's.
        """
        folder = found(name)
        pooling = read_json(folder / POOLING) if (folder / POOLING).is_file() else {}
        others = [key for key, on in pooling.items() if key.startswith("pooling_mode") and key != MEAN and on is True]
        if others or pooling.get(MEAN, True) is not True:
            raise CheckpointError(f"{folder / POOLING}: only the mean over tokens is known, not {', '.join(others)}")
        settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
        tokenizer = BertTokenizer.from_pretrained(folder)
        return cls(BertModel.from_pretrained(folder), tokenizer, settings.get("max_seq_length"), _is_normalized(folder))

    def __call__(
        self, texts: Sequence[str], batch_size: int = 32, progress: Callable[[int, int], None] | None = None
    ) -> Any:
        """The vectors of `texts`, float32 (N, C). Texts of like length are computed together; that changes nothing.

        progress: called with (texts done, texts) as it goes.
        """
        if isinstance(texts, str):
            raise DataError("texts are a list of texts, and one text is [text]")
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"] if texts else []
        vectors = np.zeros((len(rows), self.model.config.hidden_size), np.float32)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            vectors[chosen] = self._vectors([rows[row] for row in chosen])
            if progress is not None:
                progress(first + len(chosen), len(order))
        return vectors

    def _vectors(self, rows: list[list[int]]) -> Any:
        """The vectors of one batch of token numbers."""
        T = max(map(len, rows))
        mask = np.array([[1] * len(row) + [0] * (T - len(row)) for row in rows])
        ids = np.array([row + [0] * (T - len(row)) for row in rows])
        with no_grad():
            states = self.model(Tensor(ids), Tensor(mask), pack=True).last_hidden_state
            pooled = mean_pooled(states, Tensor(mask))
            return (F.normalize(pooled, dim=-1) if self.normalized else pooled).array


def _is_normalized(folder: Path) -> bool:
    """Whether modules.json has a part that gives vectors length 1; where there is no such file, yes."""
    place = folder / PARTS
    if not place.is_file():
        return True
    try:
        parts = json.loads(place.read_text(encoding="utf-8"))
        return any(str(part["type"]).endswith("Normalize") for part in parts)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{place}: it cannot be read ({error})") from None
