"""Joint byte pairs: ends, ids, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minilm.errors import DataError
from minilm.text import BPETokenizer, CharTokenizer
from minilm.text.pair_tokenizer import PairTokenizer

TEXTS = ["the cat sat on the mat", "le chat était sur le tapis"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return PairTokenizer.train(TEXTS, 280)


def test_texts_end_and_come_back(tokenizer):
    rows = tokenizer.encode([*TEXTS, "ünïcode ☃\n", "a"])
    assert all(ids[-1] == tokenizer.eos_token_id == 1 for ids in rows)
    assert all(ids.dtype == np.int64 for ids in rows)
    assert [tokenizer.decode(ids) for ids in rows] == [*TEXTS, "ünïcode ☃", "a"]
    assert tokenizer.pieces(rows[0])[-1] == "</s>"
    assert "".join(tokenizer.pieces(rows[0])[:-1]) == TEXTS[0]
    assert tokenizer.vocab_size == 280


def test_a_folder_keeps_it(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = PairTokenizer.from_pretrained(tmp_path)
    assert [x.tolist() for x in again.encode(TEXTS)] == [x.tolist() for x in tokenizer.encode(TEXTS)]
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == "</s>"


@pytest.mark.parametrize(
    ("texts", "number", "said"),
    [
        (["fine", "a </s> b"], 1, "</s> stands in the text"),
        (["<pad>"], 0, "<pad> stands in the text"),
        (["fine", "fine", "\ud800"], 2, "lone surrogate"),
    ],
)
def test_what_cannot_be_encoded(tokenizer, texts, number, said):
    with pytest.raises(DataError, match=said) as caught:
        tokenizer.encode(texts)
    assert caught.value.index == number


def test_other_tokenizers_are_refused(tmp_path):
    for other, said in (
        (BPETokenizer.train(TEXTS, 280), "has no token <pad>"),
        (CharTokenizer.train("abc"), "has no token <pad>"),
        (BPETokenizer.train(TEXTS, 280, ("<pad>", "</s>")), "does not end texts with </s>"),
    ):
        other.save(tmp_path)
        with pytest.raises(DataError, match=said):
            PairTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="refuses it"):
        PairTokenizer.from_pretrained(tmp_path)
