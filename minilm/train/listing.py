"""The runs in a folder, and how they stand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from minilm.errors import CheckpointError, LockedError
from minilm.files import locked
from minilm.train.checkpoint import checkpoints, read_record
from minilm.train.display import clock

COLUMNS = ("step", "loss", "validation", "best", "time", "last checkpoint")


def find_runs(folder: Path) -> Iterator[Path]:
    """`folder` itself, if it is a run, else the runs right in it, by name. Errors: CheckpointError if there is none."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    found = [folder] if checkpoints(folder) else [path for path in sorted(folder.iterdir()) if checkpoints(path)]
    if not found:
        raise CheckpointError(f"{folder}: holds no runs")
    yield from found


def state(folder: Path) -> dict[str, Any]:
    """A run's progress, and its "state": "running", "done", "stopped early", "interrupted" or "damaged"."""
    path = checkpoints(folder)[0]
    try:
        record = read_record(path)
        found = {**record["progress"], "steps": record["config"]["steps"], "changed": path.stat().st_mtime}
        ended = "done" if found["step"] >= found["steps"] else "stopped early" if found["stopped"] else "interrupted"
    except (CheckpointError, OSError, KeyError, TypeError) as error:
        return {"state": "damaged", "why": str(error)}
    try:
        with locked(folder):
            return {**found, "state": ended}
    except LockedError:
        return {**found, "state": "running"}


def table(folder: Path) -> Table:
    """All runs in `folder`, one a line."""
    made = Table(box=None, pad_edge=False)
    for name in ("run", "state"):
        made.add_column(name, overflow="fold")
    for name in COLUMNS:
        made.add_column(name, justify="right", overflow="fold")
    for path in find_runs(folder):
        found = state(path)
        if found["state"] == "damaged":
            made.add_row(str(path), "damaged")
            continue
        losses = (found[key] for key in ("loss", "validation_loss", "best_validation_loss"))
        made.add_row(
            str(path),
            found["state"],
            f"{found['step']}/{found['steps']}",
            *("-" if loss is None else f"{loss:.3f}" for loss in losses),
            clock(found["seconds"]),
            time.strftime("%Y-%m-%d %H:%M", time.localtime(found["changed"])),
        )
    return made
