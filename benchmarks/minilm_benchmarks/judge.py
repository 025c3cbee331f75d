"""What a figure must pass before it is printed: equal losses, and nothing faster than the chip."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minilm_benchmarks.cases import MINILM, Case

# Relative. In float32 the sums' order differs, and AdamW's first steps (m / sqrt(v), about 1 in size whatever the
# gradient) enlarge that; bfloat16 has 8 bits, and each library rounds at other places.
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}

# How far above the limit a figure may lie: clocks change between the measurement of the chip and the case. Without
# the native backend the limit is a product of NumPy's, which is less than the chip can do.
SLACK, ROUGH_SLACK = 1.03, 1.4
# Memory has no one speed: it depends on how many arrays are walked, and on how much of them is written.
MEMORY_SLACK = 1.25


@dataclass
class Result:
    """What one peer gave for one case: seconds of each round (each a median of calls), or why there are none."""

    rounds: list[float] = field(default_factory=list)
    error: str = ""
    refused: str = ""
    losses: list[float] = field(default_factory=list)
    bytes: float | None = None  # of memory, in W9

    @property
    def spread(self) -> float:
        """How far the slowest round lies above the fastest; 0.1 is 10%."""
        return max(self.rounds) / min(self.rounds) - 1 if self.rounds else 0.0

    @property
    def seconds(self) -> float | None:
        """The median over the rounds; None for a peer that failed or was refused."""
        return statistics.median(self.rounds) if self.rounds and not (self.error or self.refused) else None


@dataclass
class Row:
    """A case and what each peer gave."""

    case: Case
    results: dict[str, Result] = field(default_factory=dict)

    def ratio(self, peer: str) -> float | None:
        """Ours against a peer, above 1 where ours is faster (or smaller): the median of the rounds' ratios."""
        ours, theirs = self.results.get(MINILM), self.results.get(peer)
        if ours is None or theirs is None or peer == MINILM:
            return None
        if ours.bytes and theirs.bytes:
            return theirs.bytes / ours.bytes if min(ours.bytes, theirs.bytes) > 0 else None
        if ours.seconds is None or theirs.seconds is None:
            return None
        return statistics.median(t / o for t, o in zip(theirs.rounds, ours.rounds))


def least_seconds(case: Case, chip: dict[str, Any]) -> float | None:
    """The time in which this chip could do the case at best; None where nothing of the chip bounds it."""
    if case.bound == "flops":
        factor = chip["bf16_factor"] if case.precision == "bfloat16" else 1.0
        return case.flops / (1e9 * peak(chip) * factor)
    if case.bound == "bytes":
        # Smaller tensors may come from a cache, in part at least, and then the cache is the limit.
        small = case.tensor_bytes <= 3 * chip["small_bytes"]
        sizes = ("small", "large") if small else ("large",)
        fastest = max(chip[f"gbs_{size}_{cores}"] for size in sizes for cores in ("one", "all"))
        return case.traffic / (1e9 * fastest)
    return None


def refuse_impossible(row: Row, chip: dict[str, Any]) -> None:
    """Mark every figure that is above what the chip can do: a measuring error, whoever it flatters."""
    least = least_seconds(row.case, chip)
    if least is None:
        return
    slack = SLACK if chip["exact"] else ROUGH_SLACK
    if row.case.bound == "bytes":
        slack = max(slack, MEMORY_SLACK)
    for result in row.results.values():
        if result.seconds is not None and least > slack * result.seconds:
            share = least / result.seconds
            result.refused = f"{share:.0%} of what the chip can do: measuring error"


def busy(chip: dict[str, Any]) -> bool:
    """Whether the threads together do not reach what one does alone, times their number: others compute too."""
    return bool(chip["gflops_all"] < 0.9 * chip["threads"] * chip["gflops_one"])


def peak(chip: dict[str, Any]) -> float:
    """GFLOP/s of all threads: as measured, or what one does alone for each where others disturbed that."""
    return float(chip["threads"] * chip["gflops_one"] if busy(chip) else chip["gflops_all"])


def losses_differ(case: Case, ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Where two series of losses first differ by more than the tolerance; empty if they do not."""
    tolerance = LOSS_TOLERANCE[case.precision]
    for step, (a, b) in enumerate(zip(ours, theirs), 1):
        if not abs(a - b) <= tolerance * abs(a):  # NaN differs too
            return f"at step {step} its loss is {b:.6f}, ours {a:.6f}: not equal within {tolerance:g}"
    return "" if len(ours) == len(theirs) else f"{len(theirs)} losses, ours {len(ours)}"
