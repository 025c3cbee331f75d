"""The corpus that ships is the one that was measured."""

from __future__ import annotations

import hashlib
from importlib import resources

from minilm.data import corpora


def test_shakespeare_is_what_its_provenance_says() -> None:
    text = corpora.shakespeare()
    assert len(text) == 5_057_198
    assert len(set(text)) == 84
    digest = "da68ca4e8201d41a12c1d5e82d967bda85105f1dabe823d5735138bccabdd387"
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    folder = resources.files("minilm.data")
    assert len(folder.joinpath("shakespeare.txt.gz").read_bytes()) <= 2_000_000
    assert "5,057,198" in folder.joinpath("shakespeare.PROVENANCE.md").read_text()
