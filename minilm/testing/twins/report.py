"""What a comparison found: one row a value, the first place where the two sides part, and why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from minilm.testing.same import Difference

COLUMNS = ("what", "name", "shape", "error", "at", "ulp", "")


@dataclass(frozen=True)
class Row:
    """One value on both sides.

    Attributes:
        kind: "weight", "input", "forward", "loss", "gradient" or "step 1", "step 2" ... (parameters after it).
        name: of the module or parameter. shape: of our value.
        error: the worst error, as a share of the largest value of PyTorch's tensor; infinite beside NaN, or where
            shapes differ or one side has no value. index: where it is. ulp: how many floating numbers lie between.
        agrees: whether all elements lie within the tolerance.
        difference: all that is known of it; None where only one side has a value, as `note` says.
    """

    kind: str
    name: str
    shape: tuple[int, ...]
    error: float
    index: tuple[int, ...] | None
    ulp: int | str | None
    agrees: bool
    difference: Difference | None = None
    note: str = ""

    @staticmethod
    def of(kind: str, name: str, found: Difference) -> Row:
        """The row of a difference."""
        note = "" if found.shapes_agree else f"shapes {found.shapes[0]} and {found.shapes[1]}"
        error, index = found.relative, found.index
        return Row(kind, name, found.shapes[0], error, index, found.ulp, found.agrees, found, note)

    @staticmethod
    def missing(kind: str, name: str, shape: tuple[int, ...], note: str) -> Row:
        """The row of a value that only one side has."""
        return Row(kind, name, shape, float("inf"), None, None, False, None, note)

    def at_step(self, step: int) -> Row:
        """The same, of a later step of a script."""
        return replace(self, name=f"{self.name}@{step}")

    def cells(self) -> tuple[str, ...]:
        """What stands in the table."""
        shape, index = ("" if t is None else str(t).replace(" ", "") for t in (self.shape, self.index))
        ulp = "" if self.ulp is None else str(self.ulp)
        verdict = self.note or ("agrees" if self.agrees else "DIFFERS")
        return self.kind, self.name, shape, f"{self.error:.1e}", index, ulp, verdict


@dataclass(frozen=True)
class Explanation:
    """Why the first difference is there.

    Attributes:
        text: the sentence. cause: the name of the cause, "" if none is known.
        label: what was changed, to make it vanish. side: where: "minilm" or "PyTorch". operation: in which operation.
        remaining: the largest error that was left then. others: the names of other causes that leave none either.
    """

    text: str
    cause: str = ""
    label: str = ""
    side: str = ""
    operation: str = ""
    remaining: float = float("inf")
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass
class Report:
    """All rows in the order in which the values come about, and the first difference explained.

    Attributes:
        rows: see `Row`; gradients in the order in which the backward pass makes them.
        explanation: of the first row that differs; None if all agree, or if it was not asked for.
        only_ours, only_theirs: modules that ran on one side only: they were not compared.
        differently: modules that were given other arguments than their twins, and gave other results: the same.
    """

    rows: list[Row] = field(default_factory=list)
    explanation: Explanation | None = None
    only_ours: list[str] = field(default_factory=list)
    only_theirs: list[str] = field(default_factory=list)
    differently: list[str] = field(default_factory=list)

    @property
    def first(self) -> Row | None:
        """The first row that differs; None if all agree."""
        return next((row for row in self.rows if not row.agrees), None)

    @property
    def agrees(self) -> bool:
        """Whether all rows agree."""
        return self.first is None

    @property
    def conclusion(self) -> str:
        """The last line: that all agree, or the first difference, explained if that was asked for."""
        first = self.first
        if first is None:
            return f"all {len(self.rows)} values agree"
        if self.explanation is not None:
            return self.explanation.text
        return f"{first.kind} {first.name} differs first: {first.note or first.difference}"

    def notes(self) -> list[str]:
        """What was not compared, in words."""
        sides = (("minilm", self.only_ours), ("PyTorch", self.only_theirs))
        said = [f"called on {side}'s side only, not compared: {', '.join(names)}" for side, names in sides if names]
        if self.differently:
            said.append(f"called with other arguments on either side, not compared: {', '.join(self.differently)}")
        return said

    def __str__(self) -> str:
        cells = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in cells]
        return "\n".join([*lines, *self.notes(), self.conclusion])

    def __rich__(self) -> Any:
        """The table for rich: what differs is red, the first of it bold."""
        table = Table(*COLUMNS, box=None, header_style="dim", caption_justify="left", pad_edge=False)
        first = self.first
        for row in self.rows:
            style = "" if row.agrees else "bold red" if row is first else "red"
            table.add_row(*(Text(cell) for cell in row.cells()), style=style)
        last = [*self.notes(), self.conclusion]
        table.caption = Text("\n".join(last), style="green" if first is None else "bold")
        return table

    def show(self, console: Console | None = None) -> None:
        """Print the table: with colours on a terminal, as plain text elsewhere."""
        console = console or Console()
        if console.is_terminal:
            console.print(self)
        else:
            print(self, file=console.file)
