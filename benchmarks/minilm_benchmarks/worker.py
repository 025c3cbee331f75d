"""A peer's process: it builds and times what the driver asks for, and sleeps on its pipe otherwise.

Each line on standard input is a request in JSON, each line on standard output the answer:

    {"do": "prepare", "case": {...}, "data": "FILE.npz"}     build it and call it once    {}
    {"do": "losses", "steps": 5}                             train                        {"losses": [...]}
    {"do": "time", "seconds": 0.3, "calls": 1000}            a warm-up call, then timed   {"seconds": [...]}
    {"do": "chip", "seconds": 0.2}                           (minilm only)                {"peak": ..., ...}
    {"do": "baseline"}                                       memory counts from here      {}
    {"do": "memory"}                                         a step's peak above that     {"bytes": ...}
    {"do": "drop"}                                           forget the case              {}

A failure is {"error": "why"}.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from typing import Any

from minilm_benchmarks import data, memory
from minilm_benchmarks.cases import COMPILED, JAX, MINILM, NUMPY, TORCH, Case
from minilm_benchmarks.settings import Unavailable

MODULES = {
    MINILM: "minilm_benchmarks.ours",
    TORCH: "minilm_benchmarks.torch_peer",
    COMPILED: "minilm_benchmarks.torch_peer",
    JAX: "minilm_benchmarks.jax_peer",
    NUMPY: "minilm_benchmarks.numpy_peer",
}


class Worker:
    """What a process holds between two requests."""

    def __init__(self, peer: str, threads: int) -> None:
        self.module = _load(peer)
        self.module.compiled = peer == COMPILED
        self.module.set_threads(threads)
        self.threads = threads
        self.before = 0
        self.run: Any = None

    def version(self) -> dict[str, Any]:
        """The version of the library under test."""
        return {"version": self.module.version()}

    def prepare(self, case: dict[str, Any], data_file: str) -> dict[str, Any]:
        """Build the case; training is not called yet, since its first losses are compared."""
        self.run = None
        built = Case(**case)
        self.run = self.module.build(built, data.read(data_file))
        if not built.trains:
            self.run()  # the first call compiles
        gc.collect()
        return {}

    def losses(self, steps: int) -> dict[str, Any]:
        """Of the first steps."""
        return {"losses": [self.run() for _ in range(steps)]}

    def time(self, seconds: float, calls: int) -> dict[str, Any]:
        """As many calls as fit into `seconds`, at least one and at most `calls`, after one that warms up."""
        self.run()
        taken: list[float] = []
        while not taken or (len(taken) < calls and sum(taken) < seconds):
            start = time.perf_counter()
            self.run()
            taken.append(time.perf_counter() - start)
        return {"seconds": taken}

    def chip(self, seconds: float, small: int, large: int) -> dict[str, Any]:
        """What the machine can do: see chip.py."""
        from minilm_benchmarks import chip

        return chip.measure(self.threads, seconds, small, large)

    def baseline(self) -> dict[str, Any]:
        """From here on memory counts: a tiny case has run, so that the library's code and threads are there."""
        self.drop()
        self.before = memory.resident()
        return {}

    def memory(self) -> dict[str, Any]:
        """The peak of a step above the baseline, in bytes."""
        for _ in range(2):
            self.run()  # gradients and the optimiser's state come into being
        return {"bytes": memory.peak(self.run) - self.before}

    def drop(self) -> dict[str, Any]:
        """Forget the case."""
        self.run = None
        gc.collect()
        return {}


def main(peer: str, threads: int) -> None:
    """Serve until the pipe closes."""
    # What the libraries print goes to standard error, so that answers stay answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    restrict(threads)
    worker: Worker | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            worker = worker or Worker(peer, threads)
            answer = getattr(worker, request.pop("do"))(**request)
        except Unavailable as error:
            answer = {"error": str(error)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _load(peer: str) -> Any:
    return importlib.import_module(MODULES[peer])


def restrict(threads: int) -> None:
    """Keep to as many CPUs as threads: XLA has no other way to be told."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])
