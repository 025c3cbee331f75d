"""An evaluation as a page of Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.evaluation.intervals import Measure
from minilm.files import written_whole

TABLED = 12  # classes up to which the confusion matrix is written out


def write_report(
    path: str | os.PathLike[str],
    title: str,
    measures: Mapping[str, Measure],
    examples: int,
    seconds: float,
    memory: int,
    about: Mapping[str, object] | None = None,
    confusion: NDArray[np.integer[Any]] | None = None,
    names: Sequence[str] = (),
    picture: str | None = None,
    sections: Sequence[str] = (),
) -> None:
    """Write measures with their intervals, what they were taken of, and what it cost; whole or not at all.

    examples, seconds, memory: how many were predicted, in what time, with how many bytes at most.
    about: further rows, as model, data or versions. confusion, names: a matrix (K, K) and its K classes.
    picture: the name of an image beside the report. sections: further lines, as they are.

    Errors: OSError of the file system.
    """
    lines = [f"# {_cell(title)}", ""]
    if measures:
        confidence = next(iter(measures.values())).confidence
        rows: list[Sequence[object]] = [
            (name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}", m.method) for name, m in measures.items()
        ]
        lines += _table(("measure", "value", f"{confidence:.0%} interval", "method of the interval"), rows)
    facts: dict[str, object] = {**(about or {}), "examples": f"{examples:,}"}
    facts["time"] = f"{seconds:.1f} s" + (f" ({examples / seconds:,.1f} examples/s)" if seconds > 0 else "")
    facts["peak memory"] = f"{memory / 1e6:,.0f} MB"
    lines += _table(("what", "value"), list(facts.items()))
    if confusion is not None and len(names) <= TABLED:
        lines += ["True classes in rows, predicted ones in columns:", ""]
        table = [(name, *row.tolist()) for name, row in zip(names, confusion)]
        lines += _table(("", *names), table)
    if picture is not None:
        lines += [f"![confusion matrix]({picture})", ""]
    lines += sections
    with written_whole(Path(path)) as file:
        file.write("\n".join(lines).encode("utf-8"))


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(map(_cell, line)) + " |" for line in lines] + [""]


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
