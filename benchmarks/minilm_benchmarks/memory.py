"""How much memory a process holds, and the most it held during a call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minilm_benchmarks.settings import Unavailable

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Bytes now; 0 where the system does not say."""
    return _field("VmRSS")


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that the process held during `run()`. Errors: Unavailable where the system does not say."""
    if not resident():
        raise Unavailable("no /proc/self/status on this system")
    if _reset():
        run()
        return _field("VmHWM")
    return _sampled(run)


def _field(name: str) -> int:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _reset() -> bool:
    """Let VmHWM begin anew; False where that is not allowed or does nothing."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return 0 < _field("VmHWM") <= 1.05 * resident()


def _sampled(run: Callable[[], Any]) -> int:
    """Looked at a thousand times a second, as far as the interpreter lets another thread."""
    most, done = resident(), threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max(most, resident())
