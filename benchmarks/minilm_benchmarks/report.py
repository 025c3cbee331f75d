"""The measurements as JSON: machine, versions, date, the chip, and every figure."""

from __future__ import annotations

import datetime
import json
import os
import platform
from pathlib import Path
from typing import Any

from minilm.errors import DataError
from minilm.files import written_whole
from minilm.kernels.info import cpu_features
from minilm_benchmarks.judge import LOSS_TOLERANCE, Row, busy, least_seconds


def machine() -> dict[str, Any]:
    """The processor and the system."""
    name, features = cpu_features()
    system = f"{platform.system()} {platform.release()}"
    return {"cpu": name, "features": features, "cpus": os.cpu_count(), "system": system, "machine": platform.machine()}


def report(
    rows: list[Row], chip: dict[str, Any], versions: dict[str, str], threads: int, rounds: int, brief: bool
) -> dict[str, Any]:
    """Everything in plain dicts and lists."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": threads,
        "rounds": rounds,
        "brief": brief,
        "busy": busy(chip),
        "loss_tolerance": LOSS_TOLERANCE,
        "chip": chip,
        "rows": [_row(row, chip) for row in rows],
    }


def _row(row: Row, chip: dict[str, Any]) -> dict[str, Any]:
    least = least_seconds(row.case, chip)
    results = {}
    for peer, result in row.results.items():
        seconds = result.seconds
        results[peer] = {
            "seconds": seconds,
            "rounds": result.rounds,
            "spread": result.spread,
            "gflops": 1e-9 * row.case.flops / seconds if seconds and row.case.flops else None,
            "gbs": 1e-9 * row.case.traffic / seconds if seconds and row.case.bound == "bytes" else None,
            "share": least / seconds if seconds and least else None,
            "ratio": row.ratio(peer),
            "bytes": result.bytes,
            "losses": result.losses,
            "error": result.error,
            "refused": result.refused,
        }
    return {**row.case.as_dict(), "results": results}


def write(found: dict[str, Any], path: Path) -> None:
    """Write the JSON file. Errors: OSError."""
    with written_whole(path, "w") as file:
        json.dump(found, file, indent=1)
        file.write("\n")


def read(path: Path) -> dict[str, Any]:
    """A report that was written before. Errors: DataError, OSError."""
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        found["rows"][0]["results"]
    except (ValueError, KeyError, TypeError, IndexError):
        raise DataError(f"{path}: this is no report of minilm bench") from None
    return found
