"""Memory for the results of Numba's kernels, used again: what csrc/memory.c is for those in C, and why it is there.

NumPy gives the memory of a large array back to the system when the array is dropped, and the next one's pages are
fetched and cleared anew, which takes longer than many a kernel does.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import Any

import numpy as np

Array = Any

LARGE = 1 << 20  # bytes; smaller ones the C library keeps by itself
STEP = 1 << 16  # bytes; blocks are rounded up to it, so that sizes almost equal share them


class _Block:
    """The memory of an array, which goes back to the shelf when the last array that uses it is dropped."""

    __slots__ = ("__array_interface__", "memory", "shelf")

    def __init__(self, shelf: Shelf, memory: Array, shape: tuple[int, ...], dtype: Any) -> None:
        self.shelf, self.memory = shelf, memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (memory.ctypes.data, False),
        }

    def __del__(self) -> None:
        self.shelf.take(self.memory)


class Shelf:
    """Blocks that wait, by size, up to a cap.

    Without a lock: a block may come back at any moment, also while this thread is in here (the garbage collector
    runs when it likes). Each step is one that the interpreter does not split.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.waiting: dict[int, list[Array]] = {}

    def take(self, memory: Array) -> None:
        """Let a block wait for the next of its size."""
        if self.held() + memory.nbytes > self.cap:
            self.waiting.clear()  # another phase has begun: what waits fits it no more
        if memory.nbytes <= self.cap:
            self.waiting.setdefault(memory.nbytes, []).append(memory)

    def give(self, size: int) -> Array:
        """A block of this many bytes."""
        with contextlib.suppress(KeyError, IndexError):  # none waits
            return self.waiting[size].pop()
        try:
            return np.empty(size, np.uint8)
        except MemoryError:  # what waits in other sizes may be what is missing
            self.waiting.clear()
            return np.empty(size, np.uint8)

    def held(self) -> int:
        """The bytes that wait."""
        return sum(size * len(self.waiting.get(size, ())) for size in list(self.waiting))


def _cap() -> int:
    """A quarter of the machine's memory, as in csrc/memory.c."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    except (AttributeError, ValueError, OSError):  # Windows
        return 1 << 30


shelf = Shelf(_cap())


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new array of this shape, for a kernel to write to; a large one in memory that was used before."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    # The array's base is the block, no array: the engine takes a gradient as its own if its base is none.
    return np.asarray(_Block(shelf, shelf.give(-(-size // STEP) * STEP), shape, dtype))
