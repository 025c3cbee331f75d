"""What a script asks of PyTorch that is not there, found by reading it, before any of it runs.

The script is parsed, not executed. Seen are imports of `torch` and what is under it, with their aliases, and the
attributes of those modules, as far as modules go: `nn.Conv9d` in `import torch.nn as nn`, `torch.fft.rfft`, `F.foo`.
Methods of tensors and modules are not: nobody knows, before it runs, what `x` is in `x.foo()`.

What may never be reached is not refused beforehand; if it is reached, the same error is raised there:

- the body of a `try` with a handler for ImportError, AttributeError or anything above them;
- the body of an `if` (or of a conditional expression) whose test asks about a GPU or about PyTorch itself: it mentions
  `torch.cuda`, `torch.accelerator`, `torch.backends`, `torch.mps`, `torch.distributed` or `torch.__version__`, or a
  name that was assigned from such an expression (`use_cuda = torch.cuda.is_available()`), asks `hasattr(torch, ...)`,
  or compares with "cuda" or "mps"; with `not` before such a test, the `else`. `TYPE_CHECKING` counts too.

Names are followed through the whole file, without regard for functions: who uses `nn` for something else as well is
believed to mean the module.
"""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from minilm.compat.modules import MissingNameError, StandIn, build, said
from minilm.errors import MinilmError

# Libraries that compute with PyTorch themselves, and so cannot with anything else.
BUILT_ON_TORCH = frozenset(
    ("torchvision", "torchtext", "torchaudio", "torchmetrics", "pytorch_lightning", "lightning", "transformers")
)
CAUGHT = frozenset(["ImportError", "ModuleNotFoundError", "AttributeError", "Exception", "BaseException"])
ASKED = ("torch.cuda", "torch.accelerator", "torch.backends", "torch.mps", "torch.distributed", "torch.__version__")


class ScriptError(MinilmError, ValueError):
    """A script that cannot be run: it is not there, no Python, or asks for names that minilm has not."""


@dataclass(frozen=True)
class Missing:
    """One name that is not there: the first line that asks for it, and the sentence about it."""

    line: int
    message: str


def check_script(path: str | Path) -> ast.Module:
    """The script, parsed, once nothing in it is known to be missing.

    Errors: ScriptError that lists every missing name with its line, or says in one line why there is no script to run:
    a missing file, a folder, a syntax error, text that is not UTF-8 (nor what it says it is).
    """
    tree = parsed(Path(path))
    missing = missing_names(tree)
    if missing:
        lines = [f"  line {m.line}: {m.message}" for m in missing]
        raise ScriptError("\n".join([f"{path}: this script asks for what minilm has not", *lines]))
    return tree


def parsed(path: Path) -> ast.Module:
    """The script's syntax tree. Errors: ScriptError in one line."""
    if path.is_dir():
        raise ScriptError(f"{path}: this is a folder, not a script")
    if not path.exists():
        raise ScriptError(f"{path}: there is no such file")
    try:
        with tokenize.open(path) as file:
            source = file.read()
        return ast.parse(source, str(path))
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise ScriptError(f"{path}{where}: {error.msg}") from None
    except (UnicodeDecodeError, ValueError) as error:  # bytes that are no text, or a null among them
        raise ScriptError(f"{path}: this is no Python text ({error})") from None
    except OSError as error:
        raise ScriptError(f"{path}: {error.strerror or error}") from None


def missing_names(tree: ast.Module) -> list[Missing]:
    """Every name that the script asks of PyTorch and that is not there, each once, in the order of lines."""
    reader = _Reader(tree)
    reader.visit(tree)
    first: dict[str, int] = {}
    for line, message in reader.found:
        first[message] = min(line, first.get(message, line))
    return sorted((Missing(line, message) for message, line in first.items()), key=lambda m: (m.line, m.message))


class _Reader(ast.NodeVisitor):
    """Walks over the script's tree with the names by which it knows PyTorch's modules."""

    def __init__(self, tree: ast.Module) -> None:
        self.modules = build()
        self.aliases: dict[str, str] = {}  # a local name -> "torch.nn"
        self.found: list[tuple[int, str]] = []
        for node in ast.walk(tree):  # all of them first: a function may stand above an import
            for local, whole in _bindings(node):
                if whole in self.modules:
                    self.aliases[local] = whole
        self.answers: set[str] = set()  # names that hold the answer to a question about a GPU
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and self._asks(node.value):
                self.answers |= {target.id for target in node.targets if isinstance(target, ast.Name)}

    # --- what is asked for ------------------------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:
        """`import torch.x as y`."""
        for alias in node.names:
            self._module(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """`from torch.x import y`."""
        if node.level or not node.module:
            return
        if self._module(node.module, node.lineno) and node.module in self.modules:
            for alias in node.names:
                if alias.name != "*":
                    self._name(self.modules[node.module], alias.name, node.lineno)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """`torch.x.y`: each part as long as what stands before it is a module."""
        whole = self._dotted(node)
        if whole is None:
            self.generic_visit(node)
        elif isinstance(node.ctx, ast.Load):
            self._path(whole, node.lineno)
        else:
            self.visit(node.value)

    def _module(self, name: str, line: int) -> bool:
        """Whether a module that is imported is there, as far as it is PyTorch's."""
        top = name.partition(".")[0]
        if top in BUILT_ON_TORCH:
            self.found.append((line, f"minilm has no {top}: it computes with PyTorch itself"))
            return False
        return top != "torch" or name in self.modules or self._path(name, line)

    def _path(self, whole: str, line: int) -> bool:
        """Follow `torch.a.b` through the modules, and note the first part that is not there."""
        at, *rest = whole.split(".")
        for name in rest:
            if f"{at}.{name}" not in self.modules:
                return self._name(self.modules[at], name, line)
            at = f"{at}.{name}"
        return True

    def _name(self, module: StandIn, name: str, line: int) -> bool:
        """Note a name that the module has not."""
        try:
            getattr(module, name)
        except MissingNameError:
            self.found.append((line, said(module, name)))
            return False
        except AttributeError:  # `__file__` and the like
            return True
        return True

    def _dotted(self, node: ast.expr) -> str | None:
        """`nn.functional.x` as "torch.nn.functional.x"; None for what does not begin with a module of PyTorch's."""
        if isinstance(node, ast.Name):
            return self.aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            before = self._dotted(node.value)
            return None if before is None else f"{before}.{node.attr}"
        return None

    # --- what may never be reached ----------------------------------------------------------------

    def visit_Try(self, node: ast.Try) -> None:
        """The body is left out where its failing is reckoned with."""
        caught = any(handler.type is None or CAUGHT & set(_words(handler.type)) for handler in node.handlers)
        self._visit_all([*(() if caught else node.body), *node.handlers, *node.orelse, *node.finalbody])

    def visit_If(self, node: ast.If) -> None:
        """The branch that needs a GPU, or another PyTorch, is left out."""
        self._visit_branches(node.test, node.body, node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        """As `if`."""
        self._visit_branches(node.test, [node.body], [node.orelse])

    def _visit_branches(self, test: ast.expr, body: Sequence[ast.AST], orelse: Sequence[ast.AST]) -> None:
        if not self._asks(test):
            self._visit_all([test, *body, *orelse])
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._visit_all(body)
        else:
            self._visit_all(orelse)

    def _asks(self, test: ast.expr) -> bool:
        """Whether a test asks about a GPU or about PyTorch itself."""
        for node in ast.walk(test):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                if node.value.partition(":")[0] in ("cuda", "mps"):
                    return True
            elif isinstance(node, (ast.Name, ast.Attribute)):
                whole = self._dotted(node) or ""
                if whole.startswith(ASKED) or "TYPE_CHECKING" in _words(node):
                    return True
                if isinstance(node, ast.Name) and node.id in self.answers:
                    return True
            elif isinstance(node, ast.Call) and _words(node.func) == ["hasattr"]:
                return self._dotted(node.args[0]) is not None
        return False

    def _visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)


def _bindings(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The local names that an import binds, with the whole names of what they stand for."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            top = alias.name.partition(".")[0]
            yield (alias.asname, alias.name) if alias.asname else (top, top)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _words(node: ast.AST) -> list[str]:
    """The names in an expression, `a.b` giving both."""
    words = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    return words + [n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)]
