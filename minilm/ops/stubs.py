"""The stub minilm/tensor_methods.pyi, which tells editors and type checkers the methods that Tensor gets.

    python -m minilm.ops.stubs            writes it anew; after a change of the register
    python -m minilm.ops.stubs --check    says whether it is up to date (exit code 1 if not)

Operations attach themselves to Tensor when minilm is imported (minilm/ops/attach.py), so no reader of the
source alone can know `x.exp()`. The stub lists the same methods as the base class `TensorMethods`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minilm.ops import attach, random, registry, shape
from minilm.ops.registry import Composite, Operation

PATH = Path(__file__).parents[1] / "tensor_methods.pyi"
WIDTH = 120

HEADER = '''\
"""Made by `python -m minilm.ops.stubs` from the register of operations; not for editing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.ops.ordering import Sorted
from minilm.random import Generator
from minilm.tensor import Tensor

# Names of their own, since the methods float, int and bool hide Python's types in the class.
_Bool = bool
_Float = float
_Int = int
_Dim = int | Sequence[int] | None
_Ints = int | Sequence[int]
_Operand = Tensor | np.ndarray[Any, Any] | float
_Array = Tensor | np.ndarray[Any, Any]

class TensorMethods:
    """What Tensor is given by the operations."""
'''

# The types of options, by name: the same word means the same in every operation.
_OPTIONS = {
    "alpha": "_Float",
    "approximate": "str",
    "beta": "_Float",
    "chunks": "_Int",
    "correction": "_Int",
    "descending": "_Bool",
    "destination": "_Ints",
    "diagonal": "_Int",
    "dim": "_Dim",
    "dim0": "_Int",
    "dim1": "_Int",
    "dim2": "_Int",
    "dims": "_Ints",
    "end_dim": "_Int",
    "k": "_Int",
    "keepdim": "_Bool",
    "largest": "_Bool",
    "negative_slope": "_Float",
    "offset": "_Int",
    "p": "_Float | str",
    "repeats": "_Ints",
    "shape": "_Ints",
    "shifts": "_Ints",
    "sorted": "_Bool",
    "source": "_Ints",
    "split_size": "_Ints",
    "stable": "_Bool",
    "start_dim": "_Int",
    "threshold": "_Float",
    "unbiased": "_Bool | None",
}
# Where one axis is meant and not several.
_ONE_AXIS = {
    "argmax", "argmin", "argsort", "chunk", "cumsum", "gather", "index_add", "index_select", "log_softmax", "prod",
    "scatter", "scatter_add", "softmax", "sort", "split", "take_along_dim", "topk", "unbind", "unsqueeze",
}  # fmt: skip
_RESULTS = {
    "sort": "Sorted",
    "topk": "Sorted",
    "max": "Any",  # a tensor, or values and indices
    "min": "Any",
    "split": "tuple[Tensor, ...]",
    "chunk": "tuple[Tensor, ...]",
    "unbind": "tuple[Tensor, ...]",
    "allclose": "_Bool",
    "equal": "_Bool",
}
_OVERRIDES = ("__eq__", "__ne__")  # of object's, which give a bool


def stub() -> str:
    """The whole text of the stub."""
    return HEADER + "\n" + "\n\n".join(text for _, text in sorted(_methods(), key=lambda m: _order(m[0]))) + "\n"


def _order(name: str) -> tuple[bool, str]:
    """Operators last, in-place forms right behind their operations."""
    return name.startswith("__"), name


def _methods() -> Iterator[tuple[str, str]]:
    """Name and text of every method that minilm/ops attaches."""
    for op in registry.all():
        for name in op.methods:
            yield name, _method(name, op)
        if op.inplace:
            yield op.name + "_", _method(op.name + "_", op, f"`{op.name}`, written over this tensor.")
    for operator, name in attach.OPERATORS.items():
        yield operator, _method(operator, registry.get(name))
    for stem in attach.REFLECTED:
        reflected = f"__r{stem}__"
        yield reflected, _text(reflected, ["other: _Operand"], "Tensor", _first_line(attach.OPERATORS[f"__{stem}__"]))
    for operator, name in attach.IN_PLACE.items():
        yield operator, _text(operator, ["other: _Operand"], "Tensor", f"`{name}_`")
    yield "__getitem__", _text("__getitem__", ["index: Any"], "Tensor", _first_line("getitem"))
    yield "__setitem__", _text("__setitem__", ["index: Any", "value: Any"], "None", "x[index] = value, tracked.")
    plain = {**shape.METHODS, **random.METHODS, **attach.METHODS, **{f.__name__: f for f in attach.PLAIN}}
    for name, function in plain.items():
        if isinstance(function, property):
            assert function.fget is not None
            yield name, "    @property\n" + _text(name, [], "Tensor", _summary(function.fget))
        else:
            parameters = list(inspect.signature(function).parameters.values())[1:]
            arguments = [_annotated(p) for p in parameters]
            yield name, _text(name, arguments, _RESULTS.get(name, "Tensor"), _summary(function))


def _method(name: str, op: type[Operation], doc: str | None = None) -> str:
    """The text for an operation's method."""
    composed = issubclass(op, Composite)
    function = op.definition if composed else op.forward
    assert function is not None
    parameters = list(inspect.signature(function).parameters.values())[1 if composed else 2 :]
    if op.spread and not name.endswith("_"):
        arguments = [f"*{parameters[0].name}: _Ints"]
    elif name.startswith("__"):
        # an ordered comparison is also the reflection of another one: two narrow types would contradict
        ordered = name in ("__lt__", "__le__", "__gt__", "__ge__")
        arguments = [f"other: {'Any' if ordered else '_Operand'}"] if len(op.inputs) > 1 else []
    else:
        arguments = [_typed(op, p) for p in parameters]
    return _text(name, arguments, _RESULTS.get(op.name, "Tensor"), doc or _first_line(op.name))


def _typed(op: type[Operation], parameter: inspect.Parameter) -> str:
    """One parameter of an operation with the type that its name stands for."""
    name = parameter.name
    if name in op.inputs:
        kind = "_Array" if name in op.constants else "_Operand"
        kind += " | None" if parameter.default is None else ""
    elif name == "dim" and op.name in _ONE_AXIS:
        kind = "_Int | None" if parameter.default is None else "_Int"
    elif op.name in ("max", "min") and name == "dim":
        kind = "_Int | Tensor | None"
    else:
        kind = _OPTIONS.get(name, "Any")
        kind += " | None" if parameter.default is None and "None" not in kind and kind != "Any" else ""
    return f"{name}: {kind}{_default(parameter)}"


def _annotated(parameter: inspect.Parameter) -> str:
    """A parameter of an ordinary function, which has its annotation."""
    kind = re.sub(r"\b(bool|float|int)\b", lambda found: "_" + found[0].capitalize(), str(parameter.annotation))
    stars = "*" * ((parameter.kind is parameter.VAR_POSITIONAL) + 2 * (parameter.kind is parameter.VAR_KEYWORD))
    return f"{stars}{parameter.name}: {kind.replace('random.', '')}{_default(parameter)}"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    return f" = {parameter.default!r}".replace("'", '"') if parameter.default != float("inf") else " = ..."


def _text(name: str, arguments: list[str], result: str, doc: str) -> str:
    """One method, laid out as `ruff format` does."""
    arguments = ["self", *arguments]
    ignored = "  # type: ignore[override]" if name in _OVERRIDES else ""
    head = f"    def {name}({', '.join(arguments)}) -> {result}:"
    if len(head) > WIDTH:
        head = f"    def {name}(\n        {', '.join(arguments)}\n    ) -> {result}:"
        if max(map(len, head.split("\n"))) > WIDTH:
            head = f"    def {name}(\n" + "".join(f"        {a},\n" for a in arguments) + f"    ) -> {result}:"
    closing = ' """' if doc.endswith('"') else '"""'
    return f'{head}{ignored}\n        """{doc}{closing}'


def _first_line(name: str) -> str:
    return _summary(registry.get(name))


def _summary(thing: Callable[..., Any] | type) -> str:
    """The first line of a docstring, cut where it would be too long."""
    line = inspect.getdoc(thing).split("\n")[0].strip()  # type: ignore[union-attr]
    room = WIDTH - 8 - 6
    return line if len(line) <= room else line[: room - 4].rsplit(" ", 1)[0] + " ..."


def main(arguments: list[str]) -> int:
    """Write the stub, or with --check compare it. Returns the exit code."""
    text = stub()
    if "--check" in arguments:
        fresh = PATH.exists() and PATH.read_text(encoding="utf-8") == text
        print(f"{PATH.name} is {'up to date' if fresh else 'stale: run python -m minilm.ops.stubs'}")
        return 0 if fresh else 1
    PATH.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
