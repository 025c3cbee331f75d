"""Where figures were measured, and whether others computed meanwhile."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

from minilm import kernels
from minilm.device import available_cpus
from minilm.kernels.threads import get_num_threads
from minilm_benchmarks.report import machine

PACKAGES = ("minilm", "numpy", "torch", "transformers", "tokenizers", "scikit-learn")
BUSY = 0.05  # the share of all CPUs' time from which on others are said to have disturbed


def described() -> dict[str, Any]:
    """The machine, the versions, the threads of both libraries, the date."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        **machine(),
        "cpus_usable": available_cpus(),
        "threads": {"minilm": get_num_threads(), "PyTorch": torch.get_num_threads()},
        "backend": kernels.backend(),
        "python": platform.python_version(),
        "versions": versions,
        "date": now(),
    }


def now() -> str:
    """The date and time."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


class Watch:
    """How much of the CPUs' time others take, from now on; None where the system does not say (not Linux)."""

    def __init__(self) -> None:
        self.began, self.busy, self.own = time.monotonic(), _busy(), _own()

    def others(self) -> float | None:
        """The share of all CPUs' time since then that was others'."""
        busy = _busy()
        if busy is None or self.busy is None:
            return None
        passed = (time.monotonic() - self.began) * (os.cpu_count() or 1)
        return max(busy - self.busy - (_own() - self.own), 0.0) / max(passed, 1e-9)

    def seconds(self) -> float:
        """Since then."""
        return time.monotonic() - self.began


def _busy() -> float | None:
    """Seconds that all CPUs together have worked, or were kept from it by another machine on the same chip."""
    try:
        fields = Path("/proc/stat").read_text("utf-8").split("\n", 1)[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    """Seconds that this process has worked, all threads together, with its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
