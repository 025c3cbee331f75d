"""What the machine can do at most: multiply-adds in registers, and bytes read from memory or a cache."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import minilm as ml
from minilm import kernels
from minilm.kernels.info import cpu_features

# Of the largest tensors in W7's rows, and of one that no cache holds.
SMALL, LARGE = 4096 * 1536 * 4, 512 * 2**20


def measure(threads: int, seconds: float = 0.3, small: int = SMALL, large: int = LARGE) -> dict[str, Any]:
    """The peaks of one core and of all threads: GFLOP/s in float32, GB/s for arrays of `small` and `large` bytes."""
    found: dict[str, Any] = {"exact": not kernels.why_not("native"), "small_bytes": small, "large_bytes": large}
    found["threads"] = threads
    for label, count in (("one", 1), ("all", threads)):
        ml.set_num_threads(count)
        found[f"gflops_{label}"] = max(kernels.measure_peak(seconds) for _ in range(3))
        for size in ("small", "large"):
            found[f"gbs_{size}_{label}"] = read_bandwidth(found[f"{size}_bytes"], count, seconds)
    ml.set_num_threads(threads)
    found["bf16_factor"] = bf16_factor()
    return found


def read_bandwidth(size: int, threads: int, seconds: float) -> float:
    """GB/s at which `threads` threads move `size` bytes again and again, each its own part: read, or read and written.

    Each thread sums squares: one load for each multiply-add, in BLAS's vector loop, in pieces that stay below
    the length from which BLAS would start threads of its own. The maximum serves where that is slower.
    """
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for reader in (_squares, np.max):
            end = time.perf_counter() + seconds / 2
            while True:
                start = time.perf_counter()
                list(pool.map(reader, parts))
                now = time.perf_counter()
                best = max(best, 1e-9 * size / (now - start))
                if now >= end:
                    break
        halves = [part[: len(part) // 2 * 2].reshape(2, -1) for part in parts]
        end = time.perf_counter() + seconds / 2
        while time.perf_counter() < end:  # memory takes more where some of it is written
            start = time.perf_counter()
            list(pool.map(_updated, halves))
            best = max(best, 1.5e-9 * size / (time.perf_counter() - start))
    return max(best, _read_in_c(size, seconds))


def _updated(pair: Any) -> None:
    """Two numbers read for each that is written."""
    np.add(pair[0], pair[1], out=pair[0])


def _read_in_c(size: int, seconds: float) -> float:
    """The same with our own threads, without Python between them; 0 without the native backend."""
    if kernels.why_not("native"):
        return 0.0
    from minilm.kernels import native

    whole, best, end = np.ones(size // 4, np.float32), 0.0, time.perf_counter() + seconds / 2
    while time.perf_counter() < end:
        start = time.perf_counter()
        native.square_sum([whole])
        best = max(best, 1e-9 * size / (time.perf_counter() - start))
    return best


def _squares(part: Any) -> float:
    """The calls cost nothing beside a piece of a megabyte; NumPy lets the other threads run meanwhile."""
    piece = 2**18
    return sum(float(np.dot(part[at : at + piece], part[at : at + piece])) for at in range(0, len(part), piece))


def bf16_factor() -> float:
    """How many times float32's peak the chip's bfloat16 instructions reach: a matter of the instruction set."""
    known = {"amx_tile": 16.0, "amx_bf16": 16.0, "avx512_bf16": 2.0, "bf16": 4.0}
    features = cpu_features()[1]
    return max((known[name] for name in features if name in known), default=1.0)
