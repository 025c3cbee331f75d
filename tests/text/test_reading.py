"""Reading in parts must lose nothing, split nothing, and say exactly where a file is broken."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.errors import DataError
from minilm.text.reading import last_cut, read_chunks, read_text, word_pieces

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading") / "corpus.txt"


@given(text=ANY_TEXT, chunk_bytes=st.integers(1, 11))
def test_parts_joined_are_the_file(file: Path, text: str, chunk_bytes: int) -> None:
    file.write_bytes(text.encode())
    assert "".join(read_chunks(file, chunk_bytes)) == text


def test_line_ends_and_byte_order_mark_stay(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(file) == "\ufeffa\r\nb\rc\n"


def test_progress_counts_bytes(file: Path) -> None:
    file.write_bytes("é".encode() * 5)
    seen: list[tuple[int, int]] = []
    list(read_chunks(file, 3, lambda done, total: seen.append((done, total))))
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b"ab\ncd\n\xffe", "byte 0xff at offset 6, line 3, is not valid UTF-8"),
        ("né\nö".encode() + b"\xe2\x28\xa1", "byte 0xe2 at offset 6, line 2, is not valid UTF-8"),
        (b"\x80", "byte 0x80 at offset 0, line 1, is not valid UTF-8"),
        (b"ab\xf0\x9f\x98", "byte 0xf0 at offset 2, line 1, begins a UTF-8 character that the end"),
        (b"\xed\xa0\x80", "byte 0xed at offset 0, line 1, is not valid UTF-8"),
    ],
)
def test_invalid_bytes_are_named(file: Path, content: bytes, where: str, chunk_bytes: int) -> None:
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_chunks(file, chunk_bytes))
    assert str(caught.value).startswith(f"{file}: {where}")


def test_files_that_are_none(file: Path) -> None:
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"empty \(0 bytes\)"):
        read_text(file)
    with pytest.raises(DataError, match="no such file"):
        read_text(file.parent / "missing.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_text(file.parent)
    with pytest.raises(DataError, match="chunk_bytes is 0"):
        list(read_chunks(file, 0))


def test_last_cut_lies_between_a_word_and_a_blank() -> None:
    assert last_cut("ab cd  \n") == 5
    assert last_cut("abc") == 0
    assert last_cut("  ") == 0
    # White space that is no blank may end a piece of white space, but never begins one.
    assert last_cut("a\u2003 b") == 0
    assert last_cut("") == 0


@given(chunks=st.lists(st.text(st.sampled_from("ab \n\u2003\x1c"))))
def test_word_pieces_lose_nothing(chunks: list[str]) -> None:
    pieces = list(word_pieces(chunks))
    assert "".join(pieces) == "".join(chunks)
    for before, after in pairwise(pieces):
        assert not before[-1].isspace()
        assert after[0] in " \n\t"


def test_word_pieces_refuse_an_endless_word() -> None:
    with pytest.raises(DataError, match="21 characters without a blank"):
        list(word_pieces(["abc"] * 8, longest=20))
