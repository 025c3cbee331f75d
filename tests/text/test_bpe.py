"""Byte-level BPE: any text survives, and cutting text at words changes no token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import corpora
from minilm.errors import DataError
from minilm.text import BPETokenizer, bpe, load_tokenizer

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
# Blanks of all kinds, contractions, digits, a special token and its parts: all that GPT-2's
# pattern treats in its own way.
INK = ["a", "the", "x1", "42", "'s", "'ll", "'", "!?", "é", "那", "\u0301", "<|endoftext|>", "<|"]
BLANKS = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2003", "\x85", "\x1c", "\u200b"]
WORDS = st.lists(st.sampled_from([*INK, *BLANKS]), max_size=40).map("".join)


@pytest.fixture(scope="module")
def trained() -> BPETokenizer:
    # Doubled blanks are frequent here, so that merges across them exist and wrong cuts show.
    text = corpora.shakespeare()[200_003:300_007]
    return BPETokenizer.train(text + "a  the\n\n\n  x1\n\n " * 500, vocab_size=601)


@settings(max_examples=150)
@given(text=ANY_TEXT | WORDS)
def test_any_text_survives(trained: BPETokenizer, text: str) -> None:
    ids = trained.encode(text)
    assert trained.decode(ids) == text
    # The library itself, on the whole text at once.
    assert ids == trained._backend.encode(text, add_special_tokens=False).ids


@settings(max_examples=200)
@given(text=WORDS, size=st.integers(1, 9))
def test_chunks_equal_the_whole(trained: BPETokenizer, text: str, size: int) -> None:
    chunks = [text[i : i + size] for i in range(0, len(text), size)]
    joined = [i for array in trained.encode_chunks(chunks) for i in array.tolist()]
    assert joined == trained._backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("piece", [7, 101])
def test_pieces_equal_the_whole(trained: BPETokenizer, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(bpe, "PIECE", piece)
    text = corpora.shakespeare()[500_009:510_007] + "x" * 211 + " a  b\n\n\nc"
    whole = trained._backend.encode(text, add_special_tokens=False).ids
    assert trained.encode(text) == whole


def test_merges_are_learned_and_used(trained: BPETokenizer) -> None:
    text = corpora.shakespeare()[:100_003]
    assert trained.vocab_size == 601
    assert len(trained.encode_array(text)) < 0.6 * len(text)
    assert trained.encode_array(text).dtype == np.uint16
    assert trained.token_bytes(trained.encode(" the")[0]) == b" the"


def test_special_tokens_are_one_token(trained: BPETokenizer) -> None:
    assert trained.special_tokens == {"<|endoftext|>": 0}
    assert trained.encode("<|endoftext|>") == [0]
    assert trained.decode([0]) == "<|endoftext|>"
    two = BPETokenizer.train("abc", 300, special_tokens=["<é>", "<b>"])
    assert two.special_tokens == {"<é>": 0, "<b>": 1}
    assert two.decode(two.encode("a<é><b>é")) == "a<é><b>é"


def test_training_is_the_same_each_time_and_from_files(tmp_path: Path) -> None:
    text = corpora.shakespeare()[:50_021]
    (tmp_path / "corpus.txt").write_text(text, newline="")
    first = BPETokenizer.train(text, 401)
    assert BPETokenizer.train(text, 401).fingerprint == first.fingerprint
    assert BPETokenizer.train_files(tmp_path / "corpus.txt", 401).fingerprint == first.fingerprint


def test_the_library_loads_the_file(trained: BPETokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "It's 42\n\n  naïve <|endoftext|> 😀"
    assert theirs.encode(text).ids == trained.encode(text)
    assert theirs.decode(trained.encode(text), skip_special_tokens=False) == text


def test_a_file_like_gpt2s_own_is_known(trained: BPETokenizer, tmp_path: Path) -> None:
    data = json.loads(trained.to_json())
    del data["model"]["type"]
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert load_tokenizer(tmp_path).fingerprint == trained.fingerprint


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"vocab_size": 256}, "vocab_size is 256; 256 bytes and 1 special tokens .* 257"),
        ({"vocab_size": 300, "special_tokens": ["<a>", "<a>"]}, "repeated"),
        ({"vocab_size": 300, "special_tokens": ["<a b>"]}, "no blank"),
        ({"vocab_size": 300, "special_tokens": [""]}, "at least 2 characters"),
    ],
)
def test_impossible_training(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        BPETokenizer.train("some text", **options)
    with pytest.raises(DataError, match="the text is empty"):
        BPETokenizer.train(["", ""], 300)


def test_lone_surrogates_are_named(trained: BPETokenizer) -> None:
    with pytest.raises(DataError, match=r"U\+D801 at position 2 is a lone surrogate"):
        trained.encode("ab\ud801")


@pytest.mark.parametrize(
    ("where", "value", "why"),
    [
        (("normalizer",), {"type": "NFC"}, "normalises"),
        (("pre_tokenizer", "add_prefix_space"), True, "adds a space"),
        (("pre_tokenizer", "use_regex"), False, "into words"),
        (("pre_tokenizer", "type"), "Whitespace", "pre-tokenizer is Whitespace"),
        (("model", "dropout"), 0.1, "at random"),
        (("added_tokens", 0, "rstrip"), True, "takes in blanks"),
        (("model", "vocab", "("), 9999, "0, 1, 2"),
    ],
)
def test_other_schemes_are_refused(
    trained: BPETokenizer, tmp_path: Path, where: tuple[Any, ...], value: Any, why: str
) -> None:
    data = json.loads(trained.to_json())
    place = data
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=why):
        BPETokenizer.load(tmp_path)
