"""The README's code runs, says what its comments say, and both languages show the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "README.zh.md"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs_and_learns(page, capsys):
    (code,) = blocks(page, "python")
    exec(compile(code, page, "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tensor([2., 4., 6.])"
    assert lines[1] == "(2, 5, 8)"
    assert float(lines[2].removeprefix("loss ")) < 2e-3


def test_both_languages_show_the_same_code_commands_and_files():
    def plain(text: str) -> str:
        return re.sub(r"\s*#.*", "", text)

    ours, theirs = PAGES
    for language in ("sh", "python"):
        assert [plain(b) for b in blocks(ours, language)] == [plain(b) for b in blocks(theirs, language)]
    assert blocks(ours, "text") == blocks(theirs, "text")

    def targets(page: str) -> set[str]:
        found = re.findall(r"\]\(([^)\s#]+)", (ROOT / page).read_text("utf-8"))
        return {t for t in found if not t.startswith("README")}

    assert targets(ours) == targets(theirs)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_exist(page):
    from typer.main import get_command

    from minilm.cli import app

    text = "\n".join(blocks(page, "sh"))
    for command in re.findall(r"^minilm ([\w-]+)", text, re.M):
        assert command in get_command(app).commands
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M)
