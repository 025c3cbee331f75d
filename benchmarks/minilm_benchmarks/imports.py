"""How long an import takes, in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import minilm
from minilm_benchmarks.peers import PACKAGE, PeerError


def seconds(peer: str) -> float:
    """From inside: the interpreter's own start, the same for all, is left out. Errors: PeerError."""
    program = (
        "import sys, time; sys.path.append(sys.argv[1]); start = time.perf_counter(); "
        f"import {PACKAGE[peer]}; print(time.perf_counter() - start)"
    )
    folder = str(Path(minilm.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise PeerError(done.stderr.strip().split("\n")[-1][:200])
    time.sleep(0.05)
    return float(done.stdout.split()[-1])
