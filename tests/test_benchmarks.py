"""Every benchmark runs, briefly: a benchmark that nobody runs no longer works when it is wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"

# Each benchmark, how it is made short, and what its last line must hold.
SHORT = {
    "shakespeare_reference.py": (["--seeds", "1", "--steps", "2"], "bound 1.895"),
}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_benchmark_runs(name, tmp_path):
    options, said = SHORT[name]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(FOLDER / name), *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
    )
    assert done.stderr == ""
    assert said in done.stdout.splitlines()[-1]
    assert done.returncode == 1, "two steps cannot reach the bound"
