"""`minilm finetune translate|summarize`: from pairs of texts to a model that makes one of the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from minilm.commands.finetune import ConfigFile, Out, Resume, Settings, Train, columns, finetune

Pretrained = Annotated[
    str | None, typer.Option(help="A pretrained Marian or T5 (a folder, or a name on the hub); else from nothing.")
]
Valid = Annotated[Path | None, typer.Option(help="The file to test on; by default every so manieth pair (--held-out).")]


def _command(name: str, what: str) -> Callable[..., None]:
    def command(
        model: Pretrained = None,
        train: Train = None,
        valid: Valid = None,
        out: Out = None,
        layers: Annotated[int | None, typer.Option(help="Of the encoder, and of the decoder.")] = None,
        channels: Annotated[int | None, typer.Option(help="C; a feed-forward part has four times as many.")] = None,
        heads: Annotated[int | None, typer.Option(help="Of attention.")] = None,
        vocabulary: Annotated[int | None, typer.Option(help="Byte pairs, of both sides together.")] = None,
        epochs: Annotated[int | None, typer.Option(help="How often all pairs are learnt from.")] = None,
        average: Annotated[int | None, typer.Option(help="Average the weights of so many last checkpoints.")] = None,
        held_out: Annotated[int | None, typer.Option(help="Every so manieth pair is tested on.")] = None,
        source_column: Annotated[
            str | None, typer.Option(help="The column of the sources: a name, or a number from 1.")
        ] = None,
        target_column: Annotated[str | None, typer.Option(help="The column of the targets.")] = None,
        config: ConfigFile = None,
        settings: Settings = None,
        resume: Resume = None,
    ) -> None:
        shape = {"layers": layers, "channels": channels, "heads": heads}
        chosen = {"vocabulary": vocabulary, "epochs": epochs, "average": average, "held_out": held_out}
        _finetune(
            name,
            model,
            Files(train, valid, out, config),
            {key: value for key, value in shape.items() if value is not None},
            {key: value for key, value in chosen.items() if value is not None},
            columns(source_column=source_column, target_column=target_column),
            settings or [],
            resume,
        )

    command.__doc__ = what
    return command


for _name, _what in {
    "translate": "Translations, from a TSV file of pairs (or JSON lines): a source, a tab, a target.",
    "summarize": "Summaries, from pairs of a long text and a short one (TSV or JSON lines).",
}.items():
    finetune.command(_name, help=_what)(_command(_name, _what))


class Files:
    """Where pairs come from, and where a run goes."""

    def __init__(self, train: Path | None, valid: Path | None, out: Path | None, config: Path | None) -> None:
        self.train, self.valid, self.out, self.config = train, valid, out, config

    @property
    def any(self) -> bool:
        """Whether one is given."""
        return any(path is not None for path in (self.train, self.valid, self.out, self.config))


def _finetune(
    name: str,
    model: str | None,
    files: Files,
    shape: dict[str, int],
    chosen: dict[str, int],
    places: dict[str, int | str],
    settings: list[str],
    resume: Path | None,
) -> None:
    from minilm.cli import UsageError, train_run
    from minilm.train.config import parse_setting
    from minilm.train.finetuning.corpus import Source
    from minilm.train.run import continued_run, new_run
    from minilm.train.tasks import task

    given = dict(parse_setting(text) for text in settings)
    if resume is not None:
        if model is not None or files.any or shape or chosen or places:
            raise UsageError("--resume takes everything from the run itself: only --set may stand beside it")
        return train_run(lambda: continued_run(resume, given), f"minilm: going on with {resume}")
    if files.train is None:
        raise UsageError(f"minilm finetune {name} --train FILE (or --resume RUN)")
    if model is not None and (shape or "vocabulary" in chosen):
        raise UsageError("a pretrained model has its own shape and vocabulary: only without --model can they be said")
    own = _pretrained(model) if model is not None else _shape(**shape)
    built = task(name).config.build(files.config, {**own, **chosen, **given})
    folder = files.out if files.out is not None else Path("runs") / files.train.name.split(".")[0]
    source = Source(files.train, files.valid, places)
    title = f"minilm: {'a new model' if model is None else model} learns from {files.train}"
    return train_run(lambda: new_run(source, folder, built), title)


def _pretrained(model: str) -> dict[str, Any]:
    """The settings that a pretrained model brings: its shape, and a learning rate for what is learnt already."""
    from minilm.models.hub import found
    from minilm.models.pretrained import CONFIG, read_json

    shape = read_json(found(model) / CONFIG)
    return {"pretrained": model, "model": shape, "learning_rate": 1e-4, "warmup_steps": 100}


def _shape(layers: int | None = None, channels: int | None = None, heads: int | None = None) -> dict[str, int]:
    """The settings of a model from nothing that these options mean."""
    settings: dict[str, int] = {}
    for side in ("encoder", "decoder"):
        if layers is not None:
            settings[f"model.{side}_layers"] = layers
        if heads is not None:
            settings[f"model.{side}_attention_heads"] = heads
        if channels is not None:
            settings[f"model.{side}_ffn_dim"] = 4 * channels
    return settings if channels is None else {**settings, "model.d_model": channels}
