"""Token files: the tokens of the text whatever the chunks, whole or not at all, read piecemeal."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minilm.data import CausalBlocks, TokenFile, tokenize_file, write_tokens
from minilm.data.tokenfile import HEADER, MAGIC, VERSION
from minilm.errors import DataError
from minilm.text import BPETokenizer, CharTokenizer

TEXT = "To be, or not to be:\n\n  that's the question — 那是 😀\r\n" * 5


@settings(max_examples=40)
@given(text=st.text(st.sampled_from("ab é那😀'\n\r\t 1!"), min_size=1), chunk_bytes=st.integers(1, 13))
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_tokens_do_not_depend_on_the_chunks(
    tmp_path_factory: pytest.TempPathFactory, kind: str, text: str, chunk_bytes: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "corpus.txt").write_bytes(text.encode())
    tokenizer = CharTokenizer.train(text) if kind == "char" else BPE
    file = tokenize_file(folder / "corpus.txt", folder / "tokens", tokenizer, chunk_bytes=chunk_bytes)
    whole = tokenizer.encode_array(text)
    np.testing.assert_array_equal(file.tokens, whole, strict=True)
    assert (len(file), file.dtype, file.vocab_size) == (
        len(whole),
        tokenizer.dtype,
        tokenizer.vocab_size,
    )
    file.check_tokenizer(tokenizer)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, np.uint8), (256, np.uint8), (257, np.uint16), (65537, np.uint32), (2**32, np.uint32)],
)
def test_written_and_read(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    parts = [np.array([0, vocab_size - 1]), np.array([], np.int64), np.array([0])]
    file = write_tokens(tmp_path / "t", parts, vocab_size)
    assert file.dtype == dtype
    assert file[:].tolist() == [0, vocab_size - 1, 0]
    assert file[1] == vocab_size - 1
    assert np.asarray(file).tolist() == file.tokens.tolist()
    assert (tmp_path / "t").stat().st_size == 64 + 3 * np.dtype(dtype).itemsize


def test_the_file_is_read_only(tmp_path: Path) -> None:
    file = write_tokens(tmp_path / "t", [np.arange(3)], 3)
    with pytest.raises(ValueError, match="read-only"):
        file.tokens[0] = 1


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("abc")
    file = tokenize_file(tmp_path / "corpus.txt", tmp_path / "t", CharTokenizer.train("abc"))
    with pytest.raises(DataError, match=r"another tokenizer \(its vocabulary has 3 .* \(4 tokens"):
        file.check_tokenizer(CharTokenizer.train("abcd"))


def header(count: int = 5, itemsize: int = 2, version: int = VERSION) -> bytes:
    return HEADER.pack(MAGIC, version, itemsize, count, 300, bytes(32))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is not a token file"),
        (b"To be, or not to be" * 9, r"is not a token file \(it begins with b'To be, o'\)"),
        (MAGIC + b"123", "truncated: 11 bytes, the header alone has 64"),
        (header() + bytes(9), "truncated: 73 bytes, but 5 tokens of 2 bytes .* need 74"),
        (header() + bytes(11), "longer than it says: 75 bytes"),
        (header(count=0), "0 tokens"),
        (header(version=2) + bytes(10), "version 2"),
        (header(itemsize=3) + bytes(15), "itemsize 3"),
        (header(count=2**62), "truncated: 64 bytes"),
    ],
)
def test_files_that_are_no_token_file(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why) as caught:
        TokenFile(path)
    assert str(caught.value).startswith(str(path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        TokenFile(tmp_path / "missing")


@pytest.mark.parametrize(
    ("arrays", "vocab_size", "why"),
    [
        ([np.array([0, 1]), np.array([2, 7, 9])], 7, "token 9 at position 4 is outside"),
        ([np.array([0, -1])], 7, "token -1 at position 1 is outside the vocabulary of 7"),
        ([np.array([0.5])], 7, "float64"),
        ([], 7, "no tokens to write"),
        ([np.array([0])], 0, "vocabulary of 0 tokens"),
        ([np.array([0])], 2**32 + 1, "vocabulary of 4294967297 tokens"),
    ],
)
def test_tokens_that_cannot_be_written(tmp_path: Path, arrays: list[Any], vocab_size: int, why: str) -> None:
    with pytest.raises(DataError, match=why):
        write_tokens(tmp_path / "t", arrays, vocab_size)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_corpus_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    corpus, tokens = tmp_path / "corpus.txt", tmp_path / "t"
    for content, why in [
        (b"", "the file is empty"),
        (b"abcabc\xff", "byte 0xff at offset 6"),
        (b"abcabcd", r"'d' \(U\+0064\) at position 6"),
    ]:
        corpus.write_bytes(content)
        with pytest.raises(DataError, match=why) as caught:
            tokenize_file(corpus, tokens, CharTokenizer.train("abc"), chunk_bytes=2)
        assert str(caught.value).startswith(str(corpus))
        assert str(caught.value).count(str(corpus)) == 1
        assert list(tmp_path.iterdir()) == [corpus]


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Path]:
    """A token file that a failed writing must leave as it is."""
    write_tokens(tmp_path / "t", [np.arange(5)], 5)
    yield tmp_path / "t"
    assert TokenFile(tmp_path / "t")[:].tolist() == list(range(5))
    assert list(tmp_path.iterdir()) == [tmp_path / "t"]


def test_interruption_leaves_what_stood_there(standing: Path) -> None:
    def arrays() -> Iterator[Any]:
        yield np.zeros(100_003, np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(standing, arrays(), 7)


def test_a_full_disk_leaves_what_stood_there(standing: Path) -> None:
    # A limit on file size stands in for the disk: the write fails in the same place.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="large"):
            write_tokens(standing, [np.zeros(100_003, np.uint8)], 7)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def anonymous_memory() -> int:
    """Bytes of memory that the system cannot take back by dropping cached file pages."""
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    count = 1 << 30  # 2 GiB, nearly all of it a hole
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.write(header(count))
        os.truncate(path, HEADER.size + 2 * count)
    before = anonymous_memory()
    tracemalloc.start()
    try:
        blocks = CausalBlocks(TokenFile(path), 127)
        for step in range(30):
            x, y = blocks.random_batch(13, seed=1, step=step)
            assert x.shape == y.shape == (13, 127)
        assert blocks[len(blocks) - 1][0].shape == (127,)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert anonymous_memory() - before < 16 << 20


def test_tokenizing_holds_little_memory(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("to be or not\n" * 400_000)
    tokenizer = CharTokenizer.train("to be or not\n")
    tracemalloc.start()
    try:
        tokenize_file(tmp_path / "corpus.txt", tmp_path / "t", tokenizer, chunk_bytes=1 << 14)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 << 20


BPE = BPETokenizer.train(TEXT, vocab_size=307)
