"""Modules for people: the tree that `repr` shows and the table of `summary`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minilm.modes import no_grad
from minilm.tensor import Tensor

if TYPE_CHECKING:
    from minilm.nn.module import Module


class Table(str):
    """Text that shows itself as it is, with or without `print`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def tree(module: Module) -> str:
    """The module and its parts, indented; equal neighbours of a ModuleList stand on one line."""
    lines = [f"({name}): {_indented(text)}" for name, text in _branches(module)]
    extra = module.extra_repr()
    name = type(module).__name__
    if not lines:
        return f"{name}({_indented(extra)})" if "\n" not in extra else f"{name}(\n  {_indented(extra)}\n)"
    body = [*extra.split("\n"), *lines] if extra else lines
    return f"{name}(\n  " + "\n  ".join(body) + "\n)"


def _branches(module: Module) -> list[tuple[str, str]]:
    """The name and text of each part; runs of equal ones in a list as `(0-3): 4 x Block(...)`."""
    parts = [(name, repr(part)) for name, part in module._modules.items()]
    if not getattr(module, "_merges_equal_parts", False):
        return parts
    runs: list[tuple[str, str, int, str]] = []  # first name, last name, how many, text
    for name, text in parts:
        if runs and runs[-1][3] == text:
            first, _, count, _ = runs[-1]
            runs[-1] = (first, name, count + 1, text)
        else:
            runs.append((name, name, 1, text))
    return [
        (first, text) if count == 1 else (f"{first}-{last}", f"{count} x {text}") for first, last, count, text in runs
    ]


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


def summary(module: Module, inputs: tuple[Any, ...], named_inputs: dict[str, Any]) -> Table:
    """One line for each part: name, type, output shape, its own parameters and their bytes; then the totals.

    Output shapes are known where inputs are given: the module is run on them once, in evaluation
    mode and without a tape. A shared parameter counts where it stands first.
    """
    ran = bool(inputs or named_inputs)
    shapes = _output_shapes(module, inputs, named_inputs) if ran else {}
    seen: set[int] = set()
    rows = [["name", "type", *(["output shape"] if ran else []), "parameters", "bytes"]]
    for name, part in module.named_modules():
        own = [p for p in part._parameters.values() if p is not None and id(p) not in seen]
        seen.update(map(id, own))
        shape = [shapes.get(id(part), "-")] if ran else []
        count, size = sum(p.numel() for p in own), sum(p.array.nbytes for p in own)
        rows.append([name or "(whole)", type(part).__name__, *shape, f"{count:,}", f"{size:,}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_row(row, widths) for row in rows]
    rule = "-" * len(lines[0])
    return Table("\n".join([lines[0], rule, *lines[1:], rule, *_totals(module)]))


def _row(row: list[str], widths: list[int]) -> str:
    """Words to the left, the last two columns (numbers) to the right."""
    cells = [cell.ljust(w) if i < len(row) - 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
    return "  ".join(cells)


def _totals(module: Module) -> list[str]:
    parameters = list(module.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    total = sum(p.numel() for p in parameters)
    lines = [f"{total:,} parameters ({learning:,} learn), {sum(p.array.nbytes for p in parameters):,} bytes"]
    buffers = list(module.buffers())
    if buffers:
        held = sum(b.array.nbytes for b in buffers)
        lines.append(f"{len(buffers):,} buffers, {held:,} bytes")
    return lines


def _output_shapes(module: Module, inputs: tuple[Any, ...], named_inputs: dict[str, Any]) -> dict[int, str]:
    """Run the module once and note what shape each part gave, by the part's identity."""
    shapes: dict[int, str] = {}
    parts = list(module.modules())
    modes = [part.training for part in parts]

    def note(part: Module, _: Any, output: Any) -> None:
        shapes[id(part)] = _shape(output)

    handles = [part.register_forward_hook(note) for part in parts]
    try:
        module.eval()
        with no_grad():
            module(*inputs, **named_inputs)
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in zip(parts, modes):
            part.training = mode
    return shapes


def _shape(output: Any) -> str:
    """The shape of a tensor, or those of several."""
    if isinstance(output, Tensor):
        return str(output.shape)
    if isinstance(output, (tuple, list)):
        return ", ".join(_shape(o) for o in output if o is not None)
    return type(output).__name__
