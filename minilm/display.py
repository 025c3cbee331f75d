"""How far a command is: a bar that moves in a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

REFRESH = 0.1  # seconds between two pictures in a terminal
QUIET = 60.0  # seconds after which a plain line says that work goes on


class Display:
    """One bar, with lines of figures beneath it; what stays is printed above.

    It has no thread of its own: the bar moves when `move` is called, and nothing disturbs what is measured meanwhile.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._shown = time.monotonic()

    def move(self, done: float, total: float, *lines: str, quiet: float = QUIET) -> None:
        """So much of `total` is done; the first of the lines stands beside the bar.

        Where there is no terminal a line with all of it is printed, when `quiet` seconds have passed since the last.
        """
        now = time.monotonic()
        share = min(done / total, 1.0) if total else 0.0
        if not self.console.is_terminal:
            if now - self._shown >= quiet:
                self.say("  ".join((f"{share:4.0%}", *lines)))
            return
        if self._live is None:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        elif now - self._shown < REFRESH:
            return
        self._shown = now
        head = Table.grid(padding=(0, 2))
        for ratio in (None, None, 1):
            head.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        first, *others = (Text(line, no_wrap=True, overflow="ellipsis") for line in lines or ("",))
        head.add_row(ProgressBar(total or 1, done, width=16), f"{share:4.0%}", first)
        self._live.update(Group(head, *others), refresh=True)

    def say(self, line: str, style: str = "") -> None:
        """Print a line that stays."""
        self.console.print(Text(line, style=style), soft_wrap=True)
        self._shown = time.monotonic() if not self.console.is_terminal else self._shown

    def close(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float, float], None]]:
    """Within, a bar on standard error, if that is a terminal: call what this gives with (done, total).

    what: the words beside the bar, such as "texts encoded"; the time left is added.
    """
    with Display(Console(stderr=True)) as display:
        began = time.monotonic()

        def move(done: float, total: float) -> None:
            if display.console.is_terminal:
                display.move(done, total, f"{what}  {time_left(began, done, total)}")

        yield move


def clock(seconds: float) -> str:
    """Seconds as 1:05, or 2:01:05; "--:--" where they are not known."""
    if not math.isfinite(seconds):
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def time_left(began: float, done: float, total: float) -> str:
    """In words, at the speed since `began`, a reading of `time.monotonic`."""
    spent = time.monotonic() - began
    return f"{clock(spent / done * (total - done) if done else math.inf)} left"
