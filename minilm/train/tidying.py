"""What keeps memory level over a long run."""

from __future__ import annotations

import gc
import time

SHARE = 0.01  # of the time


class Tidying:
    """A full pass of the garbage collector now and then, which empties Python's free lists too.

    Nothing of a run's waits for the collector. But blocks on free lists stand between others and make holes, by which
    resident memory grew a page in some thousand steps (docs/log.md). A pass visits all objects there are: it takes ten
    milliseconds in a process that only trains, half a second where other libraries are loaded. So there is one only as
    often as takes a hundredth of the time at most.
    """

    def __init__(self) -> None:
        self._due = 0.0

    def __call__(self) -> None:
        """Do it, if it is due."""
        began = time.perf_counter()
        if began >= self._due:
            gc.collect()
            self._due = began + (time.perf_counter() - began) / SHARE


tidy = Tidying()  # one for all trainers of the process
