"""`minilm embed`: sentences as vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def embed(
    texts: Annotated[list[str], typer.Argument(help="Texts; or one UTF-8 file, each of whose lines is one.")],
    model: Annotated[str, typer.Option(help="A folder with a BERT and its tokenizer, or a name on the hub.")] = MODEL,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .npy or .jsonl file; by default lines of JSON are shown.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="How many texts are computed together.")] = 32,
) -> None:
    """Turn texts into vectors: those of like meaning have a dot product close to 1."""
    from minilm.cli import UsageError

    if out is not None and out.suffix not in (".npy", ".jsonl"):
        raise UsageError(
            f"{out}: vectors are written as .npy or .jsonl, not as {out.suffix or 'a file without ending'}"
        )
    if batch_size < 1:
        raise UsageError(f"batch-size must be at least 1, not {batch_size}")
    sentences = _sentences(texts)

    import numpy as np

    from minilm.display import progress_bar
    from minilm.files import written_whole
    from minilm.models.sentence import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(model)
    with progress_bar("texts") as progress:
        vectors = encoder(sentences, batch_size, progress)
    if out is None:
        for line in _lines(sentences, vectors):
            typer.echo(line)
        return
    with written_whole(out, "wb" if out.suffix == ".npy" else "w") as file:
        if out.suffix == ".npy":
            np.save(file, vectors)
        else:
            file.writelines(line + "\n" for line in _lines(sentences, vectors))
    typer.echo(f"{out}: {len(vectors)} vectors of {vectors.shape[1]} numbers")


def _sentences(texts: list[str]) -> list[str]:
    """The texts, or the lines of the one file. Errors: DataError for a file that is empty or no UTF-8."""
    from minilm.errors import DataError

    place = Path(texts[0])
    if len(texts) > 1 or not is_file(place):
        return texts
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is no UTF-8 text ({error.reason} at byte {error.start})") from None
    if not lines:
        raise DataError(f"{place}: is empty")
    return lines


def is_file(place: Path) -> bool:
    """Whether there is such a file; a text that could be none's name is none."""
    try:
        return place.is_file()
    except (OSError, ValueError):  # a text too long for a name, or with a NUL
        return False


def _lines(sentences: list[str], vectors: Any) -> Iterator[str]:
    """One line of JSON for each text, with its vector as precise as float32 is."""
    import json

    for text, vector in zip(sentences, vectors):
        numbers = ", ".join(f"{x:.9g}" for x in vector)
        yield f'{{"text": {json.dumps(text, ensure_ascii=False)}, "embedding": [{numbers}]}}'
