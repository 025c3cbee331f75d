"""`minilm predict`: what a fine-tuned model says of the texts, sentences or questions in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def predict(
    model: Annotated[Path, typer.Argument(help="The folder of a fine-tuned model: RUN/model, or the run's.")],
    file: Annotated[Path, typer.Argument(help="A file of the kind that it learnt from, with or without labels.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; by default to the screen.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of the texts: a name, or a number from 1.")
    ] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="The column of the second texts, where there are pairs.")
    ] = None,
) -> None:
    """Write a JSON line for each text, sentence or question, with what the model says."""
    from minilm.commands.finetune import columns
    from minilm.display import progress_bar
    from minilm.train.finetuning.results import load_model, write_rows

    task, network = load_model(model)
    options = columns(text_column=text_column, pair_column=pair_column)
    originals = task.read(file, task.config, labelled=False, **options)
    with progress_bar("examples encoded") as progress:
        encoded = task.encode(originals, labelled=False, progress=progress)
    with progress_bar("examples read by the model") as progress:
        _, predictions = task.predicted(network, encoded, originals, labelled=False, progress=progress)
    rows = task.rows(predictions, originals)
    if out is not None:
        write_rows(rows, out)
        typer.echo(f"{out}: {len(originals):,} predictions")
    else:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
