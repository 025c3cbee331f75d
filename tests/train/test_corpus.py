"""A text made ready: its tokenizer, its tokens, and texts that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.errors import DataError
from minilm.text import BPETokenizer, CharTokenizer
from minilm.train import Corpus


@pytest.mark.parametrize(("kind", "cls"), [("char", CharTokenizer), ("bpe", BPETokenizer)])
def test_the_tokens_are_the_text(tmp_path, text, small, kind, cls):
    config = small(tokenizer=kind, bpe_vocab_size=270)
    seen = []
    corpus = Corpus.prepare(text, tmp_path, config, lambda done, total: seen.append((done, total)))
    assert isinstance(corpus.tokenizer, cls)
    assert corpus.tokenizer.decode(corpus.tokens.tokens) == text.read_text()
    assert seen[-1] == (text.stat().st_size,) * 2
    loaded = Corpus.load(tmp_path, config)
    np.testing.assert_array_equal(loaded.tokens.tokens, corpus.tokens.tokens)
    assert loaded.tokenizer.fingerprint == corpus.tokenizer.fingerprint


def test_line_ends_and_characters_beyond_ascii_stay(tmp_path, small):
    source = tmp_path / "x.txt"
    source.write_bytes("\ufeffé漢🙂\r\n\t\x00".encode() * 20)
    corpus = Corpus.prepare(source, tmp_path, small())
    assert corpus.tokenizer.decode(corpus.tokens.tokens).encode() == source.read_bytes()


def test_the_shakespeare_that_ships(tmp_path, small):
    corpus = Corpus.prepare(None, tmp_path, small())
    assert corpus.tokenizer.vocab_size == 84
    assert len(corpus.tokens) > 1_000_000


def test_the_beginning_trains_and_the_rest_validates(tmp_path, text, small):
    corpus = Corpus.prepare(text, tmp_path, small(train_fraction=0.75))
    train, validation = corpus.blocks(8)
    n = len(corpus.tokens)
    assert len(train.tokens) == int(n * 0.75)
    np.testing.assert_array_equal(np.concatenate([train.tokens, validation.tokens]), corpus.tokens.tokens)
    assert len(train) == len(train.tokens) - 8  # a block from every start
    x, y = train[5]
    np.testing.assert_array_equal(x[1:], y[:-1])


@pytest.mark.parametrize(
    ("length", "part", "rest"), [(1, "training", 0), (9, "training", 8), (10, "validation", 1), (80, "validation", 8)]
)
def test_a_corpus_shorter_than_the_context_says_by_how_much(tmp_path, small, length, part, rest):
    source = tmp_path / "x.txt"
    source.write_text(("ab" * length)[:length])
    corpus = Corpus.prepare(source, tmp_path, small())
    with pytest.raises(DataError) as caught:
        corpus.blocks(8)
    assert str(caught.value).startswith(
        f"{source}: is too short: {length} tokens, of which {rest} are the {part} part; a context of 8 needs at least 9"
    )


def test_a_corpus_just_long_enough_has_a_block_of_each(tmp_path, small):
    source = tmp_path / "x.txt"
    source.write_text("a" * 81)
    assert [len(blocks) for blocks in Corpus.prepare(source, tmp_path, small()).blocks(8)] == [72 - 8, 1]


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"abc\nde\xfffg", "byte 0xff at offset 6, line 2, is not valid UTF-8"),
        (b"a" * (1 << 20) + b"\xc3(", "byte 0xc3 at offset 1048576, line 1, is not valid UTF-8"),
        (b"abc\xe6\xbc", "offset 3, line 1, begins a UTF-8 character that the end of the file cuts off"),
        (b"\xff\xfea\x00b\x00", "byte 0xff at offset 0"),
    ],
    ids=["empty", "invalid", "far", "cut", "utf16"],
)
def test_texts_that_cannot_be_used_are_named_with_the_place(tmp_path, small, kind, content, message):
    source, folder = tmp_path / "x.txt", tmp_path / "run"
    source.write_bytes(content)
    folder.mkdir()
    with pytest.raises(DataError, match=message) as caught:
        Corpus.prepare(source, folder, small(tokenizer=kind))
    assert str(caught.value).startswith(str(source))
    assert not list(folder.iterdir())


def test_files_that_are_missing_or_no_files_are_named(tmp_path, small):
    for source, message in ((tmp_path / "no.txt", "there is no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(DataError, match=message):
            Corpus.prepare(source, tmp_path, small())
