"""The loss curve as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minilm.errors import CheckpointError, ConfigError
from minilm.files import save_figure
from minilm.train.observers import LOG, TIMING, read_log

FILE_NAME = "loss.png"


def draw_loss(folder: Path, guessing: tuple[str, float], title: str) -> Path | None:
    """Draw RUN/loss.png from RUN/log.jsonl; None where matplotlib is not installed.

    Args:
        guessing: the loss of a model that knows nothing, in words ("ln 84") and in nats.
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
    _draw(axes, lines, guessing)
    axes.set_title(title, parse_math=False)  # a $ in a file's name is no formula
    path = folder / FILE_NAME
    save_figure(figure, path)
    return path


AXES = {"step": "step", "tokens": "tokens", "seconds": "seconds of training"}


def draw_comparison(folders: Sequence[Path], path: Path, x: str = "step") -> Path:
    """Draw the losses of runs into one picture, validation as dots on the lines.

    Args:
        folders: of runs. path: a .png or .svg file. x: what lies along the axis, "step", "tokens" or "seconds".
    Errors: ConfigError for another ending or axis, or where matplotlib is missing; CheckpointError for a folder without
    a log; OSError of the file system.
    """
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"{path}: a picture's name ends in .png or .svg")
    if x not in AXES:
        raise ConfigError(f"the axis is one of {', '.join(AXES)}, not {x}")
    curves = [(folder, curve(folder)) for folder in folders]
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("pictures need matplotlib: pip install 'minilm[plot]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=120, layout="constrained")
    names = [folder.name for folder in folders]
    for folder, lines in curves:
        label = folder.name if names.count(folder.name) == 1 else str(folder)
        train = [(line[x], line["loss"]) for line in lines if line["loss"] is not None]
        validation = [(line[x], line["validation_loss"]) for line in lines if "validation_loss" in line]
        color = axes.plot(*(zip(*train) if train else ([], [])), linewidth=1, label=label)[0].get_color()
        if validation:
            axes.plot(*zip(*validation), "o", color=color, markersize=4)
            axes.annotate(f" {validation[-1][1]:.3f}", validation[-1], color=color, va="center", fontsize=9)
    axes.margins(x=0.09)  # room for the last figure
    axes.set_xlabel(AXES[x])
    axes.set_ylabel("loss, nats per token (dots: validation)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save_figure(figure, path)
    return path


def curve(folder: Path) -> list[dict[str, Any]]:
    """A run's log lines, with the seconds of its timing. Errors: CheckpointError for a folder without a log."""
    lines, timing = read_log(folder / LOG), {line["step"]: line for line in read_log(folder / TIMING)}
    if not lines:
        raise CheckpointError(f"{folder}: holds no {LOG}, or an empty one: there is nothing to draw yet")
    return [{**line, "seconds": timing.get(line["step"], {}).get("seconds", math.nan)} for line in lines]


def _draw(axes: Any, lines: list[dict[str, Any]], guessing: tuple[str, float]) -> None:
    train = [(line["step"], line["loss"]) for line in lines if line["loss"] is not None]
    validation = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
    words, nats = guessing
    axes.axhline(nats, color="#999999", linewidth=0.8, linestyle=":")
    axes.annotate(
        f"guessing: {words} = {nats:.2f}",
        (1, nats),
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
