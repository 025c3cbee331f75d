"""The report's pictures: losses as curves, seconds as bars. Without matplotlib there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_sections.turns import MINILM, PYTORCH
from minilm.files import save_figure

COLOURS = {MINILM: "#0072b2", PYTORCH: "#e69f00"}  # two that everybody can tell apart (Okabe & Ito)


def draw_losses(losses: Mapping[str, Sequence[float]], title: str, path: Path) -> Path | None:
    """Both libraries' losses, each point the mean of a fiftieth of the run, into a .png."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 4), dpi=120, layout="constrained")
    for name, values in losses.items():
        parts = np.array_split(np.asarray(values), min(50, len(values)))
        ends = np.cumsum([len(part) for part in parts])
        axes.plot(ends, [part.mean() for part in parts], "o-", ms=3, lw=1, color=COLOURS[name], label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats")
    axes.set_title(title, parse_math=False)
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, path)
    return path


def draw_seconds(seconds: Mapping[str, Mapping[str, float]], path: Path) -> Path | None:
    """The seconds of both in each section, with the share written beside them, into a .png."""
    pyplot = _pyplot()
    if pyplot is None:
        return None
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.8 * len(seconds)), dpi=120, layout="constrained")
    places = np.arange(len(seconds))
    for at, name in enumerate((MINILM, PYTORCH)):
        axes.barh(places + 0.4 * at, [found[name] for found in seconds.values()], 0.38, color=COLOURS[name], label=name)
    for place, found in zip(places, seconds.values()):
        axes.text(found[MINILM], place, f"  share {found[MINILM] / found[PYTORCH]:.2f}", va="center")
    axes.set_yticks(places + 0.2, list(seconds))
    axes.invert_yaxis()
    axes.set_xlabel("seconds of steps and tests")
    axes.legend()
    save_figure(figure, path)
    return path


def _pyplot() -> Any:
    """Matplotlib's, for files; None where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")  # a file, no window
    from matplotlib import pyplot

    return pyplot
