"""Text to learn from: the corpus that ships with minilm, and any UTF-8 file."""

from __future__ import annotations

import gzip
from importlib import resources

from minilm.text.reading import read_chunks, read_text

__all__ = ["read_chunks", "read_text", "shakespeare"]


def shakespeare() -> str:
    """42 works of Shakespeare in modern spelling: 5,057,198 characters, 84 different ones, ASCII.

    In the public domain; where it comes from is said in shakespeare.PROVENANCE.md beside it.
    """
    packed = resources.files("minilm.data").joinpath("shakespeare.txt.gz").read_bytes()
    return gzip.decompress(packed).decode("ascii")
