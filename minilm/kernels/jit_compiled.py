"""How Numba's kernels are compiled, kept on disk, and shared among threads.

A kernel is a function `kernel(first, end, ...)` that does the tasks first ... end - 1, a task being a row or a
block that one thread does alone, so that no sum depends on the number of threads. No fastmath: it may reorder sums
and assume that NaN does not occur.

Each kernel is compiled when first called, for the element type of that call alone: 0.3 to 3 seconds (attention's
backward takes longest), and some 10 milliseconds in every later process, which finds it on disk.

The threads are Python's, and run beside each other because compiled code releases the interpreter's lock. Numba's
own would be started once for all: they abort the process after a fork, and some of them where two Python threads
compute at a time; `parallel=True` also doubles the time to compile. To share costs some 45 microseconds.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from minilm.kernels import threads

Array = Any

# Below this many elements waking the other threads takes longer than the work; on a busy machine far longer.
WORTH_SHARING = 1 << 16

# Numba looks for changes in the file of a kernel only; what it calls may stand in another one of this folder.
_VERSION = zlib.crc32(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))

# Division by zero gives infinity, as in NumPy; Python's error would be a branch, which no vector instruction has.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
INLINED: Any = {"forceinline": True, "error_model": "numpy"}

inlined = numba.njit(**INLINED)  # for what kernels call for each element: loops with calls are not vectorised


def compiled(parameters: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], Callable[..., None]]:
    """A kernel `kernel(first, end, *arguments)` as a function `run(tasks, work, *arguments)`.

    `run` does the tasks 0 ... tasks - 1, on all threads where `work`, in elements, is enough for that.

    Args:
        parameters: the types of the arguments, given the element type, which is that of the first.
    """

    def decorate(kernel: Any) -> Callable[..., None]:
        versions: dict[str, Any] = {}

        @functools.wraps(kernel)
        def run(tasks: int, work: int, *arguments: Any) -> None:
            kind = arguments[0].dtype.char
            if kind not in versions:
                element = numba.from_dtype(arguments[0].dtype)
                signature = numba.void(numba.int64, numba.int64, *parameters(element))
                versions[kind] = _on_disk(kernel, signature, kind)
            _share(versions[kind], tasks, work, arguments)

        return run

    return decorate


def _share(kernel: Any, tasks: int, work: int, arguments: tuple[Any, ...]) -> None:
    count = min(threads.get_num_threads(), tasks) if work > WORTH_SHARING else 1
    if count <= 1 or not _sharing.acquire(blocking=False):  # another Python thread has the helpers
        kernel(0, tasks, *arguments)
        return
    try:
        ends = [tasks * i // count for i in range(1, count + 1)]
        while len(_helpers) < count - 1:
            _helpers.append(_Helper())
        helpers = _helpers[: count - 1]
        for helper, (first, end) in zip(helpers, itertools.pairwise(ends)):
            helper.start(kernel, (first, end, *arguments))
        kernel(0, ends[0], *arguments)
        for helper in helpers:
            helper.finish()
    except BaseException:  # an interrupt, or no memory: a helper may be at work still, and others take its place
        _helpers.clear()
        raise
    finally:
        _sharing.release()


class _Helper:
    """A thread that runs kernels. It and the caller wait for each other at two locks: no queue is as quick."""

    def __init__(self) -> None:
        self.begin, self.end = threading.Lock(), threading.Lock()
        self.begin.acquire()
        self.end.acquire()
        self.error: BaseException | None = None
        threading.Thread(target=self._run, name="minilm-numba", daemon=True).start()

    def start(self, kernel: Any, arguments: tuple[Any, ...]) -> None:
        """Run the kernel, beside the caller."""
        self.task = kernel, arguments
        self.begin.release()

    def finish(self) -> None:
        """Wait until it is done. Errors: the kernel's."""
        self.end.acquire()
        error, self.error = self.error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        while True:
            self.begin.acquire()
            kernel, arguments = self.task
            try:
                kernel(*arguments)
            except BaseException as error:  # the caller's to see
                self.error = error
            del self.task, kernel, arguments  # arrays are not to be kept
            self.end.release()


_sharing = threading.Lock()
_helpers: list[_Helper] = []  # as many as were needed so far


def _after_fork() -> None:
    """The threads stayed with the parent."""
    global _sharing
    _sharing = threading.Lock()
    _helpers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _on_disk(kernel: Any, signature: Any, kind: str) -> Any:
    """Compiled, and kept on disk where that is possible."""
    # Numba keeps one file for each name and place of a function.
    copy = types.FunctionType(kernel.__code__, kernel.__globals__, f"{kernel.__name__}_{kind}_{_VERSION:08x}")
    copy.__qualname__, copy.__module__ = copy.__name__, kernel.__module__
    try:
        return numba.njit([signature], cache=True, **_OPTIONS)(copy)
    except (RuntimeError, OSError) as error:  # no folder to write in; a full disk
        if isinstance(error, RuntimeError) and "cache" not in str(error):
            raise
        return numba.njit([signature], **_OPTIONS)(copy)


def owned(x: Array) -> Array:
    """x itself where it is contiguous, aligned and writable (Numba's types tell these apart), else a copy."""
    return x if x.flags.carray else np.array(x, order="C", copy=True)


def rows(x: Array) -> Array:
    """x (..., C) as a matrix of rows, elements side by side; writable only in name, for Numba's one signature."""
    return owned(x).reshape(-1, x.shape[-1])


def flat(x: Array) -> Array:
    """x as one row of elements."""
    return owned(x).reshape(-1)
