"""Text to learn from: the corpora that ship with minilm, and any UTF-8 file."""

from __future__ import annotations

import gzip
import os
import zlib
from importlib import resources

from minilm.data.pairs import TextPair, read_pairs
from minilm.errors import DataError
from minilm.text.reading import opened, read_chunks, read_text

__all__ = ["read_chunks", "read_packed", "read_text", "shakespeare", "verses"]


def shakespeare() -> str:
    """42 works of Shakespeare in modern spelling: 5,057,198 characters, 84 different ones, ASCII.

    In the public domain; where it comes from is said in shakespeare.PROVENANCE.md beside it.
    """
    packed = resources.files("minilm.data").joinpath("shakespeare.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("ascii")


def read_packed(path: str | os.PathLike[str]) -> str:
    """The whole text of a UTF-8 file, packed by gzip if its name ends in .gz.

    Errors: DataError as those of `read_text`, and for a .gz file that gzip did not write, or that is cut off.
    """
    if not str(path).endswith(".gz"):
        return read_text(path)
    with opened(path) as file:
        try:
            text = gzip.decompress(file.read()).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: unpacked, it is not UTF-8 ({error.reason} at byte {error.start})") from None
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: is not a whole .gz file ({error})") from None
    if not text:
        raise DataError(f"{path}: unpacked, it is empty")
    return text


def verses() -> list[TextPair]:
    """681 short verses of the Bible in English (King James) and Spanish (Reina-Valera 1909), at most 9 words a side.

    In the public domain; where they come from is said in verses.PROVENANCE.md beside them.
    """
    with resources.as_file(resources.files("minilm.data").joinpath("verses.tsv.gz")) as path:
        return read_pairs(path)
