"""What a ladder found: a table for the terminal, the same in Markdown, and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from minilm.errors import CheckpointError
from minilm.files import save_figure, written_whole
from minilm.train.ladder import NGRAM, LadderConfig, Rung
from minilm.train.picture import curve

TABLE, FIGURES, PICTURE = "ladder.md", "ladder.json", "ladder.png"

HEADINGS = (
    "model",
    "shape",
    "parameters",
    "trained for",
    "tokens read",
    "tokens/s",
    "perplexity",
    "bits per character",
)

# Those for a terminal, where bits per character is no long heading.
NARROW = {heading: heading for heading in HEADINGS if heading not in ("shape", "tokens read")} | {
    "bits per character": "bits/char"
}


def cells(rung: Rung) -> list[str]:
    """A row of the table, as HEADINGS has it."""
    return [
        rung.title,
        rung.shape,
        f"{rung.parameters:,}",
        f"{rung.seconds:.1f} s",
        f"{rung.tokens:,}",
        f"{rung.tokens_per_second:,.0f}",
        f"{rung.perplexity:.3f}",
        f"{rung.bits_per_character:.3f}",
    ]


def best(rungs: Sequence[Rung]) -> Rung:
    """The one that needs the fewest bits."""
    return min(rungs, key=lambda rung: rung.nats)


def terminal_table(rungs: Sequence[Rung]) -> Table:
    """The table for a terminal of 80 characters, the best model in bold; shapes are in the Markdown."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    shown = [HEADINGS.index(heading) for heading in NARROW]
    for heading, words in NARROW.items():
        table.add_column(words, justify="left" if heading == "model" else "right", no_wrap=True)
    for rung in rungs:
        row = cells(rung)
        table.add_row(*(row[i] for i in shown), style="bold" if rung is best(rungs) else "")
    return table


def remarks(rungs: Sequence[Rung], train_tokens: int) -> list[str]:
    """Who is best, and what to know where it is not the last model."""
    first, last = best(rungs), rungs[-1]
    if first is last or len(rungs) == 1:
        return [f"Best: {first.title}."]
    lines = [
        f"Best: {first.title}, {last.bits_per_character - first.bits_per_character:.3f} bits per character ahead of "
        f"{last.title}."
    ]
    if last.kind != NGRAM:
        passes = last.tokens / train_tokens
        lines.append(
            f"{last.title} read {last.tokens:,} tokens, {passes:.2f} passes of the text, in {last.seconds:.0f} s. "
            f"See how its curve fell: more --seconds give it more of them."
        )
    return lines


def markdown(rungs: Sequence[Rung], config: LadderConfig, train_tokens: int) -> str:
    """The table and the remarks in Markdown."""
    rows = [list(HEADINGS), ["---", "---", *["---:"] * (len(HEADINGS) - 2)], *map(cells, rungs)]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    shared = (
        f"All models learn from the same {train_tokens:,} tokens and have at most {config.parameters:,} parameters; of "
        f"an n-gram model each probability and each back-off weight counts. Networks: {config.batch_size} x "
        f"{config.block_size} tokens a step, {config.precision}. All are asked for the same held-out tokens."
    )
    return "\n".join(["# The ladder", "", *lines, "", shared, "", *remarks(rungs, train_tokens), ""])


def write_report(folder: Path, rungs: Sequence[Rung], config: LadderConfig, train_tokens: int) -> list[Path]:
    """Write ladder.md, ladder.json and, with matplotlib, ladder.png; the paths of what was written. Errors: OSError."""
    content = {
        "config": config.to_dict(),
        "train_tokens": train_tokens,
        "models": [
            {**vars(rung), "perplexity": rung.perplexity, "tokens_per_second": rung.tokens_per_second} for rung in rungs
        ],
    }
    texts = {TABLE: markdown(rungs, config, train_tokens), FIGURES: json.dumps(content, indent=2) + "\n"}
    for name, text in texts.items():
        with written_whole(folder / name, "w") as file:
            file.write(text)
    picture = draw(folder, rungs)
    return [folder / TABLE, folder / FIGURES, *([picture] if picture else [])]


def draw(folder: Path, rungs: Sequence[Rung]) -> Path | None:
    """Draw ladder.png: the bits of each model, and how those of the networks fell; None without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")  # a file, no window
    from matplotlib import pyplot

    figure, (bars, curves) = pyplot.subplots(1, 2, figsize=(11, 4.5), dpi=120, layout="constrained")
    colors = {rung.kind: f"C{i}" for i, rung in enumerate(rungs)}
    for at, rung in enumerate(rungs):
        bars.bar(at, rung.bits_per_character, color=colors[rung.kind], width=0.7)
        bars.annotate(f"{rung.bits_per_character:.3f}", (at, rung.bits_per_character), ha="center", va="bottom")
    bars.set_xticks(range(len(rungs)), [f"{rung.title}\n{rung.parameters:,}" for rung in rungs], fontsize=8)
    bars.set_ylabel("bits per character, held-out text")
    bars.set_ylim(_floor(rungs), max(rung.bits_per_character for rung in rungs) * 1.03)
    bars.set_title("models of one size, and their parameters")
    for rung in rungs:
        _draw_curve(curves, folder, rung, colors[rung.kind])
    curves.set_xlabel("seconds of training")
    curves.set_ylabel("bits per token while learning")
    curves.set_title("how they learnt")
    curves.legend(frameon=False)
    for axes in (bars, curves):
        axes.grid(axis="y", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    path = folder / PICTURE
    save_figure(figure, path)
    return path


def _floor(rungs: Sequence[Rung]) -> float:
    """Where the bars begin: what all have in common need not be seen."""
    return 0.8 * min(rung.bits_per_character for rung in rungs)


def _draw_curve(axes: Any, folder: Path, rung: Rung, color: str) -> None:
    if rung.kind == NGRAM:
        axes.axhline(rung.nats / math.log(2), color=color, linestyle=":", label=rung.title)
        return
    try:
        lines = curve(folder / rung.kind)
    except CheckpointError:
        return
    points = [(line["seconds"], line["validation_loss"] / math.log(2)) for line in lines if "validation_loss" in line]
    if points:
        axes.plot(*zip(*points), color=color, marker="o", markersize=3, label=rung.title)
