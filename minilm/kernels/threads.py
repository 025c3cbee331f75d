"""How many threads compute: one number for our own pool, for Numba and for NumPy's OpenBLAS."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minilm.device import available_cpus

_chosen: int | None = None


def get_num_threads() -> int:
    """The number of threads that the kernels use: as set, else MINILM_NUM_THREADS, else every CPU allowed."""
    if _chosen is not None:
        return _chosen
    wanted = os.environ.get("MINILM_NUM_THREADS", "")
    return max(1, int(wanted)) if wanted.isdecimal() else available_cpus()


def set_num_threads(count: int) -> None:
    """Let the native kernels, Numba and NumPy's matmul use `count` threads.

    OpenBLAS, which NumPy brings along, is reached through its own symbol in the library that NumPy has
    loaded; with another BLAS (Accelerate on macOS, MKL) only our kernels and Numba follow.
    Errors: ValueError for a count below 1.
    """
    global _chosen
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"set_num_threads: at least 1 thread is needed, not {count!r}")
    _chosen = count
    native: Any = sys.modules.get("minilm.kernels.native")
    if hasattr(native, "set_num_threads"):  # it asks for the number itself while it is being loaded
        native.set_num_threads(count)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
    setter = _openblas_setter()
    if setter is not None:
        setter(count)


def compute_alone() -> None:
    """Let the native kernels that the calling thread calls use no other thread from now on."""
    sys.modules["minilm.kernels.native"].compute_alone()


def _openblas_setter() -> Any:
    """OpenBLAS's function to set its threads, None where NumPy computes with another library."""
    folders = [Path(np.__file__).parent.parent / "numpy.libs", Path(np.__file__).parent / ".dylibs"]
    for folder in folders:
        for path in sorted(folder.glob("*openblas*")) if folder.is_dir() else ():
            library = ctypes.CDLL(str(path))
            for prefix in ("scipy_", ""):
                for suffix in ("64_", "_64", ""):
                    function = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
                    if function is not None:
                        return function
    return None


if os.environ.get("MINILM_NUM_THREADS", "").isdecimal():  # OpenBLAS has its threads since NumPy was imported
    set_num_threads(get_num_threads())
