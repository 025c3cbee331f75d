"""The chapters run from a student's command line, without a warning, and print something that fits a screen."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minilm

FOLDER = Path(__file__).resolve().parent.parent / "examples"
CHAPTERS = sorted(FOLDER.glob("*.py"))
NEEDS_TORCH = {"08_compare"}
WIDTH = 100  # characters, of the terminal that the chapters are laid out for


def test_the_chapters_are_there():
    assert [chapter.name for chapter in CHAPTERS][:7] == [
        "01_tensor.py",
        "02_autograd.py",
        "03_attention.py",
        "04_gpt.py",
        "05_matmul.py",
        "06_tiles.py",
        "07_gradient_checks.py",
    ]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_runs(chapter, request):
    if chapter.stem in NEEDS_TORCH:
        request.getfixturevalue("torch")
    installed = str(Path(minilm.__file__).resolve().parent.parent)  # the minilm under test, wherever that is
    done = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{chapter.name}"],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": installed, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) > 10
    assert [line for line in done.stdout.splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", sorted(NEEDS_TORCH))
def test_without_torch_a_chapter_that_needs_it_says_so_in_one_line(name, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('not here')", "utf-8")
    installed = str(Path(minilm.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", f"examples/{name}.py"],
        cwd=FOLDER.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), installed])},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert "pip install torch" in done.stdout


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_has_a_heading_and_checks_itself(chapter):
    tree = ast.parse(chapter.read_text(encoding="utf-8"))
    heading = (ast.get_docstring(tree) or "").splitlines()[:1]
    assert heading
    assert heading[0].startswith(f"Chapter {int(chapter.stem[:2])}. ")
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree)) >= 5


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.stem)
def test_chapter_is_listed(chapter):
    assert f"({chapter.name})" in (FOLDER / "README.md").read_text(encoding="utf-8")
