"""Figures in files, one for each section, whole or not at all: what is measured stays measured.

OUT/figures/SECTION.json    {"settings": what it was measured with, "figures": ..., "measured": where and when}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from minilm.errors import DataError
from minilm.files import written_whole

FOLDER = "figures"


def kept(out: Path, name: str) -> dict[str, Any] | None:
    """A section's record, None where there is none. Errors: DataError for a file that is none."""
    path = out / FOLDER / f"{name}.json"
    if not path.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it to measure anew") from None
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), dict) for key in ("settings", "figures", "measured")
    ):
        raise DataError(f"{path}: holds no figures of this report; delete it to measure anew")
    return record


def keep(out: Path, name: str, record: dict[str, Any]) -> None:
    """Write a section's record. Errors: OSError."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / f"{name}.json", "w") as file:
        file.write(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def same(record: dict[str, Any] | None, settings: dict[str, Any]) -> bool:
    """Whether a record was measured with these settings."""
    return record is not None and record["settings"] == json.loads(json.dumps(settings))
