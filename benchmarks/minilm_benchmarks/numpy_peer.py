"""NumPy's side: products of matrices, by the BLAS that it brings along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilm_benchmarks.cases import Case
from minilm_benchmarks.data import Arrays


def version() -> str:
    """What was measured."""
    return np.__version__


def set_threads(threads: int) -> None:
    """The environment says it (OPENBLAS_NUM_THREADS); peers.py sets that before the process starts."""


def build(case: Case, arrays: Arrays) -> Callable[[], Any]:
    """One call of `case`."""
    a = arrays["a"].T if case.sizes["layout"][0] == "T" else arrays["a"]
    b = arrays["b"].T if case.sizes["layout"][1] == "T" else arrays["b"]
    return lambda: a @ b
