"""Reading text files that may be larger than memory, and cutting text where no word is hurt."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from minilm.errors import DataError

CHUNK_BYTES = 1 << 20
# Large enough to keep both the cost of a call and the tokenizers library's per-text bookkeeping small.
PIECE = 1 << 16


def read_chunks(
    path: str | os.PathLike[str],
    chunk_bytes: int = CHUNK_BYTES,
    progress: Callable[[int, int], None] | None = None,
    span: tuple[int, int] | None = None,
) -> Iterator[str]:
    r"""Yield the text of a UTF-8 file in parts of about `chunk_bytes` bytes; no character is split.

    The parts joined are the file's text exactly: `\r\n` stays `\r\n`, a byte order mark stays
    U+FEFF, nothing is normalised. Memory: a few times `chunk_bytes`, whatever the file's size.

    `progress(done, total)` is called after each part with bytes. `span` (start, end) is the part of
    the file to read, in bytes; both must lie between characters.

    Errors: DataError for a missing, unreadable or empty file, for one that ends before `span` does,
    and for an invalid byte (names its offset from the start of the file, counted from 0, its line,
    counted from 1, and its value).
    """
    if chunk_bytes < 1:
        raise DataError(f"read_chunks: chunk_bytes is {chunk_bytes}; it must be at least 1")
    with opened(path) as file:
        start, end = span or (0, os.fstat(file.fileno()).st_size)
        file.seek(start)
        decoder = codecs.getincrementaldecoder("utf-8")()
        done, lines = 0, 0
        while True:
            held = len(decoder.getstate()[0])
            block = file.read(chunk_bytes if span is None else min(chunk_bytes, end - start - done))
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise _invalid(path, error, start + done - held, lines + _lines_before(file, start)) from None
            done += len(block)
            lines += text.count("\n")
            if text:
                yield text
            if not block:
                break
            if progress is not None:
                progress(done, max(end - start, done))
    if span is not None and start + done < end:
        raise DataError(f"{path}: ends at byte {start + done}, and {end} were there before: it was changed meanwhile")
    if done == 0:
        raise DataError(f"{path}: the file is empty (0 bytes)")


def _lines_before(file: IO[bytes], offset: int) -> int:
    file.seek(0)
    lines = 0
    while offset > 0 and (block := file.read(min(CHUNK_BYTES, offset))):
        lines, offset = lines + block.count(b"\n"), offset - len(block)
    return lines


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole text of a UTF-8 file, exactly as `read_chunks` gives it; same errors."""
    return "".join(read_chunks(path))


def opened(path: str | os.PathLike[str]) -> IO[bytes]:
    """A file to read bytes from. Errors: DataError, naming it."""
    try:
        return Path(path).open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: this is a folder; a text file is needed") from None
    except PermissionError:
        raise DataError(f"{path}: no permission to read this file") from None


def _invalid(path: str | os.PathLike[str], error: UnicodeDecodeError, base: int, lines: int) -> DataError:
    byte = error.object[error.start]
    line = lines + error.object[: error.start].count(b"\n") + 1
    where = f"{path}: byte 0x{byte:02x} at offset {base + error.start}, line {line}"
    if error.reason == "unexpected end of data":
        return DataError(f"{where}, begins a UTF-8 character that the end of the file cuts off")
    return DataError(f"{where}, is not valid UTF-8 ({error.reason})")


def last_cut(text: str) -> int:
    r"""The last place in `text` between a non-space and a blank (space, tab, newline), or 0.

    Cutting there changes nothing for GPT-2's pre-tokenisation

        's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

    which walks from left to right and never looks back. No alternative goes on over white space
    after a character that is none, so a match ends at the cut anyway, and the next begins there.
    The one look-ahead, (?!\S), acts inside a run of white space, and the run is whole in the second
    part. (A cut *behind* a newline would not do: at an end of text "\n\n" is one match, before a
    letter it is two.)
    """
    for i in range(len(text) - 1, 0, -1):
        if text[i] in " \n\t" and not text[i - 1].isspace():
            return i
    return 0


def word_pieces(chunks: Iterable[str], longest: int = 1 << 26) -> Iterator[str]:
    """Regroup adjacent parts of one text so that each piece ends where `last_cut` allows.

    Errors: DataError when `longest` characters pass without a blank, since memory must end
    somewhere.
    """
    held = ""
    for chunk in chunks:
        held += chunk
        cut = last_cut(held)
        if cut:
            yield held[:cut]
            held = held[cut:]
        elif len(held) > longest:
            raise DataError(
                f"{len(held)} characters without a blank after a word: "
                f"text for a word-based tokenizer must be cut at least every {longest}"
            )
    if held:
        yield held


def cut_pieces(text: str, longest: int = PIECE) -> Iterator[str]:
    """Cut a long text at words, so that the tokenizers library encodes the pieces side by side."""
    start = 0
    while len(text) - start > longest:
        cut = last_cut(text[start : start + longest])
        if not cut:
            break
        yield text[start : start + cut]
        start += cut
    if start < len(text):
        yield text[start:]
