"""Pieces: behind separators, all of the file, and where byte pairs do not mind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import cutting, tokenize_files
from minilm.data.cutting import Piece, pieces, spans
from minilm.errors import DataError
from minilm.text import BPETokenizer

BPE = BPETokenizer.train("to be or not\n\n  to be, é那 that's\r\n it 12\n" * 9, 300)


@given(st.text(st.sampled_from("ab é那\n|"), min_size=1), st.integers(1, 12))
@pytest.mark.parametrize("separator", ["\n", "|", "a|", "aa"])
def test_pieces_end_behind_separators_and_are_the_file(tmp_path_factory, separator, text, size):
    path = tmp_path_factory.getbasetemp() / "text"
    path.write_bytes(text.encode())
    found = pieces([path], size, separator)
    parts = [path.read_bytes()[p.start : p.end].decode() for p in found]
    assert "".join(parts) == text
    assert all(part.endswith(separator) for part in parts[:-1])
    assert records_of(parts, separator) == text.split(separator)


def records_of(parts, separator):
    """What splitting each part gives, the empty record behind each separator that ends a part left out."""
    records = [part.split(separator) for part in parts]
    return [*(r for some in records[:-1] for r in some[:-1]), *records[-1]]


@pytest.mark.parametrize("window", [11, 16, 1 << 16])
def test_separators_within_separators_are_those_of_the_whole_text(tmp_path, monkeypatch, window):
    """In "aaaaa" the separators are the first two pairs; where one reads from the middle on, that cannot be seen."""
    monkeypatch.setattr(cutting, "WINDOW", window)
    text = "".join("a" * count + "b" for count in range(14))
    (tmp_path / "text").write_text(text)
    for size in range(1, len(text)):
        parts = [text[p.start : p.end] for p in pieces([tmp_path / "text"], size, "aa")]
        assert records_of(parts, "aa") == text.split("aa")
        again = [text[q.start : q.end] for p in pieces([tmp_path / "text"], 40, "aa") for q in spans(p, size, "aa")]
        assert records_of(again, "aa") == text.split("aa")


@settings(max_examples=60)
@given(
    st.lists(st.text(st.sampled_from("ab1'é那 ,"), min_size=1).map(lambda s: f"x{s}x"), min_size=1),
    st.integers(1, 30),
)
def test_byte_pairs_are_those_of_the_whole_text(tmp_path_factory, lines, size):
    """Lines without white space at their ends: every cut is neutral."""
    folder = tmp_path_factory.mktemp("bpe")
    (folder / "text").write_bytes("\n".join(lines).encode())
    tokens = tokenize_files([folder / "text"], folder / "out", BPE, shard_bytes=size, jobs=1)
    np.testing.assert_array_equal(tokens[:], BPE.encode_array("\n".join(lines)))


@pytest.mark.parametrize("blank", ["\n\n", "\r\n", "\n  ", " \n", "\u3000\n", "\n\u00a0"])
def test_a_newline_between_words_is_preferred(tmp_path, blank):
    path = tmp_path / "text"
    path.write_bytes(f"one{blank}two{blank}three\nfour\n".encode())
    assert path.read_bytes()[: pieces([path], 1)[0].end].endswith(b"three\n")


def test_without_one_the_first_newline_will_do(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert pieces([path], 6) == [Piece(str(path), 0, 10), Piece(str(path), 10, 17)]


@pytest.mark.parametrize("length", [*range(250, 262), 1000])
def test_separators_across_windows_are_found(tmp_path, monkeypatch, length):
    monkeypatch.setattr(cutting, "WINDOW", 64)
    path = tmp_path / "text"
    path.write_bytes(b"a" * length + b"<|end|>" + b"b" * 300)
    assert [p.end for p in pieces([path], 10, "<|end|>")] == [length + 7, length + 307]


@pytest.mark.parametrize(("name", "why"), [("no", "there is no such file"), (".", "a folder"), ("empty", "is empty")])
def test_files_that_cannot_be_cut(tmp_path, name, why):
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match=why) as caught:
        pieces([tmp_path / name], 10)
    assert str(caught.value).startswith(str(tmp_path / name))
