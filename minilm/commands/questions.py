"""`minilm questions`: reading comprehension from any text, as SQuAD files for `minilm finetune qa`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SHIPPED = "shakespeare"


def questions(
    text: Annotated[str, typer.Argument(help=f"A UTF-8 text file, plain or .gz; or {SHIPPED}, which ships.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for train.json and valid.json.")],
    count: Annotated[int, typer.Option(help="How many questions, of both files together, at most.")] = 5000,
    valid_fraction: Annotated[float, typer.Option(help="The share of valid.json.")] = 0.2,
    no_answer: Annotated[float, typer.Option(help="The share of questions that have no answer.")] = 0.2,
    length: Annotated[int, typer.Option(help="Characters of a passage, about.")] = 350,
    seed: Annotated[int, typer.Option(help="The same seed makes the same questions.")] = 0,
) -> None:
    """Make questions with their answers out of a text, by rule: who, where, when, which."""
    import json

    from minilm.data.corpora import read_packed, shakespeare
    from minilm.data.questions import Settings, guess_first, guess_nearest, make_questions
    from minilm.data.squad import read_squad
    from minilm.display import progress_bar
    from minilm.evaluation.squad import squad_scores
    from minilm.files import written_whole

    settings = Settings(count, valid_fraction, no_answer, length, seed=seed)
    settings.check()
    whole = shakespeare() if text == SHIPPED and not Path(text).exists() else read_packed(text)
    with progress_bar("passages") as progress:
        parts = make_questions(whole, settings, progress)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in zip(("train.json", "valid.json"), parts):
        with written_whole(out / name, "w") as file:
            json.dump(data, file, ensure_ascii=False, indent=1)
        asked = read_squad(out / name).questions
        answered = [question for question in asked if question.answers]
        guesses = [100 * squad_scores(answered, guess(answered)).exact.mean() for guess in (guess_first, guess_nearest)]
        typer.echo(
            f"{out / name}: {len(asked):,} questions, {len(answered):,} with an answer, on "
            f"{len({question.context for question in asked}):,} passages; of the answers the first candidate is "
            f"{guesses[0]:.1f}%, the nearest to the question's words {guesses[1]:.1f}%"
        )
