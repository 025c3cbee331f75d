"""The `minilm` command: demo, tokenize, train, generate, replay, runs, plot, bench, run-torch, compare, info.

What stands in files of its own (minilm/commands/): pretrain-bert, finetune, predict, questions, translate, embed,
ngram, ladder.

A mistake of the user's ends with one line on standard error and exit code 2; Ctrl-C with 130.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from minilm.commands.embed import embed
from minilm.commands.finetune_pairs import finetune
from minilm.commands.ladder import ladder
from minilm.commands.ngram import ngram
from minilm.commands.predict import predict
from minilm.commands.pretrain import pretrain_bert
from minilm.commands.questions import questions
from minilm.commands.translate import translate
from minilm.errors import MinilmError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Language models you can read all the way down.",
)

# What the parser refuses. Newer typers bring their own click, so it is not imported by name:
# a BadParameter is a UsageError is a ClickException.
RefusedError: Any = typer.BadParameter.__mro__[2]

DEMO_STEPS = 800
DEMO_FOLDER = Path("runs/demo")


@app.command()
def demo(
    steps: Annotated[int, typer.Option(help="Optimiser steps; half a minute on two cores by default.")] = DEMO_STEPS,
    out: Annotated[Path, typer.Option(help="The run's folder; a new one beside it if it holds a run.")] = DEMO_FOLDER,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 1337,
) -> None:
    """Train a small GPT on Shakespeare and watch it learn to write."""
    from minilm.train.config import TrainConfig
    from minilm.train.run import new_run

    # Three times the usual learning rate: less exact in the end, but it has only a minute.
    settings = {"steps": steps, "seed": seed, "learning_rate": 3e-3, "min_learning_rate": 3e-4, "warmup_steps": 50}
    every = {"sample_every": steps // 4, "checkpoint_every": steps // 4, "eval_every": steps // 8}
    config = TrainConfig.build(
        None, {**settings, **{name: max(count, 1) for name, count in every.items()}, "log_every": 5}
    )
    train_run(lambda: new_run(None, _unused(out), config), "minilm demo: a GPT learns to write like Shakespeare")


@app.command()
def tokenize(
    files: Annotated[list[Path], typer.Argument(help="UTF-8 text files, one after the other.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of shards, for minilm train.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, or its folder; by default one learns from the files.")
    ] = None,
    kind: Annotated[str, typer.Option(help="What learns: char or bpe.")] = "char",
    vocab_size: Annotated[int, typer.Option(help="How many tokens bpe learns.")] = 2048,
    shard_mb: Annotated[int, typer.Option(help="MiB of text in a shard.")] = 64,
    document_separator: Annotated[
        str | None, typer.Option(help=r"What ends a document, as in '\n\n' or '<|endoftext|>'.")
    ] = None,
    dedup: Annotated[str | None, typer.Option(help="Keep only the first of equal ones: line or document.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; one for each core by default.")] = None,
) -> None:
    """Make token files of text of any size; stopped, it goes on when called again."""
    from minilm.data import tokenize_files
    from minilm.display import Display, time_left
    from minilm.text import load_tokenizer

    given = None if tokenizer is None else load_tokenizer(tokenizer)
    separator = None if document_separator is None else document_separator.replace("\\n", "\n").replace("\\t", "\t")
    began = time.monotonic()

    with Display(Console(stderr=True)) as display:

        def progress(done: int, total: int) -> None:
            text = f"{done >> 20:,} of {total >> 20:,} MiB of text"
            display.move(done, total, f"{text}  {time_left(began, done, total)}")

        shards = tokenize_files(
            files,
            out,
            given,
            kind=kind,
            vocab_size=vocab_size,
            shard_bytes=shard_mb << 20,
            document_separator=separator,
            dedup=dedup,
            jobs=jobs,
            progress=progress,
        )
    typer.echo(f"{out}: {len(shards):,} tokens of {shards.vocab_size} kinds in {len(shards.shards)} shards")


@app.command()
def train(
    corpus: Annotated[
        list[str] | None, typer.Argument(help="A UTF-8 text file, a folder made by tokenize, or several as DIR:WEIGHT.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; by default runs/NAME of the (first) corpus.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with the configuration's keys.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="One key, as in model.n_layer=6; may be repeated.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder instead.")] = None,
    model: Annotated[str | None, typer.Option(help="What learns: gpt (by default), ffnn, rnn, lstm or gru.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="With --resume: go on all the same with changed data, or another version.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard too (needs tensorboardX).")
    ] = False,
) -> None:
    """Train a model: minilm train CORPUS.txt, minilm train DIR1:0.7 DIR2:0.3, or go on: minilm train --resume RUN."""
    from minilm.train.config import parse_setting
    from minilm.train.corpus import named
    from minilm.train.run import continued_run, new_run
    from minilm.train.tasks import LANGUAGE_MODELS, task

    given = dict(parse_setting(text) for text in settings or ())
    for difference in allow or ():
        if difference not in ("data", "version"):
            raise UsageError(f"--allow takes data or version, not {difference}")
    if resume is not None:
        if corpus or any(option is not None for option in (out, model, config)):
            raise UsageError(
                "--resume takes everything from the run itself: no corpus, --out, --model or --config beside it"
            )
        return train_run(
            lambda: continued_run(resume, given, allow or ()), f"minilm: going on with {resume}", tensorboard
        )
    if not corpus:
        raise UsageError("a text to learn from is missing: minilm train CORPUS.txt (or --resume RUN)")
    if model not in (None, *LANGUAGE_MODELS):
        raise UsageError(f"--model is one of {', '.join(LANGUAGE_MODELS)}, not {model}")
    built, source = task(model or "gpt").config.build(config, given), named(corpus)
    first = source if isinstance(source, str) else source[0][0]
    folder = out if out is not None else Path("runs") / Path(first).stem
    return train_run(
        lambda: new_run(source, folder, built), f"minilm: {built.TITLE} learns from {' and '.join(corpus)}", tensorboard
    )


app.command()(pretrain_bert)
app.add_typer(finetune, name="finetune")
app.command()(predict)
app.command()(questions)
app.command()(translate)


@app.command()
def generate(
    run: Annotated[Path, typer.Argument(help="The folder that training wrote.")],
    prompt: Annotated[str, typer.Option(help="What the text begins with.")] = "\n",
    tokens: Annotated[int, typer.Option(help="How many tokens to write.")] = 300,
    temperature: Annotated[float, typer.Option(help="Below 1: likelier tokens; 0: always the likeliest.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k likeliest tokens only.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest tokens that reach p together.")] = None,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: fewer tokens that occurred already.")] = 1.0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    samples: Annotated[int, typer.Option(help="How many texts.")] = 1,
) -> None:
    """Let a trained model go on with a prompt."""
    from minilm.errors import ConfigError
    from minilm.generation import Sampling, context_of, generate_text
    from minilm.train.checkpoint import load_run
    from minilm.train.tasks import LANGUAGE_MODELS

    Sampling(temperature, top_k, top_p, repetition_penalty)  # refuse what is impossible before anything is shown
    for name, value, least in (("tokens", tokens, 0), ("samples", samples, 1)):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")
    if seed is not None and not 0 <= seed <= 2**64 - samples:
        raise ConfigError(f"seed must be from 0 to 2**64 - {samples}, not {seed}")
    if not prompt:
        raise UsageError("the prompt is empty, and a model continues what it is given")
    model, tokenizer = load_run(run, LANGUAGE_MODELS)
    context, known = context_of(model), len(tokenizer.encode_array(prompt))
    if context is not None and known + tokens > context:
        note = f"note: the model sees {context} tokens at a time; {known} + {tokens} are more, so it forgets the oldest"
        typer.echo(note, err=True)
    for number in range(samples):
        if number:
            typer.echo("\n" + "─" * 40)
        typer.echo(prompt, nl=False)
        for piece in generate_text(
            model,
            tokenizer,
            prompt,
            tokens,
            stop=stop or (),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=None if seed is None else seed + number,
        ):
            typer.echo(piece, nl=False)
        typer.echo()


app.command()(embed)
app.command()(ngram)
app.command()(ladder)


@app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="The folder that training wrote.")],
    step: Annotated[int, typer.Option(help="Which step, from 1.")],
    examples: Annotated[int, typer.Option(help="How many examples of its batch to show, the worst first.")] = 3,
) -> None:
    """Do one step of a run again, to the bit: its batch, its loss, and which examples made it."""
    from minilm.train.replay import render
    from minilm.train.replay import replay as do_again

    typer.echo(render(do_again(run, step), examples))


@app.command()
def runs(folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path("runs")) -> None:
    """List the runs in a folder and how they stand."""
    from minilm.train.listing import table

    Console(highlight=False).print(table(folder))


@app.command()
def plot(
    folders: Annotated[list[Path], typer.Argument(help="The folders of runs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A .png or .svg file.")] = Path("loss.png"),
    x: Annotated[str, typer.Option(help="Along the axis: step, tokens or seconds.")] = "step",
) -> None:
    """Draw the losses of runs into one picture."""
    from minilm.train.picture import draw_comparison

    typer.echo(draw_comparison(folders, out, x))


@app.command()
def bench(
    against: Annotated[
        str | None, typer.Option(help="torch, jax, numpy, with commas; all installed by default.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Workloads with commas, as in W1,W5; all by default.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Turns of every library; 5 by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="All CPUs that may be used by default.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write every figure here, and the picture beside it.")] = None,
    picture: Annotated[Path | None, typer.Option(help="The roofline picture (PNG).")] = None,
    write_readme: Annotated[bool, typer.Option("--write-readme", help="The table into benchmarks/README.md.")] = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Tiny sizes, one round: only whether everything runs.")
    ] = False,
) -> None:
    """Measure this machine, then minilm side by side with PyTorch, JAX and NumPy."""
    _find_benchmarks()
    from minilm_benchmarks import bench as driver

    code = driver.run(driver.Options.parse(against, only, rounds, threads, brief), json, picture, write_readme)
    raise typer.Exit(code)


def _find_benchmarks() -> None:
    """Let `minilm_benchmarks` be found in a checkout that was not installed too."""
    import importlib.util

    if importlib.util.find_spec("minilm_benchmarks") is None:
        folder = Path(__file__).resolve().parents[1] / "benchmarks"
        if not (folder / "minilm_benchmarks").is_dir():
            raise UsageError("the benchmarks are not part of this installation")
        sys.path.append(str(folder))


@app.command("run-torch", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run_torch(
    script: Annotated[Path, typer.Argument(help="A Python script that was written for PyTorch.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="What the script itself is given.")] = None,
) -> None:
    """Run a script that imports torch on minilm, unchanged: minilm run-torch SCRIPT.py ARGUMENTS."""
    from minilm.compat.script import run_torch

    raise typer.Exit(run_torch(script, arguments or ()))


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def compare(
    script: Annotated[Path, typer.Argument(help="A Python script that was written for PyTorch.")],
    arguments: Annotated[list[str] | None, typer.Argument(help="What the script itself is given.")] = None,
    steps: Annotated[int, typer.Option(help="How many optimiser steps to compare; then the script is ended.")] = 1,
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance; by default that of the element type.")] = None,
) -> None:
    """Run a script on PyTorch and on minilm, and say where they part first and why: minilm compare SCRIPT.py."""
    from minilm.testing.twins.script_report import run_compare

    raise typer.Exit(run_compare(script, arguments or (), steps, rtol))


@app.command()
def info() -> None:
    """Show versions, the processor, threads, and which backend serves which kernel and why."""
    from minilm.kernels.info import render

    typer.echo(render())


class UsageError(MinilmError):
    """The command was called with options that do not go together."""


def train_run(prepare: Any, title: str, tensorboard: bool = False) -> None:
    """Prepare a run, train it, draw its picture, and say how to go on."""
    from minilm.train.display import TrainingDisplay
    from minilm.train.observers import Costs, LogFile
    from minilm.train.picture import draw_loss
    from minilm.train.tensorboard import TensorBoard, summary_writer

    console = Console(highlight=False, soft_wrap=True)
    console.print(title, style="bold", markup=False)
    if tensorboard:
        summary_writer()  # refuses before a run is made
    trainer, corpus = prepare()
    board = TensorBoard(trainer.folder) if tensorboard else None
    display = TrainingDisplay(console)
    around = corpus.observers(display.sample)
    boards = [] if board is None else [board]
    trainer.observers = [LogFile(trainer.folder), *boards, Costs(trainer.folder), display, *around]
    model = trainer.model
    console.print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(corpus):,} tokens of "
        f"{corpus.tokenizer.vocab_size} kinds, {trainer.config.steps} steps of "
        f"{trainer.config.tokens_per_step} tokens; Ctrl-C stops, nothing is lost"
    )
    for note in getattr(corpus, "notes", ()):
        console.print(f"note: {note}", markup=False)
    try:
        trainer.train()
    finally:
        display.close()
        if board is not None:
            board.close()
    picture = draw_loss(trainer.folder, corpus.guessing(), title)
    _farewell(console, trainer, corpus, picture)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _farewell(console: Console, trainer: Any, corpus: Any, picture: Path | None) -> None:
    """Where everything is, and the commands to go on."""
    from minilm.train.checkpoint import checkpoints

    folder, p = trainer.folder, trainer.progress
    state = f"stopped at step {p.step} of {p.steps}" if trainer.interrupted else f"done: {p.steps} steps"
    console.print(f"\n{state} in {p.seconds:.0f} s", style="bold")
    console.print(f"  checkpoint    {checkpoints(folder)[0]}", markup=False)
    if picture is not None:
        console.print(f"  loss curve    {picture}", markup=False)
    else:
        console.print("  no loss curve: matplotlib is not installed (pip install matplotlib)")
    run, minilm = shlex.quote(str(folder)), _program()
    word, what = corpus.result(folder, minilm)
    console.print(f"  {word:<13} {what}", markup=False)
    more = "" if p.step < p.steps else f" --set steps={2 * p.steps}"
    console.print(f"  go on         {minilm} train --resume {run}{more}", markup=False)


def _program() -> str:
    """What to type for `minilm`: the path by which it was called, where a shell would not find it by its name."""
    called, found = Path(sys.argv[0]), shutil.which("minilm")
    if called.name != "minilm" or called.parent == Path() or (found and Path(found).samefile(called)):
        return "minilm"
    return shlex.quote(sys.argv[0])


def _unused(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3, ... that holds no run yet."""
    from minilm.train.run import taken

    number, free = 2, folder
    while taken(free):
        number, free = number + 1, folder.with_name(f"{folder.name}-{number}")
    return free


def main() -> None:
    """The entry point: errors of the user's become one line and exit code 2."""
    for screen in (sys.stdout, sys.stderr):
        if isinstance(screen, io.TextIOWrapper):
            screen.reconfigure(errors="replace")  # a terminal without these characters shows others
    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    with _one_line_errors():
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except RefusedError as error:  # an unknown option, a value of the wrong kind
        _fail(error.format_message(), 2)
    except (MinilmError, IndexError) as error:
        _fail(str(error), 2)
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"{place}{error.strerror or error}", 2)
    except MemoryError as error:
        _fail(f"not enough memory: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)


def _one_line_warning(message: Any, *_: Any) -> None:
    print(f"minilm: warning: {message}", file=sys.stderr)


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print("minilm: " + " ".join(message.split("\n")), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
