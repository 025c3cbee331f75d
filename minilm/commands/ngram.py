"""`minilm ngram`: an n-gram model of a text, its perplexity, an ARPA file, and what it writes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer


def ngram(
    corpus: Annotated[
        Path | None, typer.Argument(help="A UTF-8 text file to learn from; by default the Shakespeare that ships.")
    ] = None,
    order: Annotated[int | None, typer.Option(help="Tokens of an n-gram, 1 to 6; 5 by default.")] = None,
    smoothing: Annotated[str | None, typer.Option(help="kneser-ney (modified), witten-bell or add-k.")] = None,
    k: Annotated[float | None, typer.Option(help="What add-k adds to each count; 1 by default.")] = None,
    level: Annotated[
        str | None, typer.Option(help="char or word; char by default, or what the loaded file says.")
    ] = None,
    cutoff: Annotated[int | None, typer.Option(help="Tokens that occur less often become <unk>; 1 by default.")] = None,
    load: Annotated[Path | None, typer.Option(help="Read this ARPA file in place of learning.")] = None,
    valid: Annotated[Path | None, typer.Option("--valid", "--score", help="A text file to measure.")] = None,
    valid_fraction: Annotated[
        float | None, typer.Option(help="Without --valid: this last part of the corpus is measured; 0.1 by default.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the model here, as an ARPA file.")] = None,
    sample: Annotated[int, typer.Option(help="Write a text of so many tokens.")] = 0,
    prompt: Annotated[str, typer.Option(help="What that text begins with.")] = "",
    temperature: Annotated[float, typer.Option(help="Below 1: likelier tokens; 0: always the likeliest.")] = 1.0,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
) -> None:
    """Learn an n-gram model: minilm ngram CORPUS.txt; or use one: minilm ngram --load MODEL.arpa --score TEXT.txt."""
    from minilm.errors import ConfigError
    from minilm.generation import Sampling

    # refuse what is impossible before anything is computed
    Sampling(temperature)
    if sample < 0:
        raise ConfigError(f"sample must be at least 0, not {sample}")
    if seed is not None and not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be from 0 to 2**64 - 1, not {seed}")
    given = {"order": order, "smoothing": smoothing, "k": k, "cutoff": cutoff}
    settings = {name: value for name, value in given.items() if value is not None}
    _check_place(out, smoothing)
    if load is not None:
        beside = [*settings, *(["CORPUS"] if corpus else []), *(["valid-fraction"] if valid_fraction else [])]
        _check_use(beside, works=valid is not None or out is not None or sample > 0)
        model, held = _loaded(load, level, valid)
    else:
        model, held = _learnt(corpus, settings | ({} if level is None else {"level": level}), valid, valid_fraction)
    if held is not None:
        _show_score(model, held, begins=valid is not None)
    if out is not None:
        model.save(out)
        _say("written", str(out))
    if sample:
        typer.echo()
        typer.echo(prompt, nl=False)
        for piece in model.sample(sample, prompt, temperature=temperature, seed=seed):
            typer.echo(piece, nl=False)
        typer.echo()


def _check_place(out: Path | None, smoothing: str | None) -> None:
    """Errors: UsageError for a file that could not be written when all is learnt."""
    from minilm.cli import UsageError

    if out is None:
        return
    if smoothing == "add-k":
        raise UsageError("an ARPA file holds models that back off to shorter contexts, and add-k does not: no --out")
    if out.is_dir():
        raise UsageError(f"{out}: this is a folder; --out names a file")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise UsageError(f"{out}: cannot be written, since {out.parent} is no folder that one may write to")


def _check_use(beside: list[str], works: bool) -> None:
    """Errors: UsageError for options that do not go with --load."""
    from minilm.cli import UsageError

    if beside:
        raise UsageError(f"--load brings a model that has learnt: {', '.join(beside)} cannot be given beside it")
    if not works:
        raise UsageError("what shall the loaded model do? Give --score TEXT, --sample N or --out FILE")


def _loaded(path: Path, level: str | None, valid: Path | None) -> tuple[Any, str | None]:
    """The model of an ARPA file, and the text to measure."""
    from minilm.models.ngram_text import TextNGram
    from minilm.text.reading import read_text

    held = None if valid is None else read_text(valid)
    model = TextNGram.load(path, level)
    _show_model(model, f"from {path}")
    return model, held


def _learnt(
    corpus: Path | None, settings: dict[str, Any], valid: Path | None, fraction: float | None
) -> tuple[Any, str | None]:
    """A new model, and the text to measure."""
    from minilm.cli import UsageError
    from minilm.data.corpora import shakespeare
    from minilm.errors import ConfigError, DataError
    from minilm.models.ngram_text import TextNGram
    from minilm.text.reading import read_text

    if valid is not None and fraction is not None:
        raise UsageError("the text to measure is --valid or the last --valid-fraction of the corpus, not both")
    fraction = 0.1 if fraction is None else fraction
    if not 0 <= fraction < 1:
        raise ConfigError(f"valid-fraction must be at least 0 and below 1, not {fraction}")
    held = None if valid is None else read_text(valid)
    text = shakespeare() if corpus is None else read_text(corpus)
    if valid is None and fraction:
        text, held = _split(text, fraction, at_lines=settings.get("level") == "word")
    name = "Shakespeare" if corpus is None else str(corpus)
    began = time.perf_counter()
    try:
        model = TextNGram.train(text, **settings)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    _show_model(model, f"learnt from {len(text):,} characters of {name} in {time.perf_counter() - began:.1f} s")
    return model, held or None


def _split(text: str, fraction: float, at_lines: bool) -> tuple[str, str]:
    """The text without its last part, and that part; `at_lines`: it begins with a line, so that none is cut."""
    cut = int(len(text) * (1 - fraction))
    cut = text.find("\n", cut) + 1 or len(text) if at_lines else cut
    return text[:cut], text[cut:]


def _say(what: str, value: str) -> None:
    typer.echo(f"  {what:<12} {value}")


def _show_model(text_model: Any, how: str) -> None:
    model = text_model.model
    kinds = {"char": "characters", "word": "words"}[text_model.level]
    typer.echo(f"a {model.order}-gram model of {kinds}, {how}")
    _say("vocabulary", f"{model.vocab_size:,} tokens")
    _say("n-grams", " + ".join(f"{len(level.keys):,}" for level in model.levels))
    for order in model.fallback:
        _say("note", f"order {order}: too few counts for discounts of its own, so they are 0.5, 1 and 1.5")


def _show_score(text_model: Any, text: str, begins: bool) -> None:
    score, word = text_model.score(text, begins), text_model.level == "word"
    kind = "word" if word else "character"
    of = " and line ends" if word else ""
    _say("measured on", f"{score.tokens:,} {kind}s{of}, {score.unknown:,} of them unknown")
    _say("perplexity", f"{score.perplexity:,.3f} per {kind}, {score.bits_per_token:.3f} bits")
    if word:
        _say("", f"{score.bits_per_character:.3f} bits per character, without what <unk> hides")
