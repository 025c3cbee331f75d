"""Faults in the gradients of csrc/, by patterns: a C file has no tree here, but its lines are regular.

Each fault changes one line of a function that makes gradients. The changed file alone is compiled, for the
instruction set in use, and linked with the objects that setup.py made of the others.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from faults import Fault, numbered
from places import ROOT

# The functions that make gradients, and sums of them, by their names.
GRADIENTS = re.compile(
    r"backward|slopes_of|add_to_keys|vec_gelu_slope|adamw|square_some|square_sum_of|widened|sum_some|add_some"
)
FUNCTION = re.compile(r"^(?:static |INLINE )+[\w *]*?\b(\w+)\((?:[^;{}]*)\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
# Lines that only say where things are.
PLACES = re.compile(
    r"size_t \w+ = |ptrdiff_t\)|#define|case |switch|\bfor \(|mem(set|cpy)\(|^\s*/?\*|real \*\w+ = |real \w+\[|"
    r"workspace|dweights \+|size - |widened\(|EACH_VECTOR\(to"
)

# kind, what is looked for, what takes its place
CHANGES = [
    ("sign", r" \+= ", " -= "),
    ("sign", r" -= ", " += "),
    ("sign", r"(?<=[\w)\]]) - (?=\w)", " + "),
    ("sign", r"(?<=[\w)\]]) \+ (?=(?![ijsv]\b)\w)", " - "),
    ("sign", r"(?<=[(\s])-(?=[a-z])", ""),
    ("factor", r" \* (?=(?!LANES|QUERIES)\w)", " * (real)1.001 * "),
    ("factor", r"vec_fma\((\w+), ", r"vec_fma(\1 * (real)2, "),
    ("factor", r" \*= ", " *= (real)1.001 * "),
    ("dropped-term", r"^( +)(?:if \([^()]+\) )?[\w>.\[\]-]+ [+*-]= [^;]+;", r"\1;"),
    ("dropped-term", r" - (\w+)(?=[);,])", ""),
    ("dropped-term", r"(\w+) \? (\w+) \+ [^:]+ : \2", r"\2"),
    ("dropped-term", r"vec_fma\((\w+), (\w+), (\w+)\)", r"(\1 * \2)"),
    ("dropped-term", r"vec_fma\((\w+), (\w+), (\w+)\)", r"(\3)"),
    ("mask", r" == ", " != "),
    ("mask", r" >= ", " > "),
    ("mask", r"\? ([\w.]+) : ([\w.]+)", r"? \2 : \1"),
    ("stale-save", r"h->scores(?! \+)", "h->slopes"),
    ("stale-save", r"h->slopes(?! \+)", "h->scores"),
    ("stale-save", r"h->q_rows", "h->dy_rows"),
]
# In the loops too: one element too few.
BOUNDS = [
    ("index", r"(for \(size_t (\w+) = [^;]+;[^;]*?\b\2) < ", r"\1 + 1 < "),
    ("index", r"(for \(size_t \w+) = 0;", r"\1 = 1;"),
    ("index", r"EACH_VECTOR\(([^,]+),", r"EACH_VECTOR(\1 - 1,"),
]

HEADERS = {"special.h": "pointwise.c"}  # a header with gradients in it, and the file that is compiled with it


def c_faults(root: Path = ROOT) -> list[Fault]:
    """Every fault of the C sources."""
    found: list[Fault] = []
    for path in sorted(p for p in root.glob("csrc/*.[ch]") if p.suffix == ".c" or p.name in HEADERS):
        text = path.read_text()
        for match in FUNCTION.finditer(text):
            if GRADIENTS.search(match[1]):
                found += _faults_of(f"csrc/{path.name}", match[1], text, match.start(2), match.end(2))
    return numbered(found)


def _faults_of(file: str, function: str, text: str, begin: int, end: int) -> Iterator[Fault]:
    """The faults of one function, whose body is text[begin:end]."""
    at = begin
    for line in text[begin:end].splitlines(keepends=True):
        code = line.split("/*")[0]
        for kind, pattern, change in [*BOUNDS, *([] if PLACES.search(line) else CHANGES)]:
            for match in re.finditer(pattern, code):
                after = match.expand(change)
                start = len(text[: at + match.start()].encode())
                number = text.count("\n", 0, at) + 1
                yield Fault(kind, file, function, number, start, start + len(match[0].encode()), match[0], after)
        at += len(line)


# --- compiling -----------------------------------------------------------------------------------------------


class NativeBuild:
    """The native module as setup.py builds it, in a folder of its own, and the same with one file changed.

    Errors: subprocess.CalledProcessError where a changed file cannot be compiled.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        log = folder / "log"
        sources = [p for p in [*root.glob("csrc/*"), *root.glob("minilm/kernels/native*.p*")] if p.is_file()]
        if not log.exists() or any(p.read_bytes() != (folder / p.relative_to(root)).read_bytes() for p in sources):
            self._build(root, log)
        self.commands = [shlex.split(line) for line in log.read_text().splitlines() if " -o build/" in line]
        self.link = next(command for command in self.commands if "-shared" in command)

    def _build(self, root: Path, log: Path) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name in ("csrc", "minilm"):
            shutil.copytree(root / name, self.folder / name)
        for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "minilm_command.py"):
            shutil.copy(root / name, self.folder / name)
        (self.folder / "benchmarks").mkdir()
        command = [sys.executable, "setup.py", "build_ext", "--inplace", "--force"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True)
        log.write_text(done.stdout + done.stderr)

    def library(self) -> Path:
        """The compiled module, below a root."""
        return Path("minilm/kernels") / Path(self.link[self.link.index("-o") + 1]).name

    def compile(self, fault: Fault, root: Path) -> None:
        """Compile what a fault changes, and link it into the module of the copy at `root`."""
        place = root / "changed"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "csrc", place)
        changed = place / Path(fault.file).name
        changed.write_bytes(fault.planted(changed.read_bytes()))
        source = "csrc/" + HEADERS.get(changed.name, changed.name)
        link = list(self.link)
        for command in self.commands:
            output = command[command.index("-o") + 1]
            if source in command and f"/{instruction_set()}/f" in output:
                target = str(place / output.replace("/", "_"))
                new = {source: str(place / Path(source).name), output: target}
                self._run([new.get(word, word) for word in command])
                link = [target if word == output else word for word in link]
        library = root / self.library()
        library.unlink(missing_ok=True)  # a new file: the old one may be loaded somewhere
        link[link.index("-o") + 1] = str(library)
        self._run(link)

    def restore(self, root: Path) -> None:
        """The module without a fault."""
        library = root / self.library()
        library.unlink(missing_ok=True)
        shutil.copy(self.folder / self.library(), library)

    def _run(self, command: list[str]) -> None:
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)


def instruction_set() -> str:
    """The instruction set that the kernels use on this machine."""
    code = "from minilm.kernels import native; print(native.instruction_set())"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
