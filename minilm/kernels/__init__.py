"""The kernel table: which backend's loop serves each operation.

    native      C through Cython, compiled once per instruction set    minilm/kernels/native.pyx
    numba       compiled by Numba when first called                    minilm/kernels/jit.py
    reference   NumPy, complete, the one to read                       minilm/kernels/reference.py

An operation says `kernels.softmax(x)`: a plain attribute of this module, bound once by `use`, so that
nothing is looked up on the way. The best backend that can serve is chosen when the package is loaded;
`MINILM_BACKEND=numba` or `kernels.use("numba")` chooses by hand, and then refuses rather than replaces
a backend that is not there. A kernel that a backend does not have is served by the reference, as are
element types other than float32 and float64; `kernels.report()` says who serves what, and why.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minilm.errors import BackendError
from minilm.kernels import reference

BACKENDS = ("native", "numba", "reference")
_MODULES = {"native": "minilm.kernels.native", "numba": "minilm.kernels.jit", "reference": "minilm.kernels.reference"}
_COMPILED = {
    "native": (
        *("matmul", "linear", "linear_gelu", "linear_relu", "relu", "relu_backward", "attention", "attention_backward"),
        *("packed_attention", "packed_attention_backward", "cached_attention", "largest"),
        *("softmax", "softmax_backward", "log_softmax", "log_softmax_backward", "sum_rows", "scatter_rows"),
        *("layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward", "add_layer_norm", "add_rms_norm"),
        *("exp", "tanh", "sigmoid", "erf", "gelu", "gelu_backward", "cross_entropy", "cross_entropy_backward"),
        *("linear_cross_entropy", "adamw", "square_sum", "philox", "keep_rows", "drop_rows"),
        *("rnn_layer", "rnn_layer_backward", "lstm_layer", "lstm_layer_backward", "gru_layer", "gru_layer_backward"),
    ),
    "numba": (
        *("matmul", "linear_gelu", "softmax", "softmax_backward", "log_softmax", "log_softmax_backward"),
        *("exp", "sigmoid", "erf", "gelu", "gelu_backward", "relu", "relu_backward"),
        *("layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward", "add_layer_norm", "add_rms_norm"),
        *("cross_entropy", "cross_entropy_backward", "linear_cross_entropy", "scatter_rows"),
        *("attention", "attention_backward", "packed_attention", "packed_attention_backward"),
        *("philox", "keep_rows", "drop_rows", "adamw", "square_sum"),
        *("lstm_layer", "lstm_layer_backward", "gru_layer", "gru_layer_backward"),
    ),
}

_WITHOUT_ARRAYS = ("philox", "keep_rows")  # kernels of numbers alone: there is no element type to ask for

Kernel = Callable[..., Any]


def names() -> list[str]:
    """Every kernel: the public functions of the reference."""
    return [
        name
        for name, value in vars(reference).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__.startswith("minilm.kernels")
    ]


def backend() -> str:
    """The backend in use."""
    return _current


def why_not(name: str) -> str:
    """Why the backend `name` cannot serve; empty if it can. Errors: BackendError for an unknown name."""
    if name not in BACKENDS:
        raise BackendError(f"there is no backend {name!r}: the backends are {', '.join(BACKENDS)}")
    if name == "numba":  # only whether it is there: loading it takes a second
        return "" if importlib.util.find_spec("numba") else "the package numba is not installed"
    try:
        _module(name)
    except ImportError as error:
        return f"it was not built, or cannot be loaded ({error})"
    return ""


class use:  # noqa: N801 - reads as a verb: kernels.use("numba")
    """Let `name` ("native", "numba" or "reference") serve, at once and until the `with` block (if any) ends.

    The choice holds for the whole process. Errors: BackendError that says why it cannot serve.
    """

    def __init__(self, name: str) -> None:
        reason = why_not(name)
        if reason:
            raise BackendError(f"the backend {name!r} cannot serve: {reason}")
        self._before = _current
        _bind(name)

    def __enter__(self) -> None:
        """The choice is made already."""

    def __exit__(self, *_: object) -> None:
        _bind(self._before)


def report() -> dict[str, tuple[str, dict[str, str]]]:
    """For each kernel the backend that serves it, and why each faster backend does not."""
    found = {}
    for kernel in names():
        server = _current if kernel in _COMPILED.get(_current, ()) else "reference"
        reasons = {}
        for name in BACKENDS[: BACKENDS.index(server)]:
            missing = "" if kernel in _COMPILED[name] else "has no such kernel"
            reasons[name] = missing or why_not(name) or f"{_current} was chosen"
        found[kernel] = server, reasons
    return found


def empty(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of whatever was in its memory: a large one in memory that the backend in use keeps for such arrays."""
    return getattr(_module(_current), "empty", np.empty)(shape, dtype)


def measure_peak(seconds: float = 0.2) -> float:
    """What this machine can do at most in float32 with the threads in use, in GFLOP/s; takes `seconds`.

    Multiply-adds on registers alone where the native backend is there, else NumPy's product of two matrices
    that stay in the cache, which comes to some 5 to 15% less.
    """
    if not why_not("native"):
        return float(_module("native").measure_peak(seconds))
    size, best = 512, 0.0
    a = np.ones((size, size), np.float32)
    product = a @ a
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        np.matmul(a, a, out=product)
        now = time.perf_counter()
        best = max(best, 2e-9 * size**3 / (now - start))
        if now >= end:
            return best


def _module(name: str) -> ModuleType:
    return importlib.import_module(_MODULES[name])


def _bind(name: str) -> None:
    """Bind every kernel's name in this module to the function that serves it from now on."""
    global _current
    table = {kernel: getattr(reference, kernel) for kernel in names()}
    for kernel in _COMPILED.get(name, ()):
        table[kernel] = _compiled(name, kernel)
    globals().update(table)
    _current = name


def _compiled(backend_name: str, kernel: str) -> Kernel:
    """The backend's kernel for float32 and float64, the reference's for every other type."""
    plain = getattr(reference, kernel)
    # Numba takes a second to load: not before it is first needed.
    fast = None if backend_name == "numba" else getattr(_module(backend_name), kernel)
    if kernel in _WITHOUT_ARRAYS:
        return fast or functools.wraps(plain)(
            lambda *args, **kwargs: getattr(_module("numba"), kernel)(*args, **kwargs)
        )

    @functools.wraps(plain)
    def serve(x: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal fast
        first = (x[0] if x else None) if type(x) is list else x  # the optimisers' kernels take lists of arrays
        if not isinstance(first, np.ndarray) or first.dtype.char not in "fd":
            return plain(x, *args, **kwargs)
        if fast is None:
            fast = getattr(_module(backend_name), kernel)
        return fast(x, *args, **kwargs)

    return serve


def _first() -> str:
    """The backend to begin with: the one that MINILM_BACKEND names, else the first that can serve."""
    wanted = os.environ.get("MINILM_BACKEND", "")
    if wanted:
        reason = why_not(wanted)
        if reason:
            raise BackendError(f"MINILM_BACKEND={wanted}: {reason}")
        return wanted
    return next(name for name in BACKENDS if not why_not(name))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"there is no kernel {name!r}: the kernels are {', '.join(names())}")


_current = "reference"
_bind(_first())
