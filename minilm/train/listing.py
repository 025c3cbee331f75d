"""The runs in a folder, and how they stand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from minilm.display import clock
from minilm.errors import CheckpointError, LockedError
from minilm.files import locked
from minilm.train.checkpoint import checkpoints, read_record
from minilm.train.observers import LOG, read_log

COLUMNS = ("step", "loss", "validation", "best", "time", "written")


def find_runs(folder: Path) -> Iterator[Path]:
    """`folder` itself, if it is a run, else the runs right in it, by name. Errors: CheckpointError if there is none."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder")
    found = [folder] if checkpoints(folder) else [path for path in sorted(folder.iterdir()) if checkpoints(path)]
    if not found:
        raise CheckpointError(f"{folder}: holds no runs")
    yield from found


def state(folder: Path) -> dict[str, Any]:
    """The progress at a run's newest checkpoint that can be read, and the run's "state".

    That is "running", "finished", "stopped early", "interrupted", "diverged", or "damaged" if a newer checkpoint cannot
    be read, or none can. Only the beginning and the length of a checkpoint are looked at: to read the whole takes long.
    """
    damaged, found = False, None
    for path in checkpoints(folder):
        try:
            record = read_record(path)
            found = {**record["progress"], "steps": record["config"]["steps"], "changed": path.stat().st_mtime}
            break
        except (CheckpointError, OSError, KeyError, TypeError):
            damaged = True
    try:
        with locked(folder):
            return {**(found or {}), "state": "damaged" if damaged or found is None else _ended(folder, found)}
    except LockedError:
        return {**(found or {}), "state": "running"}
    except (CheckpointError, OSError):  # the log is not one, or the folder cannot be written
        return {**(found or {}), "state": "damaged"}


def _ended(folder: Path, found: dict[str, Any]) -> str:
    """How a run that nobody trains came to its end."""
    lines = read_log(folder / LOG)
    if found["step"] >= found["steps"]:
        return "finished"
    if found["stopped"]:
        return "stopped early"
    return "diverged" if lines and "diverged" in lines[-1] else "interrupted"


def table(folder: Path) -> Table:
    """All runs in `folder`, one a line."""
    made = Table(box=None, pad_edge=False)
    made.add_column("run", overflow="fold")
    made.add_column("state", no_wrap=True)
    for name in COLUMNS:
        made.add_column(name, justify="right", no_wrap=True)
    for path in find_runs(folder):
        found = state(path)
        if "step" not in found:
            made.add_row(str(path), found["state"])
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
