"""The loss curve as a picture."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from minilm.files import written_whole
from minilm.train.observers import LOG, read_log

FILE_NAME = "loss.png"


def draw_loss(folder: Path, vocab_size: int, title: str) -> Path | None:
    """Draw RUN/loss.png from RUN/log.jsonl; None where matplotlib is not installed.

    Errors: OSError of the file system.
    """
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")  # a file, no window
    from matplotlib import pyplot

    lines = read_log(folder / LOG)
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    _draw(axes, lines, vocab_size)
    axes.set_title(title, parse_math=False)  # a $ in a file's name is no formula
    path = folder / FILE_NAME
    with warnings.catch_warnings(), written_whole(path) as file:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # nor need its font have every script
        figure.savefig(file, format="png")
    pyplot.close(figure)
    return path


def _draw(axes: Any, lines: list[dict[str, Any]], vocab_size: int) -> None:
    train = [(line["step"], line["loss"]) for line in lines if line["loss"] is not None]
    validation = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    axes.axhline(math.log(vocab_size), color="#999999", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"guessing: ln {vocab_size} = {math.log(vocab_size):.2f}",
        (1, math.log(vocab_size)),
        xycoords=("axes fraction", "data"),
        xytext=(-6, -12),
        textcoords="offset points",
        ha="right",
        color="#777777",
        fontsize=9,
    )
    if train:
        axes.plot(*zip(*train), color="#7aa6d6", linewidth=1, label="training (mean of the steps between)")
    if validation:
        axes.plot(*zip(*validation), color="#c0392b", marker="o", markersize=4, label="validation")
        step, loss = validation[-1]
        axes.annotate(
            f"{loss:.3f}", (step, loss), xytext=(-4, 10), textcoords="offset points", ha="right", color="#c0392b"
        )
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats per token")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if train or validation:
        axes.legend(frameon=False)
