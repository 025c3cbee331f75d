"""`minilm pretrain-bert`: a BERT learns a text's language, for fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def pretrain_bert(
    corpus: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file; by default the Shakespeare that ships.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; by default runs/bert-NAME of the corpus.")] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with the configuration's keys.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One key, as in whole_words=true; may be repeated.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder instead.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard too.")] = False,
) -> None:
    """Pre-train a BERT on a text: masked words and next sentences; some ten minutes on two cores by default."""
    from minilm.cli import UsageError, train, train_run
    from minilm.train.config import parse_setting
    from minilm.train.pretraining import PretrainConfig
    from minilm.train.run import new_run

    if resume is not None:
        texts = None if corpus is None else [str(corpus)]
        return train(texts, out, config, settings, resume, tensorboard=tensorboard)  # it goes on with runs of any kind
    if corpus is not None and not corpus.exists():
        raise UsageError(f"{corpus}: there is no such file")
    built = PretrainConfig.build(config, dict(parse_setting(text) for text in settings or ()))
    name = "shakespeare" if corpus is None else corpus.stem
    folder = out if out is not None else Path("runs") / f"bert-{name}"
    title = f"minilm: a BERT learns from {corpus or 'Shakespeare'}"
    return train_run(lambda: new_run(corpus, folder, built), title, tensorboard)
