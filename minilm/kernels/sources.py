"""The sources of the native backend: what it is compiled from, and their fingerprint.

setup.py bakes the fingerprint into the module; `is_stale` compares it with the files of a checkout, so
that nobody tests yesterday's binary. Standard library only: setup.py reads this file before anything is
installed.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def source_files(root: Path = ROOT) -> list[Path]:
    """The files that decide what the binary does; empty where minilm is installed without its sources."""
    if not (root / "csrc").is_dir():
        return []
    cython = sorted((root / "minilm/kernels").glob("*.p[yx][xi]"))
    return [*sorted((root / "csrc").glob("*.[ch]")), *cython, root / "setup.py"]


def source_hash(root: Path = ROOT) -> str:
    """SHA-256 over names and contents of `source_files`; empty where there are none.

    MINILM_SANITIZE (see setup.py) is part of it: a binary with checks in it never passes for one without.
    """
    files = source_files(root)
    digest = hashlib.sha256(os.environ.get("MINILM_SANITIZE", "").encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest() if files else ""


def is_stale(root: Path = ROOT) -> bool:
    """Whether the loaded native module was compiled from other sources than those in this checkout."""
    from minilm.kernels import native

    return bool(source_files(root)) and native.source_hash() != source_hash(root)
