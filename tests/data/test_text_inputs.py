"""Labelled texts as rows of a model's inputs."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.data import TextExample, text_rows
from minilm.errors import DataError
from minilm.text import BertTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]
TOKENIZER = BertTokenizer({token: i for i, token in enumerate(WORDS)})


def example(text: str, pair: str | None = None) -> TextExample:
    return TextExample(text, "x", pair, "train.csv", 2)


def test_rows_with_labels() -> None:
    found = text_rows(TOKENIZER, [example("a b"), example("b b b b")], np.array([1, 0]), max_length=5)
    assert [row["input_ids"].tolist() for row in found.rows] == [[2, 5, 6, 3], [2, 6, 6, 6, 3]]
    assert [row["labels"] for row in found.rows] == [1, 0]
    assert found.truncated.tolist() == [1]
    batch = TOKENIZER.pad(found.rows, return_tensors="ml")
    assert batch.input_ids.shape == (2, 5)
    assert batch.labels.tolist() == [1, 0]
    numbers = text_rows(TOKENIZER, [example("a")], np.array([0.5], dtype=np.float32)).rows[0]["labels"]
    assert numbers.dtype == np.float32


def test_pairs_and_many_texts() -> None:
    examples = [example("a", "b" if i % 3 else "b a b") for i in range(2500)]
    found = text_rows(TOKENIZER, examples, max_length=6)
    assert len(found.rows) == 2500
    assert found.rows[1001]["input_ids"].tolist() == [2, 5, 3, 6, 3]
    assert found.rows[1001]["token_type_ids"].tolist() == [0, 0, 0, 1, 1]
    assert found.truncated.tolist() == list(range(0, 2500, 3))
    assert "labels" not in found.rows[0]


def test_a_text_of_100_000_words() -> None:
    found = text_rows(TOKENIZER, [example("a " * 100_000)], max_length=512)
    assert len(found.rows[0]["input_ids"]) == 512
    assert found.truncated.tolist() == [0]


def test_refused() -> None:
    with pytest.raises(DataError, match="1 labels for 2 texts"):
        text_rows(TOKENIZER, [example("a"), example("b")], np.array([1]))
