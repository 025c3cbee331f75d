"""Character tokenizer: the `tokenizers` library, reading its file, must give the same ids."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import corpora
from minilm.errors import DataError
from minilm.text import CharTokenizer

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
HARD = "a e\u0301 \u05e9\u202e 😀👩\u200d👩 \0\r\n\n\u2028\x85\ufeff\U0010ffff\t<unk>"


def library(tokenizer: CharTokenizer, folder: Path) -> Any:
    tokenizer.save(folder)
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@settings(max_examples=60)
@given(text=ANY_TEXT)
def test_round_trip_and_the_library_agree(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    theirs = library(tokenizer, tmp_path_factory.getbasetemp())
    assert theirs.encode(text).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_hard_characters_in_the_library(tmp_path: Path, unknown: str | None) -> None:
    tokenizer = CharTokenizer.train(HARD, unknown)
    theirs = library(tokenizer, tmp_path)
    assert theirs.encode(HARD).ids == tokenizer.encode(HARD)
    assert theirs.decode(tokenizer.encode(HARD)) == HARD
    assert theirs.get_vocab_size() == tokenizer.vocab_size


def test_shakespeare_in_the_library(tmp_path: Path) -> None:
    text = corpora.shakespeare()
    tokenizer = CharTokenizer.train(text)
    assert tokenizer.vocab_size == 84
    ids = tokenizer.encode_array(text)
    assert ids.dtype == np.uint8
    assert tokenizer.decode(ids) == text
    assert [tokenizer.id_to_token(i) for i in range(84)] == sorted(set(text))
    part = text[1_000_003:1_017_003]
    assert library(tokenizer, tmp_path).encode(part).ids == tokenizer.encode(part)


def test_a_foreign_character_is_named() -> None:
    tokenizer = CharTokenizer.train(["hello ", "world"])
    with pytest.raises(DataError, match=r"'W' \(U\+0057\) at position 6 is not in the vocabulary of 8 characters"):
        tokenizer.encode("hello World")
    with pytest.raises(DataError, match=r"U\+1F600.*position 0"):
        tokenizer.encode("😀")
    with pytest.raises(DataError, match=r"U\+D800.*position 1"):
        tokenizer.encode("h\ud800")
    with pytest.raises(DataError, match="position 7"):
        list(tokenizer.encode_chunks(["hello", " w!"]))


def test_unknown_takes_foreign_characters(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train("hello", unknown="<unk>")
    assert tokenizer.encode("hé😀o") == [1, 4, 4, 3]
    assert tokenizer.decode([1, 4, 4, 3]) == "h<unk><unk>o"
    assert tokenizer.token_to_id("<unk>") == 4
    theirs = library(tokenizer, tmp_path)
    assert theirs.encode("hé😀o").ids == [1, 4, 4, 3]
    assert theirs.decode([1, 4, 4, 3]) == "h<unk><unk>o"
    assert CharTokenizer.load(tmp_path).unknown == "<unk>"


def test_without_unknown_the_library_refuses_too(tmp_path: Path) -> None:
    theirs = library(CharTokenizer.train("hello"), tmp_path)
    with pytest.raises(Exception, match="Missing"):
        theirs.encode("help")


@given(text=ANY_TEXT, cuts=st.lists(st.integers(0, 20)))
def test_chunks_equal_the_whole(text: str, cuts: list[int]) -> None:
    tokenizer = CharTokenizer.train(text)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[a:b] for a, b in pairwise(places)]
    joined = np.concatenate(list(tokenizer.encode_chunks(chunks)))
    assert joined.tolist() == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("characters", "unknown", "why"),
    [
        ([], None, "at least one"),
        (["ab"], None, "2 characters, not 1"),
        ("ba", None, "sorted"),
        ("aab", None, "each there once"),
        (["\ud800"], None, r"U\+D800 is a lone surrogate"),
        ("ab", "?", "at least 2 characters"),
    ],
)
def test_vocabularies_that_are_none(characters: Any, unknown: str | None, why: str) -> None:
    with pytest.raises(DataError, match=why):
        CharTokenizer(characters, unknown)


@pytest.mark.parametrize("nothing", ["", [], [""]])
def test_training_on_nothing(nothing: Any) -> None:
    with pytest.raises(DataError, match="text is empty"):
        CharTokenizer.train(nothing)


def test_a_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    data = json.loads(CharTokenizer.train("abc").to_json())
    for vocab, why in [
        ({"a": 0, "b": 2}, "0, 1, 2"),
        ({"a": 0, "b": "1"}, "0, 1, 2"),
        ([], "0, 1, 2"),
        ({"b": 0, "a": 1}, "sorted"),
        ({}, "at least one"),
        ({"<unk>": 0, "a": 1}, "last id"),
    ]:
        data["model"]["vocab"] = vocab
        (tmp_path / "tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=why):
            CharTokenizer.load(tmp_path)
