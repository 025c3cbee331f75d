"""Where gradients are made, and which tests look at them.

Gradients are made in the backward of each operation and what it calls; in the `*_backward` kernels, the kernels that
sum gradients up, and what both call; and in the steps of the optimisers. The functions are found in the syntax tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faults import Fault, Text, faults_in, numbered

ROOT = Path(__file__).resolve().parent.parent.parent

PYTHON = [
    "minilm/ops/*.py",
    "minilm/kernels/reference*.py",
    "minilm/kernels/jit*.py",
    "minilm/optim/adamw.py",
    "minilm/optim/sgd.py",
    "minilm/optim/clip.py",
    "minilm/autograd/partial.py",
]

# Kernels without `backward` in their names whose results are gradients, or what an optimiser makes of them.
GRADIENT_KERNELS = {"linear_cross_entropy", "scatter_rows", "sum_rows", "adamw", "square_sum"}
OF_OPERATIONS = {"backward", "backward_definition", "gradients", "forward"}
OF_GRADIENTS = {"RowGradient", "ProductGradient", "PartialGradient"}  # classes that are gradients
OF_OPTIMISERS = {"update", "update_all", "clip_grad_norm_", "clip_grad_value_"}

Functions = dict[str, ast.FunctionDef]


def python_faults(root: Path = ROOT) -> list[Fault]:
    """Every fault of the Python sources."""
    found: list[Fault] = []
    for pattern in PYTHON:
        for path in sorted(root.glob(pattern)):
            file, text = str(path.relative_to(root)), Text(path.read_bytes())
            found += faults_in(file, text, functions_of(file, text.tree))
    return numbered(found)


def functions_of(file: str, tree: ast.Module) -> Functions:
    """The functions of a file that make gradients, and those of the same file that they call."""
    every = _every_function(tree)
    chosen = {name for name in every if _makes_gradients(file, name)}
    waiting = [name for name in chosen if not name.endswith(".forward")]
    while waiting:
        for name in _called_by(every[waiting.pop()]):
            if name in every and name not in chosen and name.startswith("_"):
                chosen.add(name)
                waiting.append(name)
    return {name: function for name, function in every.items() if name in chosen}


def _every_function(tree: ast.Module) -> Functions:
    """Functions and methods, `name` and `Class.name`."""
    found: Functions = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found.update({f"{node.name}.{f.name}": f for f in node.body if isinstance(f, ast.FunctionDef)})
    return found


def _makes_gradients(file: str, name: str) -> bool:
    owner, _, method = name.rpartition(".")
    if "/kernels/" in file:
        return not owner and ("_backward" in name or name.lstrip("_") in GRADIENT_KERNELS)
    if "/optim/" in file:
        return method in OF_OPTIMISERS
    return bool(owner) and (method in OF_OPERATIONS or owner in OF_GRADIENTS)


def _called_by(function: ast.FunctionDef) -> set[str]:
    """The names that a function reads: those of functions it calls are among them."""
    return {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}


# --- which tests look at a function ------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Some tests: files, the operations whose cases are run (None for all), and pytest's -k."""

    files: tuple[str, ...]
    ops: frozenset[str] | None = None
    k: str = ""


WIDE = {
    "minilm/ops": ("tests/ops", "tests/autograd", "tests/nn", "tests/models/test_gpt.py"),
    "minilm/kernels": ("tests/kernels", "tests/ops/test_registry.py", "tests/ops/test_loss.py"),
    "minilm/optim": ("tests/optim", "tests/kernels/test_native_optimizer.py"),
    "minilm/autograd": ("tests/autograd", "tests/ops", "tests/nn"),
    "csrc": ("tests/kernels", "tests/ops/test_registry.py", "tests/ops/test_loss.py"),
}
REGISTRY = "tests/ops/test_registry.py"
# Tests of the build, of memory and threads, of random numbers and names: no gradient is in them, and some take long.
BESIDE = {
    *("test_build", "test_pool_c", "test_stubs", "test_random", "test_numpy_bridge", "test_summary", "test_init"),
    *("test_native_robust", "test_native_memory", "test_numba_memory", "test_philox", "test_interrupts", "test_call"),
}


class Suite:
    """From a fault to the tests that look at it, nearest first."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self.trees = {str(p.relative_to(root)): ast.parse(p.read_bytes()) for p in root.glob("minilm/*/*.py")}
        self.by_kernel: dict[str, set[str]] = {}  # the operations that use a kernel
        for file, tree in self.trees.items():
            if file.startswith("minilm/ops/"):
                for node in tree.body:
                    for kernel in _kernels_of(node) if isinstance(node, (ast.ClassDef, ast.FunctionDef)) else ():
                        self.by_kernel.setdefault(kernel, set()).update(_operations_reaching(tree, node.name))

    def stages(self, fault: Fault) -> list[Stage]:
        """The operations' own tests, then the files that mirror the module, then everything around it."""
        ops = frozenset(self.operations(fault.file, fault.function))
        stages = []
        if ops:
            k = "numba" if "/jit" in fault.file else "" if "/ops/" in fault.file else "not numba"
            stages.append(Stage((REGISTRY,), ops, k))
        mirrors = self.mirrors(fault.file)
        if mirrors:
            stages.append(Stage(mirrors, ops or None, " or ".join(self.compiled_kernels(fault))))
        folder = next(folder for folder in WIDE if fault.file.startswith(folder))
        wide = tuple(file for file in self.expand(WIDE[folder]) if file not in mirrors)
        return [*stages, Stage(wide, ops or None)] if wide else stages

    def operations(self, file: str, function: str) -> set[str]:
        """The operations that reach a function of an operations' or a kernels' file."""
        if file.startswith("csrc/"):  # what the file exports; a header of gradients serves gelu's
            kernels = set(re.findall(r"EXPORTED\((\w+)\)", (self.root / file).read_text())) or {"gelu_backward"}
            return {op for name in kernels for op in self.by_kernel.get(name, ())}
        if not file.startswith(("minilm/ops/", "minilm/kernels/")):
            return set()
        if "." in function:
            owner = function.split(".")[0]
            return _operations_reaching(self.trees[file], owner, others=False)
        if file.startswith("minilm/kernels/"):
            reaching = _reaching(self.trees[file], function)
            return {op for name in reaching for op in self.by_kernel.get(name, ())}
        return _operations_reaching(self.trees[file], function)

    def compiled_kernels(self, fault: Fault) -> list[str]:
        """The kernels of Numba that a fault is in: what is tested of others would first be compiled, for seconds."""
        if "/jit" not in fault.file:
            return []
        return sorted(name for name in _reaching(self.trees[fault.file], fault.function) if not name.startswith("_"))

    def mirrors(self, file: str) -> tuple[str, ...]:
        """The test files named after a module."""
        folder, name = Path(file).parent.name, Path(file).stem
        named = [f"tests/{folder}/test_{name}.py", f"tests/nn/test_{name}.py"]
        if name.startswith("jit"):
            named = ["tests/kernels/test_numba.py"]
        if name == "reference":  # held against the kernels in C
            named = ["tests/kernels/test_native_rows.py", "tests/kernels/test_native_optimizer.py"]
        if folder == "csrc":
            special = {"attention": "attention", "optimizer": "optimizer", "pointwise": "pointwise"}.get(name, "rows")
            named = [f"tests/kernels/test_native_{special}.py", "tests/kernels/test_native.py"]
        return tuple(path for path in named if (self.root / path).exists())

    def expand(self, places: tuple[str, ...]) -> Iterator[str]:
        """The test files of folders."""
        for place in places:
            path = self.root / place
            for file in sorted(path.glob("test_*.py")) if path.is_dir() else [path]:
                if file.stem not in BESIDE and file.exists():
                    yield str(file.relative_to(self.root))


def operation_name(node: ast.ClassDef) -> str:
    """The name under which an operation's class is registered (as in minilm/ops/registry.py)."""
    name = _keywords(node).get("name")
    if isinstance(name, ast.Constant):
        return str(name.value)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name).lower().rstrip("_")


def _keywords(node: ast.ClassDef) -> dict[str | None, ast.expr]:
    return {k.arg: k.value for k in node.keywords}


def _kernels_of(node: ast.ClassDef) -> set[str]:
    """The kernels that an operation names, `kernels.softmax`."""
    return {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "kernels"
    }


def _operations_reaching(tree: ast.Module, function: str, others: bool = True) -> set[str]:
    """The operations of a module that use a function or class; itself alone without `others`, if it is one."""
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef) and "shapes" in _keywords(n)}
    reaching = {function} if function in classes and not others else _reaching(tree, function)
    return {operation_name(node) for name, node in classes.items() if name in reaching}


def _reaching(tree: ast.Module, function: str) -> set[str]:
    """The functions and classes of a module that use a function, by way of others too; itself among them."""
    uses = {
        node.name: {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    found, before = {function}, 0
    while len(found) > before:
        before = len(found)
        found |= {name for name, used in uses.items() if used & found}
    return found
