"""Pictures: a confusion matrix, and where a model looked as it wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import ConfigError, MissingExtraError, ShapeError
from minilm.files import save_figure

NUMBERED = 20  # classes up to which each field has its number written in


def draw_confusion(
    matrix: NDArray[np.integer[Any]], names: Sequence[str], path: str | os.PathLike[str], title: str = ""
) -> Path:
    """Draw a confusion matrix (K, K): true classes in rows, predicted ones in columns, coloured by shares of rows.

    path: a .png or .svg file. Errors: ConfigError for another ending; ShapeError unless there are K names;
    MissingExtraError without matplotlib; OSError of the file system.
    """
    file = _picture(path)
    if matrix.shape != (len(names), len(names)):
        raise ShapeError(f"draw_confusion: a matrix {matrix.shape} for {len(names)} names")
    pyplot = _pyplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    ticks = [f"{name[:30]}…" if len(name) > 30 else name for name in names]
    side = min(4 + 0.45 * len(names), 18) + 0.14 * max(map(len, ticks))  # inches; wide characters have about 0.14
    figure, axes = pyplot.subplots(figsize=(side + 1, side), dpi=120, layout="constrained")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set_xticks(range(len(names)), ticks, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), ticks, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, parse_math=False)
    if len(names) <= NUMBERED:
        for i, j in np.ndindex(*matrix.shape):
            color = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, f"{matrix[i, j]}", ha="center", va="center", fontsize=8, color=color)
    save_figure(figure, file)
    return file


def draw_alignment(
    weights: NDArray[np.floating[Any]],
    source: Sequence[str],
    target: Sequence[str],
    path: str | os.PathLike[str],
) -> Path:
    """Draw attention weights (T, S): of each of T tokens that were written, a row, where among S it looked.

    source, target: the tokens as texts. path: a .png or .svg file. Errors: as `draw_confusion`.
    """
    file = _picture(path)
    if weights.shape != (len(target), len(source)):
        raise ShapeError(f"draw_alignment: weights {weights.shape} for {len(target)} tokens and {len(source)}")
    pyplot = _pyplot()
    size = (min(3 + 0.28 * len(source), 40), min(2 + 0.28 * len(target), 40))  # inches
    figure, axes = pyplot.subplots(figsize=size, dpi=120, layout="constrained")
    image = axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    figure.colorbar(image, ax=axes, label="attention", shrink=0.8)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(source)), source, rotation=90, parse_math=False)
    axes.set_yticks(range(len(target)), target, parse_math=False)
    save_figure(figure, file)
    return file


def _picture(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.suffix not in (".png", ".svg"):
        raise ConfigError(f"{file}: a picture's name ends in .png or .svg")
    return file


def _pyplot() -> Any:
    """Matplotlib, drawing into files. Errors: MissingExtraError."""
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("pictures need matplotlib: pip install 'minilm[plot]'") from None
    matplotlib.use("Agg")  # a file, no window
    from matplotlib import pyplot

    return pyplot
