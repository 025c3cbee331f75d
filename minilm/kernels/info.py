"""What `minilm info` prints: the machine, the backends, and who serves which kernel."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import numpy as np

from minilm import kernels
from minilm.device import available_cpus
from minilm.kernels.threads import get_num_threads

# The extensions that decide which instruction set can run, in the order in which they appeared.
_TELLING = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_bf16", "amx_tile")


def cpu_features() -> tuple[str, list[str]]:
    """The processor's name and those of its extensions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine(), []
    fields: dict[str, str] = {}
    for line in lines:
        label, colon, value = line.partition(":")
        if colon:
            fields[label.strip()] = value.strip()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name", platform.machine()), [name for name in _TELLING if name in flags] or sorted(flags)[
        :8
    ]


def facts() -> dict[str, str]:
    """One line for each fact about this installation, by its label."""
    from minilm import __version__

    name, features = cpu_features()
    lines = {
        "minilm": __version__,
        "Python": f"{platform.python_version()} ({sys.implementation.name}, {platform.system()} {platform.machine()})",
        "NumPy": np.__version__,
        "CPU": name,
        "CPU features": " ".join(features) or "not known on this system",
        "threads": f"{get_num_threads()} of {available_cpus()} CPUs that this process may use",
        "backend": kernels.backend() + (" (MINILM_BACKEND)" if os.environ.get("MINILM_BACKEND") else ""),
    }
    for backend in kernels.BACKENDS:
        reason = kernels.why_not(backend)
        lines[f"  {backend}"] = f"not available: {reason}" if reason else "available" + _details(backend)
    return lines


def _details(backend: str) -> str:
    if backend != "native":
        return ""
    from minilm.kernels import native

    return f", instruction set {native.instruction_set()} (of {', '.join(native.instruction_sets())})"


def render() -> str:
    """The whole report as plain text."""
    lines = [f"{label + ':':<14} {value}" for label, value in facts().items()]
    lines.append("\nkernel                    served by   why not another")
    for kernel, (server, reasons) in kernels.report().items():
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        lines.append(f"{kernel:<25} {server:<11} {why}".rstrip())
    lines.append("\nfloat32 and float64 are served as above; every other type by the reference.")
    return "\n".join(lines)
