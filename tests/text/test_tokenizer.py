"""What both kinds of tokenizer promise: one interface, files, decoding as ids arrive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import DataError
from minilm.text import BPETokenizer, CharTokenizer, StreamDecoder, Tokenizer, load_tokenizer

TEXT = "To be, or not to be: 那是 問題 😀 naïve e\u0301\r\n\0 שלום\n" * 3


def make(kind: str) -> Tokenizer:
    if kind == "char":
        return CharTokenizer.train(TEXT)
    return BPETokenizer.train(TEXT, vocab_size=307)


@pytest.fixture(scope="module", params=["char", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return make(request.param)


def test_list_array_and_back(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    array = tokenizer.encode_array(TEXT)
    assert all(type(i) is int for i in ids)
    assert array.tolist() == ids
    assert array.dtype == tokenizer.dtype
    assert tokenizer.decode(ids) == tokenizer.decode(array) == TEXT
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_tokens_and_ids_are_inverse(tokenizer: Tokenizer) -> None:
    for i in range(tokenizer.vocab_size):
        token = tokenizer.id_to_token(i)
        assert token is not None
        assert tokenizer.token_to_id(token) == i
    assert tokenizer.id_to_token(-1) is tokenizer.id_to_token(tokenizer.vocab_size) is None
    assert tokenizer.token_to_id("no such token") is None


def test_saved_and_loaded_encodes_alike(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]
    for loaded in (
        load_tokenizer(tmp_path),
        load_tokenizer(tmp_path / "tokenizer.json"),
        type(tokenizer).load(tmp_path),
    ):
        assert type(loaded) is type(tokenizer)
        assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.vocab_size == tokenizer.vocab_size


def test_fingerprints_differ_where_ids_do() -> None:
    prints = {
        make("char").fingerprint,
        make("bpe").fingerprint,
        CharTokenizer.train(TEXT + "ß").fingerprint,
        CharTokenizer.train(TEXT, unknown="<unk>").fingerprint,
        BPETokenizer.train(TEXT, vocab_size=293).fingerprint,
    }
    assert len(prints) == 5
    assert make("char").fingerprint == make("char").fingerprint
    assert make("bpe").fingerprint == make("bpe").fingerprint


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)],
)
def test_dtype_is_the_smallest_that_fits(vocab_size: int, dtype: type) -> None:
    codes = [*range(0x20, 0xD800), *range(0xE000, 0x20000)]
    assert CharTokenizer([chr(c) for c in codes[:vocab_size]]).dtype == dtype


def test_decode_refuses_foreign_ids(tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    for bad in (-1, size):
        with pytest.raises(DataError, match=rf"id {bad} is outside the vocabulary of {size}"):
            tokenizer.decode([0, bad, 1])
        with pytest.raises(DataError, match=rf"id {bad} is outside"):
            StreamDecoder(tokenizer).feed(bad)
    with pytest.raises(DataError, match="float64"):
        tokenizer.decode([0.5])  # type: ignore[list-item]


@given(data=st.data())
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_stream_equals_decode(kind: str, data: st.DataObject) -> None:
    tokenizer = CACHED[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    decoder = StreamDecoder(tokenizer)
    parts = [decoder.feed(i) for i in ids] + [decoder.flush()]
    assert "".join(parts) == tokenizer.decode(ids)


def test_stream_waits_for_whole_characters() -> None:
    tokenizer = BPETokenizer.train("abc", vocab_size=257)
    decoder = StreamDecoder(tokenizer)
    assert [decoder.feed(i) for i in tokenizer.encode("é😀")] == ["", "é", "", "", "", "😀"]
    assert decoder.feed(tokenizer.encode("é")[:1]) == ""
    assert decoder.flush() == "\ufffd"
    assert decoder.feed(tokenizer.encode("é")) == "é"
    assert decoder.flush() == ""


def test_files_that_are_no_tokenizer(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for loader in (load_tokenizer, CharTokenizer.load, BPETokenizer.load):
        with pytest.raises(DataError, match="no such file"):
            loader(file)
    for content, why in [
        ("{", "is not JSON"),
        ("[1]", 'has no "model"'),
        ('{"model": {"type": "Unigram"}}', "the model is 'Unigram'"),
        ('{"model": {"type": "WordLevel"}}', "is not a character tokenizer"),
        ('{"model": {"type": "BPE"}}', "the tokenizers library refuses it"),
    ]:
        file.write_text(content)
        with pytest.raises(DataError, match=why) as caught:
            load_tokenizer(file)
        assert str(caught.value).startswith(str(file))
    file.write_bytes(b"\xff")
    with pytest.raises(DataError, match="cannot be read"):
        load_tokenizer(file)


def test_kinds_are_not_taken_for_each_other(tmp_path: Path) -> None:
    make("char").save(tmp_path)
    with pytest.raises(DataError, match="WordLevel, not BPE"):
        BPETokenizer.load(tmp_path)
    make("bpe").save(tmp_path)
    with pytest.raises(DataError, match="not a character tokenizer"):
        CharTokenizer.load(tmp_path)


def test_saving_replaces_whole(tmp_path: Path) -> None:
    make("bpe").save(tmp_path)
    make("char").save(tmp_path / "tokenizer.json")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "WordLevel"
    assert len(list(tmp_path.iterdir())) == 1


CACHED = {kind: make(kind) for kind in ("char", "bpe")}
