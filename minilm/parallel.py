"""Pieces of work that need nothing of each other, at the same time: one thread computes each of them.

The other way, all threads at one kernel after the other, costs something for each kernel: behind it threads meet, and
while Python prepares the next, all but one wait. Where kernels are small and pieces are many, as batches of sentences
that are translated are, each thread better takes a piece of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from minilm import kernels
from minilm.kernels.threads import compute_alone, get_num_threads
from minilm.modes import as_here

T = TypeVar("T")
R = TypeVar("R")

MOST = 8  # threads side by side: one at a time runs Python, which takes about an eighth of a step of decoding


def threads_side_by_side() -> int:
    """How many pieces are computed at the same time.

    One with kernels other than the native: theirs are not made to be called by several threads.
    """
    return min(get_num_threads(), MOST) if kernels.backend() == "native" else 1


def side_by_side(function: Callable[[T], R], pieces: Sequence[T]) -> Iterator[R]:
    """function(piece) for each piece, in their order, each computed by one thread, in the modes that hold here.

    A single piece is computed by all threads. What `function` raises is raised here, and no further piece is begun.
    """
    count = min(threads_side_by_side(), len(pieces))
    if count < 2:
        yield from map(function, pieces)
        return
    with ThreadPoolExecutor(count, "minilm", compute_alone) as threads:
        yield from threads.map(as_here(function), pieces)
