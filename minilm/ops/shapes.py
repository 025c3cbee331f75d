"""Shape signatures such as "(..., N, K), (..., K, M) -> (..., N, M)", read and checked.

Said once for each operation; argument checks, their messages, the documentation and the tests'
inputs come from it.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from minilm.errors import ShapeError

Pattern = tuple[str, ...]


class Signature:
    """A parsed signature.

    Attributes:
        text: as written.
        inputs, outputs: a tuple of axis names for each; "..." stands for any number of axes.
        variadic: True for "(...)*": any number of inputs of the first pattern.
        named: True where an input names an axis, so that there is something to check beforehand;
            where there are only `...`, broadcasting itself finds what does not fit.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        left, arrow, right = text.partition("->")
        if not arrow:
            raise ShapeError(f"a signature reads '(inputs) -> (outputs)', not {text!r}")
        self.variadic = "*" in left
        self.inputs = _patterns(left)
        self.outputs = _patterns(right)
        self.named = any(axis not in ("...", "?") for pattern in self.inputs for axis in pattern)
        self.broadcasts = sum("..." in pattern for pattern in self.inputs) > 1
        self._fitted: set[Any] = set()  # shapes that were found to fit: most come again and again

    def check(self, name: str, labels: tuple[str, ...], shapes: list[tuple[int, ...] | None]) -> None:
        """Raise ShapeError unless `shapes` (None for inputs left out) fit the signature."""
        known_to_fit = tuple(shapes)
        if known_to_fit in self._fitted:
            return
        sizes: dict[str, tuple[int, int]] = {}  # axis name -> its size and the input that fixed it
        lead: tuple[int, ...] = ()
        for position, (pattern, shape) in enumerate(zip(self.inputs, shapes)):
            if shape is None or "?" in pattern:
                continue
            head, tail = _split(pattern)
            free = "..." in pattern
            if len(shape) < len(head) + len(tail) or (not free and len(shape) != len(pattern)):
                raise ShapeError(
                    f"{name}: {labels[position]} {shape} has {len(shape)} axes where "
                    f"({', '.join(pattern)}) was expected"
                )
            named = list(zip(head, shape)) + list(zip(tail, shape[len(shape) - len(tail) :]))
            for axis, size in named:
                known, source = sizes.setdefault(axis, (size, position))
                if known != size:
                    raise ShapeError(self._misfit(name, labels, shapes, source, position, known, size, axis))
            if free:
                middle = shape[len(head) : len(shape) - len(tail)]
                try:
                    lead = np.broadcast_shapes(lead, middle)
                except ValueError:
                    raise ShapeError(
                        f"{name}: {_listing(labels, shapes)} do not fit: "
                        f"the leading axes {lead} and {middle} do not broadcast"
                    ) from None
        if len(self._fitted) >= 1000:
            self._fitted.clear()
        self._fitted.add(known_to_fit)

    @staticmethod
    def _misfit(name: str, labels: Any, shapes: Any, first: int, second: int, known: int, size: int, axis: str) -> str:
        return (
            f"{name}: {labels[first]} {shapes[first]} and {labels[second]} {shapes[second]} "
            f"do not fit: {axis} is {known} in {labels[first]} and {size} in {labels[second]}, {known} is not {size}"
        )

    def __repr__(self) -> str:
        return self.text


def broadcast_error(name: str, labels: tuple[str, ...], shapes: list[tuple[int, ...] | None]) -> ShapeError | None:
    """The error for shapes that do not broadcast, naming the first two sizes that differ; None if they do."""
    given = [(label, shape) for label, shape in zip(labels, shapes) if shape is not None]
    width = max((len(shape) for _, shape in given), default=0)
    for axis in range(1, width + 1):
        seen = 1
        for _, shape in given:
            size = shape[-axis] if axis <= len(shape) else 1
            if size != 1 and seen != 1 and size != seen:
                return ShapeError(
                    f"{name}: {_listing(labels, shapes)} do not broadcast: {seen} is not {size} (axis -{axis})"
                )
            seen = size if seen == 1 else seen
    return None


def _listing(labels: Any, shapes: Any) -> str:
    return " and ".join(f"{label} {shape}" for label, shape in zip(labels, shapes) if shape is not None)


def _split(pattern: Pattern) -> tuple[Pattern, Pattern]:
    """The named axes before and after the "..."."""
    if "..." not in pattern:
        return pattern, ()
    at = pattern.index("...")
    return pattern[:at], pattern[at + 1 :]


def _patterns(text: str) -> list[Pattern]:
    """ "(..., C), (C,)" as [("...", "C"), ("C",)]."""
    return [
        tuple(axis.strip() for axis in group.split(",") if axis.strip()) for group in re.findall(r"\(([^)]*)\)", text)
    ]
