"""The roofline picture: how much arithmetic a case has for each byte, and how close to the chip's limit it comes.

Source: Williams, Waterman & Patterson 2009. The horizontal roof is the peak of float32 multiply-adds, the slope
the bandwidth of memory. A step's traffic counts parameters, gradients and the optimiser's state alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minilm.files import written_whole
from minilm_benchmarks import judge
from minilm_benchmarks.cases import PEERS

MARKS = dict(zip(PEERS, (("#c0392b", "o"), ("#7aa6d6", "s"), ("#2c5f9e", "D"), ("#5a9e5a", "^"), ("#999999", "v"))))


def draw(found: dict[str, Any], path: Path) -> bool:
    """Draw W1 to W7 into `path` (PNG); False where matplotlib is not installed. Errors: OSError."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")  # a file, no window
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), dpi=120, layout="constrained")
    _roof(axes, found["chip"])
    _points(axes, found["rows"])
    axes.set(xscale="log", yscale="log", xlabel="arithmetic intensity, FLOP per byte", ylabel="GFLOP/s")
    axes.set_title(f"{found['machine']['cpu']}, {found['threads']} threads, {found['date']}", parse_math=False)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    with written_whole(path) as file:
        figure.savefig(file, format="png")
    pyplot.close(figure)
    return True


def _roof(axes: Any, chip: dict[str, Any]) -> None:
    peak, bandwidth = judge.peak(chip), chip["gbs_large_all"]
    ridge = peak / bandwidth
    axes.plot([0.05, ridge, 5000], [0.05 * bandwidth, peak, peak], color="#333333", linewidth=1.5)
    axes.annotate(f"{peak:.0f} GFLOP/s", (5000, peak), xytext=(-4, 5), textcoords="offset points", ha="right")
    axes.annotate(f"{bandwidth:.0f} GB/s", (0.05, 0.05 * bandwidth), xytext=(12, 0), textcoords="offset points")
    cache = chip["gbs_small_all"]
    if cache > bandwidth:
        axes.plot([0.05, peak / cache], [0.05 * cache, peak], color="#333333", linewidth=1, linestyle="--")
        size = f"{chip['small_bytes'] / 2**20:.0f} MiB"
        axes.annotate(f"{cache:.0f} GB/s in {size}", (0.05, 0.05 * cache), xytext=(0, 14), textcoords="offset points")
    factor = chip["bf16_factor"]
    if factor > 1:
        x = factor * ridge
        axes.plot([ridge, x, 5000], [peak, factor * peak, factor * peak], color="#333333", linewidth=1, linestyle=":")
        axes.annotate("bfloat16", (5000, factor * peak), xytext=(-4, 5), textcoords="offset points", ha="right")


def _points(axes: Any, rows: list[dict[str, Any]]) -> None:
    for peer, (colour, mark) in MARKS.items():
        points = [
            (row["flops"] / row["traffic"], result["gflops"], row["workload"])
            for row in rows
            if row["traffic"] and (result := row["results"].get(peer)) and result["gflops"]
        ]
        if not points:
            continue
        axes.scatter(
            [x for x, _, _ in points], [y for _, y, _ in points],
            s=[14 if w == "W5" else 40 for _, _, w in points], c=colour, marker=mark, alpha=0.8, label=peer,
        )  # fmt: skip
        for x, y, workload in points:
            if peer == PEERS[0] and workload != "W5":  # W5 has too many to name
                axes.annotate(workload, (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
