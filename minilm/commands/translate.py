"""`minilm translate`: what a model of pairs writes of texts, translations or summaries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def translate(
    model: Annotated[Path, typer.Argument(help="A run of finetune translate or summarize, or the folder of a model.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; or one UTF-8 file with a text a line; by default standard input.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; by default to the screen.")] = None,
    beam: Annotated[int, typer.Option(help="How many beginnings go on together; 1 for the likeliest token.")] = 5,
    length_penalty: Annotated[float, typer.Option(help="Above 1: longer; below: shorter.")] = 1.0,
    n_best: Annotated[int, typer.Option(help="How many outputs of each text, as JSON lines with their scores.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="The most tokens of an output.")] = 256,
    no_repeat: Annotated[int, typer.Option(help="No sequence of so many tokens comes twice; 0 for any.")] = 0,
    sample: Annotated[bool, typer.Option("--sample", help="Draw tokens at random in place of a search.")] = False,
    temperature: Annotated[float, typer.Option(help="Of drawing: below 1 likely tokens become likelier.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens that reach p together.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed draws the same texts.")] = None,
    alignment: Annotated[
        Path | None, typer.Option(help="Draw where the model looked as it wrote (.png or .svg); of one text.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="How many texts each thread computes together.")] = 32,
) -> None:
    """Write each text in the other language, or its summary: a line each."""
    from minilm.beam import BeamSearch
    from minilm.cli import UsageError
    from minilm.errors import ConfigError
    from minilm.generation import Sampling

    # What is impossible is refused before a model is read.
    BeamSearch(beam, n_best, length_penalty, max_new_tokens=max_tokens, no_repeat_ngram_size=no_repeat)
    sampling = Sampling(temperature, top_k, top_p)
    for name, given in (("--temperature", temperature != 1), ("--top-k", top_k), ("--top-p", top_p), ("--seed", seed)):
        if given not in (None, False) and not sample:
            raise UsageError(f"{name} is for drawing: it needs --sample")
    if sample and n_best > 1:
        raise UsageError("--n-best is of a search, and --sample draws")
    if batch_size < 1:
        raise ConfigError(f"batch-size must be at least 1, not {batch_size}")
    if alignment is not None and alignment.suffix not in (".png", ".svg"):
        raise UsageError(f"{alignment}: a picture's name ends in .png or .svg")
    sources, where = _sources(texts)
    if alignment is not None and len(sources) != 1:
        raise UsageError(f"--alignment draws one text, and there are {len(sources)}")

    from minilm.models.translator import Translator
    from minilm.train.finetuning.results import MODEL

    translator = Translator.from_pretrained(model / MODEL if (model / MODEL).is_dir() else model)
    tokens = translator.encode(sources, where)
    if sample:
        found = [[one] for one in translator.drawn(tokens, sampling, max_tokens, batch_size, seed)]
    else:
        search = translator.search(
            num_beams=beam,
            num_return_sequences=n_best,
            length_penalty=length_penalty,
            max_new_tokens=max_tokens,
            no_repeat_ngram_size=no_repeat,
        )
        found = translator.written(tokens, search, batch_size)
    if alignment is not None:
        from minilm.evaluation.picture import draw_alignment

        best = found[0][0].tokens
        pieces = [translator.tokenizer.pieces(ids) for ids in (tokens[0], best)]
        draw_alignment(translator.alignment(tokens[0], best), pieces[0], pieces[1], alignment)
    lines = [_line(source, group, n_best) for source, group in zip(sources, found)]
    if out is None:
        for line in lines:
            typer.echo(line)
    else:
        from minilm.files import written_whole

        with written_whole(out, "w") as file:
            file.writelines(line + "\n" for line in lines)
        typer.echo(f"{out}: {len(lines):,} texts")


def _line(source: str, group: list[Any], n_best: int) -> str:
    if n_best == 1:
        return " ".join(group[0].text.split("\n"))
    outputs = [{"text": one.text, "score": one.score} for one in group]
    return json.dumps({"source": source, "outputs": outputs}, ensure_ascii=False)


def _sources(texts: list[str] | None) -> tuple[list[str], Any]:
    """The texts to be read, and what errors call each. Errors: DataError for an empty one, naming the line."""
    from minilm.commands.embed import is_file
    from minilm.errors import DataError
    from minilm.text.reading import read_text

    if texts and (len(texts) > 1 or not is_file(Path(texts[0]))):
        return texts, lambda number: f"text {number + 1}" if len(texts) > 1 else "the text"
    name = texts[0] if texts else "standard input"
    if texts:
        content = read_text(name)
    else:
        try:
            content = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: is no UTF-8 text ({error.reason} at byte {error.start})") from None
    lines = content.removesuffix("\n").split("\n")
    if not content.strip():
        raise DataError(f"{name}: is empty")
    return [line.removesuffix("\r") for line in lines], lambda number: f"{name}: line {number + 1}"
