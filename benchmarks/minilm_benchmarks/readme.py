"""Puts the table into benchmarks/README.md, between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minilm.errors import DataError
from minilm.files import written_whole
from minilm_benchmarks.table import markdown

PAGE = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- minilm bench --write-readme -->", "<!-- end of the table -->"


def write(found: dict[str, Any], page: Path = PAGE) -> Path:
    """Replace what stands between the marks. Errors: see `parts`."""
    before, after = parts(page)
    with written_whole(page, "w") as file:
        file.write(f"{before}{BEGIN}\n{markdown(found)}\n{END}{after}")
    return page


def parts(page: Path = PAGE) -> tuple[str, str]:
    """What stands before the marks and after them. Errors: DataError where there is no such page, or no marks."""
    if not page.is_file():
        raise DataError(f"{page}: there is no such page; --write-readme works in a checkout of the sources")
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page}: the marks {BEGIN} and {END} are missing")
    return before, after
