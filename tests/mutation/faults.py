"""Faults in gradients, made from the syntax tree of the code as it is.

A fault replaces one expression or statement by a wrong one. What is wrong is its kind: a term is dropped, a sign is
flipped, a sum over a broadcast axis is forgotten, and so on (`KINDS`). Where it may stand: see places.py.
"""

from __future__ import annotations

import ast
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

Change = tuple[ast.AST, str]  # what is replaced, and by which text


@dataclass(frozen=True)
class Fault:
    """One wrong piece of code.

    Attributes:
        kind: what is wrong with it, a key of KINDS.
        file, function, line: where; the file from the root of the repository.
        start, end: the bytes of the file that are replaced.
        before, after: what stands there, and what takes its place.
        number: tells apart the faults of one kind in one line.
    """

    kind: str
    file: str
    function: str
    line: int
    start: int
    end: int
    before: str
    after: str
    number: int = 0

    @property
    def id(self) -> str:
        """The name of the fault: `sign minilm/ops/pointwise.py:Neg.backward:120`."""
        place = f"{self.kind} {self.file}:{self.function}:{self.line}"
        return f"{place}#{self.number}" if self.number else place

    def planted(self, source: bytes) -> bytes:
        """The file's text with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]


@dataclass(frozen=True)
class Site:
    """A node of the tree, and what the kinds want to know of its surroundings."""

    node: ast.AST
    text: Text
    function: ast.FunctionDef
    indexing: bool  # inside an index, a range or a shape: a number here is a place, no part of a gradient
    branching: bool  # inside the condition of an `if` that NumPy's shapes and options decide: both ways may be right
    factor: bool  # a factor of a product that is a site itself


class Text:
    """A source file and the pieces of it that belong to nodes."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.tree = ast.parse(source)
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The first byte of a node, and the one behind its last."""
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.source[start:end].decode()


# --- the kinds: from a site the wrong texts for it ----------------------------------------------------

SHAPING = {"range", "_columns", "slice", "reshape", "zeros", "empty", "permute", "broadcast_to", "full", "view"}
PRODUCTS = {"matmul", "matrix_product"}
SUMS = {"sum_to", "_sum_to", "_summed_to", "sum_to_size", "sum_rows", "_over_rows"}
ALONG = {"sum", "mean", "max", "amax", "cumsum", "argsort", "softmax", "flip", "squeeze", "unsqueeze", "split"}
COMPARED = {"eq": "!=", "ge": ">", "gt": ">=", "le": "<", "lt": "<="}
STRICTER = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
SIGNS = {ast.Add: "-", ast.Sub: "+"}


def dropped_term(site: Site) -> Iterator[Change]:
    """A + b becomes a, or b; what was to be added in place is not added."""
    node, of = site.node, site.text.of
    if site.indexing or site.branching:
        return
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield node, f"({of(node.left)})"
        yield node, f"({of(node.right)})" if isinstance(node.op, ast.Add) else f"(-({of(node.right)}))"
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield node, "pass"


def sign(site: Site) -> Iterator[Change]:
    """+ becomes -, - becomes +, a product is negated, a minus forgotten."""
    node, of = site.node, site.text.of
    if site.indexing or site.branching:
        return
    if isinstance(node, ast.BinOp) and type(node.op) in SIGNS:
        yield node, f"({of(node.left)} {SIGNS[type(node.op)]} ({of(node.right)}))"
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and not site.factor:
        yield node, f"(-({of(node)}))"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield node, f"({of(node.operand)})"
    elif isinstance(node, ast.AugAssign) and type(node.op) in SIGNS:
        yield node, f"{of(node.target)} {SIGNS[type(node.op)]}= {of(node.value)}"
    elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Mult):
        yield node, f"{of(node.target)} *= -({of(node.value)})"


def factor(site: Site) -> Iterator[Change]:
    """Twice what it should be, or a thousandth too much."""
    node, of = site.node, site.text.of
    if site.indexing or site.branching:
        return
    wrong = node
    if isinstance(node, ast.AugAssign) and isinstance(node.op, (ast.Mult, ast.Div, ast.Add, ast.Sub)):
        wrong = node.value
    elif isinstance(node, ast.Return) and "backward" in site.function.name:
        results = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        for result in [part for r in results for part in ((r.body, r.orelse) if isinstance(r, ast.IfExp) else (r,))]:
            if isinstance(result, (ast.Name, ast.Call, ast.Subscript)) and not of(result).startswith("kernels."):
                yield result, f"(({of(result)}) * 1.001)"
        return
    elif not (isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)) and not site.factor):
        return
    yield wrong, f"(({of(wrong)}) * 2)"
    yield wrong, f"(({of(wrong)}) * 1.001)"


def axis(site: Site) -> Iterator[Change]:
    """Along another axis."""
    node, of = site.node, site.text.of
    if not isinstance(node, ast.Call):
        return
    called = _called(node)
    chosen = [k.value for k in node.keywords if k.arg in ("dim", "axis")]
    if called in ALONG and not any(isinstance(arg, (ast.GeneratorExp, ast.ListComp)) for arg in node.args):
        method = isinstance(node.func, ast.Attribute)
        chosen += node.args[0:1] if method else node.args[1:2]
    if called in ("permute", "transpose") and node.args and isinstance(node.args[-1], ast.Tuple):
        first, second, *rest = [of(e) for e in node.args[-1].elts]
        yield node.args[-1], f"({', '.join([second, first, *rest])})"
    for where in chosen:
        text = of(where)
        yield where, {"-1": "0", "0": "-1", "-2": "-1"}.get(text, "0")
        if text == "-1":
            yield where, "-2"


def missing_sum(site: Site) -> Iterator[Change]:
    """A sum over the axes of a broadcast, or over rows, that does not happen; or that loses its axis."""
    node, of = site.node, site.text.of
    if not isinstance(node, ast.Call):
        return
    called = _called(node)
    if called in SUMS and node.args:
        yield node, f"({of(node.args[0])})"
    elif called == "sum" and isinstance(node.func, ast.Attribute):
        yield node, f"({of(node.func.value)})"
    elif called == "sum" and len(node.args) > 1:
        yield node, f"({of(node.args[0])})"
    for keyword in node.keywords:
        if keyword.arg in ("keepdim", "keepdims") and of(keyword.value) == "True":
            yield keyword.value, "False"
    if called in ALONG and len(node.args) == 3 and of(node.args[2]) == "True":
        yield node.args[2], "False"


def transposed(site: Site) -> Iterator[Change]:
    """A transpose forgotten; the factors of a product of matrices swapped."""
    node, of = site.node, site.text.of
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node, f"({of(node.value)})"
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "swapaxes":
        yield node, f"({of(node.func.value)})"
    elif isinstance(node, ast.Call) and _called(node) == "transposed":
        yield node, f"({of(node.args[0])})"
    elif isinstance(node, ast.Call) and _called(node) in PRODUCTS and len(node.args) >= 2:
        yield from _swapped(node, node.args[:2], of)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult) and of(node.left) != of(node.right):
        yield node, f"({of(node.right)} @ {of(node.left)})"


def stale_save(site: Site) -> Iterator[Change]:
    """Two saved values in each other's place; an input saved where the output is needed, or the other way round."""
    node, of = site.node, site.text.of
    if isinstance(node, ast.Call) and _called(node) == "save":
        yield from _swaps(node, node.args, of)
        results = {of(s.value) for s in ast.walk(site.function) if isinstance(s, ast.Return) and s.value is not None}
        inputs = [a.arg for a in site.function.args.args[1:2]]
        for arg in node.args:
            for other in inputs if of(arg) in results else sorted(r for r in results if r.isidentifier()):
                if isinstance(arg, ast.Name) and of(arg) != other:
                    yield arg, other
    elif isinstance(node, ast.Assign) and of(node.value) == "ctx.saved" and isinstance(node.targets[0], ast.Tuple):
        yield from _swaps(node, node.targets[0].elts, of)
    elif isinstance(node, ast.Call) and _called(node).endswith("_backward"):
        yield from _swaps(node, node.args, of)


def mask(site: Site) -> Iterator[Change]:
    """What is chosen and what is left out are swapped, or an edge counts as inside."""
    node, of = site.node, site.text.of
    if isinstance(node, ast.Call) and _called(node) == "where" and len(node.args) == 3:
        yield from _swapped(node, node.args[1:], of)
    elif isinstance(node, ast.Call) and _called(node) in COMPARED and len(node.args) == 2:
        first, second = map(of, node.args)
        yield node, f"(({first}) {COMPARED[_called(node)]} ({second}))"
    elif isinstance(node, ast.Call) and _called(node) == "masked_fill":
        yield node.args[1], f"(~({of(node.args[1])}))"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in STRICTER and not site.branching:
        yield node, f"({of(node.left)} {STRICTER[type(node.ops[0])]} {of(node.comparators[0])})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        yield node, f"({of(node.operand)})"


def index(site: Site) -> Iterator[Change]:
    """One row or element too few, or the neighbour of the right one."""
    node, of = site.node, site.text.of
    if isinstance(node, ast.Call) and _called(node) == "range":
        yield node.args[0 if len(node.args) == 1 else 1], f"({of(node.args[0 if len(node.args) == 1 else 1])}) - 1"
        yield node, f"range(1, {of(node.args[0])})" if len(node.args) == 1 else f"{of(node)}[1:]"
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        if node.slice.upper is not None:
            yield node.slice.upper, f"({of(node.slice.upper)}) - 1"
        if node.slice.lower is not None:
            yield node.slice.lower, f"({of(node.slice.lower)}) + 1"
    elif isinstance(node, ast.Subscript) and of(node.value).endswith("shape") and of(node.slice) in ("-1", "-2"):
        yield node.slice, "-2" if of(node.slice) == "-1" else "-1"


KINDS = {
    "dropped-term": dropped_term,
    "sign": sign,
    "factor": factor,
    "axis": axis,
    "missing-sum": missing_sum,
    "transposed": transposed,
    "stale-save": stale_save,
    "mask": mask,
    "index": index,
}


def _called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _swapped(whole: ast.AST, pair: list[ast.expr], of: Callable[[ast.AST], str]) -> Iterator[Change]:
    """`whole` with two of its parts, neighbours in the text, in each other's place."""
    first, second = pair
    text, begin = of(whole), whole
    left, right = of(first), of(second)
    if left == right or any(isinstance(part, ast.Starred) for part in pair):
        return
    start = _offset(begin, first, text)
    middle = text[start + len(left) : _offset(begin, second, text)]
    end = start + len(left) + len(middle) + len(right)
    yield whole, text[:start] + right + middle + left + text[end:]


def _offset(whole: ast.AST, part: ast.AST, text: str) -> int:
    """Where a part begins in the text of the whole, which is ASCII up to there."""
    lines = text.splitlines(keepends=True)
    row = part.lineno - whole.lineno
    return sum(map(len, lines[:row])) + part.col_offset - (whole.col_offset if row == 0 else 0)


def _swaps(whole: ast.AST, parts: list[ast.expr], of: Callable[[ast.AST], str]) -> Iterator[Change]:
    for pair in itertools.pairwise(parts):
        if "_" not in map(of, pair):
            yield from _swapped(whole, list(pair), of)


# --- all faults of some functions -----------------------------------------------------------------------


def faults_in(file: str, text: Text, functions: dict[str, ast.FunctionDef]) -> Iterator[Fault]:
    """Every fault of every kind in these functions; of a `forward` just what it saves for the backward."""
    for name, function in functions.items():
        for site in sites(text, function):
            for kind, changes in KINDS.items():
                if function.name == "forward" and kind != "stale-save":
                    continue
                for node, after in changes(site):
                    start, end = text.span(node)
                    yield Fault(kind, file, name, node.lineno, start, end, text.of(node), after)


def sites(text: Text, function: ast.FunctionDef) -> Iterator[Site]:
    """Every node of a function that computes: no docstring, no annotation, no message of an error."""
    compiled = bool(function.decorator_list)  # by Numba: its conditions are about single elements

    def walk(node: ast.AST, indexing: bool, branching: bool, factor: bool) -> Iterator[Site]:
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.arguments)):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.BinOp) and text.of(node).endswith("* 0"):
            return  # a slope of 0: no sign and no factor makes it wrong
        yield Site(node, text, function, indexing, branching, factor)
        product = isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div))
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            inside = indexing or (isinstance(node, ast.Subscript) and name == "slice")
            if isinstance(node, ast.Call) and name in ("args", "keywords") and _called(node) in SHAPING:
                inside = True
            choosing = branching or (isinstance(node, (ast.If, ast.IfExp)) and name == "test" and not compiled)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    deeper = inside and not _is_array(node, name, child)
                    yield from walk(child, deeper, choosing, product and isinstance(child, ast.BinOp))

    for statement in function.body:
        yield from walk(statement, False, False, False)


def _is_array(node: ast.AST, field: str, child: ast.AST) -> bool:
    """The first argument of `reshape(x, shape)` is what is shaped, no shape."""
    if not isinstance(node, ast.Call) or _called(node) not in ("reshape", "permute", "broadcast_to"):
        return False
    return isinstance(node.func, ast.Name) and field == "args" and child is node.args[0]


def choose(faults: Iterable[Fault], count: int, seed: int) -> list[Fault]:
    """`count` of them, spread over functions first, then kinds, then files; the same ones for the same seed."""
    left = sorted(faults, key=lambda fault: fault.id)
    random.Random(seed).shuffle(left)
    used: Counter[tuple[str, ...]] = Counter()
    chosen: list[Fault] = []
    while left and len(chosen) < count:
        fault = min(left, key=lambda f: (used[f.file, f.function], used[f.kind,], used[f.file,]))
        left.remove(fault)
        chosen.append(fault)
        used.update([(fault.file, fault.function), (fault.kind,), (fault.file,)])
    return chosen


def numbered(faults: Iterable[Fault]) -> list[Fault]:
    """The same, each text once and each id once."""
    different = {(f.file, f.start, f.end, f.after): f for f in faults}
    seen: Counter[str] = Counter()
    result = []
    for fault in different.values():
        result.append(replace(fault, number=seen[fault.id]))
        seen[fault.id] += 1
    return result
