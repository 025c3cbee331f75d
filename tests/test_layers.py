"""The house's order: which part may import which, how long files are, and that importing stays quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minilm"

BASE = {"errors", "files", "dtypes", "device", "modes"}
CORE = BASE | {"tape", "tensor", "creation", "kernels", "random", "pytorch"}
ENGINE = CORE | {"autograd", "ops"}
# Each part, from the ground up, and what it may import beside itself.
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "dtypes": {"errors"},
    "device": {"errors"},
    "modes": set(),
    "display": set(),
    "parallel": {"modes", "kernels"},
    "kernels": {"errors", "device"},
    "tape": {"errors", "modes"},
    "tensor": BASE | {"tape"},
    "creation": BASE | {"tensor"},
    "pytorch": BASE | {"tensor"},
    "random": BASE | {"tensor", "creation", "kernels"},
    "autograd": BASE | {"tape", "tensor"},
    "ops": CORE | {"autograd"},
    "serialization": CORE,
    "nn": ENGINE - {"kernels"},
    "optim": ENGINE,
    "text": BASE,
    "data": ENGINE - {"kernels"} | {"text"},
    "evaluation": BASE | {"data"},
    "beam": ENGINE - {"kernels"} | {"generation"},
    "testing": ENGINE | {"nn", "optim", "data", "compat"},
    "generation": ENGINE - {"kernels"} | {"text"},
    "models": ENGINE - {"kernels"} | {"nn", "generation", "beam", "text", "serialization", "parallel"},
    "train": ENGINE
    | {"nn", "optim", "data", "evaluation", "text", "generation", "models", "serialization", "display"}
    | {"__version__"},
    "compat": ENGINE | {"nn", "optim", "data", "serialization"},
    "commands": set(),  # each in a file of its own, which imports what it needs when it is called
    "cli": ENGINE
    | {"nn", "optim", "data", "text", "generation", "models", "serialization", "train", "compat", "testing"}
    | {"evaluation", "commands", "display"},
}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(nodes: Iterator[ast.AST] | list[ast.stmt]) -> set[str]:
    """The modules of minilm that these statements import, by their dotted names."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "minilm"}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "minilm":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    part = part_of(path)
    if part == "__init__":
        return
    tree = ast.parse(path.read_text("utf-8"))
    names = imported(tree.body) - ({"minilm"} if part == "compat" else set())  # which maps all that it exports
    used = {name.split(".")[1] for name in names} - {part}
    assert used <= ALLOWED[part], f"{part} must not import {', '.join(sorted(used - ALLOWED[part]))}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_holds_inside_functions_too(path):
    """Kernels know arrays only; operations know the table and no backend; models know no kernel."""
    part, used = part_of(path), imported(ast.walk(ast.parse(path.read_text("utf-8"))))
    parts = {part for name in used for part in name.split(".")[1:2]}  # `import minilm` itself has none
    if part == "kernels":
        assert parts <= {"kernels", "errors", "device", "__version__"}
    if part in ("models", "nn", "generation"):
        assert "kernels" not in parts
    if part in ("ops", "random", "optim"):
        backends = {f"minilm.kernels.{name}" for name in ("reference", "jit", "native")}
        assert not any(name.startswith(tuple(backends)) for name in used)


@pytest.mark.parametrize(
    "path",
    sorted([*SOURCES, *(ROOT / "csrc").glob("*.[ch]"), *(ROOT / "tests").rglob("*.py"), *PACKAGE.rglob("*.pyx")]),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_file_is_too_long_to_read(path):
    assert len(path.read_text("utf-8").splitlines()) <= 600


def test_importing_is_quick_and_loads_nothing_unasked():
    program = "import sys, minilm; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    for heavy in ("numba", "torch", "cupy", "matplotlib", "tokenizers", "typer", "rich", "hypothesis", "pytest"):
        assert heavy not in loaded


def test_every_part_has_a_place_in_the_order():
    assert {part_of(path) for path in SOURCES} - {"__init__"} == set(ALLOWED)
