"""`minilm ladder`: language models from n-grams to a GPT, of one size, compared on one text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer


def ladder(
    corpus: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file; by default the Shakespeare that ships.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder; by default runs/ladder-NAME of the corpus.")] = None,
    parameters: Annotated[int | None, typer.Option(help="How many parameters each model may have.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of training, for each network.")] = None,
    steps: Annotated[int | None, typer.Option(help="Of training, for each network, in place of seconds.")] = None,
    models: Annotated[str | None, typer.Option(help="Some of ngram,ffnn,rnn,lstm,gru,gpt, with commas.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="What they share, as in block_size=128; may be repeated.")
    ] = None,
) -> None:
    """Train n-gram, feed-forward, RNN, LSTM, GRU and GPT of one size on one text; one table, one picture."""
    from rich.console import Console

    from minilm.cli import UsageError
    from minilm.train.config import parse_setting
    from minilm.train.display import TrainingDisplay
    from minilm.train.ladder import RUNGS, LadderConfig, climb
    from minilm.train.ladder_report import FIGURES, remarks, terminal_table, write_report
    from minilm.train.observers import Costs
    from minilm.train.run import taken

    if seconds is not None and steps:
        raise UsageError("each network trains for so many seconds or so many steps, not both")
    given: dict[str, Any] = {"parameters": parameters, "seconds": seconds, "steps": steps}
    named = {name: value for name, value in given.items() if value is not None}
    config = LadderConfig.from_dict({**named, **dict(parse_setting(text) for text in settings or ())})
    kinds = RUNGS if models is None else tuple(models.split(","))
    if corpus is not None and not corpus.exists():
        raise UsageError(f"{corpus}: there is no such file")
    folder = out if out is not None else Path("runs") / f"ladder-{'shakespeare' if corpus is None else corpus.stem}"
    if folder.exists() and (not folder.is_dir() or (folder / FIGURES).exists() or taken(folder)):
        raise UsageError(f"{folder}: is there already, and stays as it is; name another folder with --out")
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"minilm: the ladder on {corpus or 'Shakespeare'}", style="bold", markup=False)
    display = TrainingDisplay(console)
    began = time.monotonic()
    try:
        rungs, train_tokens = climb(
            corpus,
            folder,
            config,
            kinds,
            lambda trainer: [Costs(folder / trainer.config.task), display],
            display.display.say,
        )
    finally:
        display.close()
    console.print()
    console.print(terminal_table(rungs), soft_wrap=False)
    for line in remarks(rungs, train_tokens):
        console.print(line, markup=False)
    console.print(f"\ndone in {time.monotonic() - began:.0f} s", style="bold")
    for path in write_report(folder, rungs, config, train_tokens):
        console.print(f"  {path}", markup=False)
