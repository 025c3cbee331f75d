"""The same work in several processes, its results in the order of the tasks."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_tracker
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class InOrder(Protocol):
    """`map`, perhaps by several processes."""

    def __call__(self, function: Callable[[Task], Result], tasks: Iterable[Task], /) -> Iterator[Result]:
        """The results in the order of the tasks."""
        ...


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[InOrder]:
    """Within, `map` by `jobs` processes, of which at most 2 * jobs results are waiting at a time.

    Processes are started afresh (spawn), since a fork would copy locks of threads that it does not
    copy; so a script that calls this needs `if __name__ == "__main__":`. They end with this one,
    however it ends. With jobs = 1 this process does the work.

    Errors: those of the function; ChildProcessError if a process was ended from outside.
    """
    if jobs == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _begin, (reader,))
    try:
        yield partial(_in_order, pool, 2 * jobs)
    except BrokenProcessPool:
        raise ChildProcessError(
            "a process was ended from outside, perhaps for want of memory: try fewer jobs"
        ) from None
    except BaseException:
        writer.close()  # do not wait for what nobody wants any more
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
        reader.close()


def _in_order(pool: ProcessPoolExecutor, most: int, function: Any, tasks: Iterable[Any], /) -> Iterator[Any]:
    pending: deque[Any] = deque()
    for task in tasks:
        with _without_interrupts():  # it may start a process
            pending.append(pool.submit(function, task))
        if len(pending) >= most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started within never hear of Ctrl-C, not even before `_begin`; this one hears of it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # when it is started, it lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(reader: Any) -> None:
    """In each process: one thread for each, Ctrl-C is the parent's affair, and end when the parent's pipe closes."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        reader.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
