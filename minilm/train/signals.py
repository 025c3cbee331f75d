"""Ctrl-C and SIGTERM: the first asks to end, the second ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def ending_when_asked(ask: Callable[[], None]) -> Iterator[None]:
    """Within, the first SIGINT (Ctrl-C) or SIGTERM calls `ask`; the second raises KeyboardInterrupt.

    Only the main thread hears signals: elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        ask()

    before = {number: signal.signal(number, hear) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
