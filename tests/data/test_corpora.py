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


def test_verses_are_what_their_provenance_says() -> None:
    pairs = corpora.verses()
    assert len(pairs) == len({(pair.source, pair.target) for pair in pairs}) == 681
    assert max(len(text.split()) for pair in pairs for text in (pair.source, pair.target)) == 9
    assert (pairs[2].source, pairs[2].target) == ("And God spake unto Noah, saying,", "Y habló Dios á Noé diciendo:")
    lines = "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)
    digest = "2e456caf081ea66f7ba7931905411478dec4adf666b5971622eaeb3f75ed8492"
    assert hashlib.sha256(lines.encode()).hexdigest() == digest
    assert "681" in resources.files("minilm.data").joinpath("verses.PROVENANCE.md").read_text()
