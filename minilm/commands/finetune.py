"""`minilm finetune classify|tag|qa` and `minilm predict`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

finetune = typer.Typer(help="Let a pretrained BERT learn to classify texts, tag words or answer questions.")

Model = Annotated[str | None, typer.Option(help="The pretrained model: a folder, or a name on Hugging Face's hub.")]
Train = Annotated[Path | None, typer.Option("--train", help="The file to learn from.")]
Valid = Annotated[Path | None, typer.Option(help="The file to test on; by default the last tenth of the other.")]
Out = Annotated[Path | None, typer.Option(help="The run's folder; by default runs/NAME of the file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="One key, as in epochs=2; may be repeated.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A JSON file with the configuration's keys.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with the run in this folder instead.")]


@finetune.command()
def classify(
    model: Model = None,
    train: Train = None,
    valid: Valid = None,
    out: Out = None,
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Resume = None,
    text_column: Annotated[
        str | None, typer.Option(help="The column of the texts: a name, or a number from 1.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="The column of the labels.")] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="The column of the second texts, where there are pairs.")
    ] = None,
) -> None:
    """Classes of texts, from a CSV, TSV or JSON lines file."""
    options = columns(text_column=text_column, label_column=label_column, pair_column=pair_column)
    _finetune("classify", model, train, valid, out, config, settings, resume, options)


def _without_columns(name: str) -> Callable[..., None]:
    """The command of a task whose files have columns of their own."""

    def command(
        model: Model = None,
        train: Train = None,
        valid: Valid = None,
        out: Out = None,
        config: ConfigFile = None,
        settings: Settings = None,
        resume: Resume = None,
    ) -> None:
        _finetune(name, model, train, valid, out, config, settings, resume, {})

    return command


for _name, _what in {
    "tag": "Tags of words, from a CoNLL or CoNLL-U file (--set tags=xpos for another column).",
    "qa": "Answers in texts, from a SQuAD file (version 1.1 or 2.0).",
}.items():
    finetune.command(_name, help=_what)(_without_columns(_name))


def columns(**given: str | None) -> dict[str, int | str]:
    """Columns as `read_classification` takes them: numbers, or names."""
    return {name: int(value) if value.isdecimal() else value for name, value in given.items() if value is not None}


def _finetune(
    name: str,
    model: str | None,
    train: Path | None,
    valid: Path | None,
    out: Path | None,
    config: Path | None,
    settings: list[str] | None,
    resume: Path | None,
    options: dict[str, Any],
) -> None:
    from minilm.cli import UsageError, train_run
    from minilm.display import progress_bar
    from minilm.models.bert_config import BertConfig
    from minilm.models.hub import found
    from minilm.models.pretrained import read_config
    from minilm.train.config import parse_setting
    from minilm.train.finetuning.corpus import Source
    from minilm.train.run import continued_run, new_run
    from minilm.train.tasks import task

    given = dict(parse_setting(text) for text in settings or ())
    if resume is not None:
        if any(x is not None for x in (model, train, valid, out, config)):
            raise UsageError("--resume takes everything from the run itself: only --set may stand beside it")
        return train_run(lambda: continued_run(resume, given), f"minilm: going on with {resume}")
    if model is None or train is None:
        raise UsageError(f"minilm finetune {name} --model FOLDER --train FILE (or --resume RUN)")
    shape = read_config(found(model), BertConfig, {}).to_dict()
    if config is None:  # as much of the usual length as the model can take
        usual: Any = task(name).config
        given.setdefault("max_length", min(usual.max_length, shape["max_position_embeddings"]))
        if name == "qa" and given["max_length"] < usual.max_length:
            given.setdefault("stride", given["max_length"] // 3)
    built = task(name).config.build(config, {"pretrained": str(model), "model": shape, **given})
    folder = out if out is not None else Path("runs") / train.stem

    def prepare() -> Any:
        with progress_bar("examples encoded") as progress:
            return new_run(Source(train, valid, options), folder, built, progress)

    return train_run(prepare, f"minilm: {model} learns from {train}")
