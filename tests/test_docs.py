"""The pages' links are true: files are there, and lines say what the link says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("links", ROOT / "docs" / "links.py")
links = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(links)


@pytest.mark.parametrize("page", links.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_true(page):
    assert links.check(page) == []


def test_a_false_link_is_found_and_mended(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "ROOT", tmp_path)
    (tmp_path / "code.py").write_text("import sys\n\nprint(1)\n")
    page = tmp_path / "page.md"
    page.write_text('[a](code.py#L1 "print(1)") [b](gone.py) [c](code.py#L9 "print(2)") [d](code.py#L1)')
    assert links.check(page) == [
        "page.md: code.py#L1 does not say 'print(1)'",
        "page.md: gone.py is not there",
        "page.md: code.py#L9 does not say 'print(2)'",
        "page.md: code.py#L1 does not carry the code of its line",
    ]
    assert links.mend(page) == 1
    assert "code.py#L3" in page.read_text()
    assert len(links.check(page)) == 3
