"""Text to learn from: the corpora that ship with minilm, and any UTF-8 file."""

from __future__ import annotations

import gzip
from importlib import resources

from minilm.data.pairs import TextPair, read_pairs
from minilm.text.reading import read_chunks, read_text

__all__ = ["read_chunks", "read_text", "shakespeare", "verses"]


def shakespeare() -> str:
    """42 works of Shakespeare in modern spelling: 5,057,198 characters, 84 different ones, ASCII.

    In the public domain; where it comes from is said in shakespeare.PROVENANCE.md beside it.
    """
    packed = resources.files("minilm.data").joinpath("shakespeare.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("ascii")


def verses() -> list[TextPair]:
    """681 short verses of the Bible in English (King James) and Spanish (Reina-Valera 1909), at most 9 words a side.

    In the public domain; where they come from is said in verses.PROVENANCE.md beside them.
    """
    with resources.as_file(resources.files("minilm.data").joinpath("verses.tsv.gz")) as path:
        return read_pairs(path)
