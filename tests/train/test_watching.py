"""What is seen of a run: the display, the list of runs, TensorBoard's files, pictures."""

from __future__ import annotations

import io
import math
import re
import struct
import subprocess
import sys

import pytest
from rich.console import Console

from minilm.cli import app
from minilm.display import Display, clock, progress_bar, time_left
from minilm.errors import ConfigError
from minilm.files import locked
from minilm.train import LogFile, Observer, listing
from minilm.train.checkpoint import checkpoints
from minilm.train.display import TrainingDisplay
from minilm.train.observers import read_log
from minilm.train.picture import draw_comparison
from minilm.train.run import continued_run
from minilm.train.tensorboard import TAGS, TensorBoard
from minilm.train.trainer import DivergedError


class StopAt(Observer):
    """Ends a run after so many steps, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def stepped(self, trainer):
        trainer.interrupted |= trainer.progress.step == self.step


# --- the display ------------------------------------------------------------------------------------------


def a_console(terminal, width=80):
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, height=30, highlight=False)


def test_a_display_moves_in_a_terminal_and_is_gone_afterwards(monkeypatch):
    monkeypatch.setattr("minilm.display.REFRESH", 0)
    console = a_console(True, 40)
    with Display(console) as display:
        display.move(1, 4, "a first line", "a second " + 50 * "x")
        display.say("what stays")
        display.move(2, 4, "a first line")
    shown = console.file.getvalue()
    assert " 25%" in shown
    assert " 50%" in shown
    assert "x" * 30 in shown
    assert "x" * 40 not in shown  # cut at the width, not wrapped
    assert shown.endswith("\x1b[1A\x1b[2K\x1b[?25h") or shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")


def test_a_display_prints_plain_lines_now_and_then_elsewhere():
    console = a_console(False)
    with Display(console) as display:
        display.move(1, 4, "not yet")
        display.move(1, 4, "one", "two", quiet=0)
        display.say("what stays")
        display.move(2, 4, "too soon")
    assert console.file.getvalue() == " 25%  one  two\nwhat stays\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_is_seen_in_a_terminal_only(monkeypatch, terminal):
    monkeypatch.setattr("minilm.display.REFRESH", 0)
    console, streams = a_console(terminal), []
    monkeypatch.setattr("minilm.display.Console", lambda stderr: (streams.append(stderr), console)[1])
    with progress_bar("texts encoded") as progress:
        progress(1, 4)
        progress(2, 4)
    shown = console.file.getvalue()
    assert streams == [True]
    assert ("texts encoded" in shown and " 50%" in shown) if terminal else shown == ""


def test_the_time_left_is_that_of_the_rest(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 110.0)
    assert time_left(100.0, 1, 4) == "0:30 left"
    assert time_left(100.0, 0, 4) == "--:-- left"
    assert [clock(x) for x in (0, 65.2, 7265, math.nan)] == ["0:00", "1:05", "2:01:05", "--:--"]


FIGURES = (
    r"step +\d+/24",
    r"loss +\d\.\d{3}",
    r"validation \d\.\d{3}",
    r"learning rate 0\.\d+",
    r"gradient norm \d\.\d+",
    r"[\d,]+ tokens/s",
    r"\d+% of peak",
    r"memory [\d,]+ MiB",
    r"\d:\d\d left",
)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_run_shows_all_of_its_figures(begin, terminal, monkeypatch):
    monkeypatch.setattr("minilm.display.REFRESH", 0)
    trainer, console = begin(), a_console(terminal, 80 if terminal else 200)
    trainer.observers.append(TrainingDisplay(console))
    trainer.train()
    shown = console.file.getvalue()
    for figure in FIGURES:
        assert re.search(figure, shown), figure
    lines = [line for line in shown.splitlines() if terminal or re.search("  ".join(FIGURES[:5]), line)]
    assert terminal or len(lines) == 5  # one an evaluation
    plain = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\r", "", line) for line in lines]
    assert not terminal or max(map(len, plain)) <= 80


def test_products_in_bfloat16_are_compared_with_float32s_peak(begin):
    trainer, console = begin(precision="bf16"), a_console(False)
    trainer.observers.append(TrainingDisplay(console))
    trainer.train()
    assert re.search(r"\d+% of float32's peak  memory", console.file.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_a_checkpoint_that_takes_long_says_how_far_it_is(begin, terminal, monkeypatch):
    monkeypatch.setattr("minilm.display.REFRESH", 0)
    trainer, console, now = begin(), a_console(terminal), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    display = TrainingDisplay(console)
    display.saving(trainer, 0.1)
    now[0] += 0.9
    display.saving(trainer, 0.2)
    assert "saving" not in console.file.getvalue()
    for share in (0.4, 0.8):
        now[0] += 30
        display.saving(trainer, share)
        assert f"saving the checkpoint: {share:.0%}" in console.file.getvalue()
    display.saved(trainer)
    display.close()
    before = console.file.getvalue()
    display.saving(trainer, 0.3)  # the next one
    assert console.file.getvalue() == before


def test_a_checkpoint_tells_how_far_it_is(begin):
    told = []

    class Shares(Observer):
        def saving(self, trainer, share):
            told.append(share)

    trainer = begin(steps=1)
    trainer.observers = [Shares()]
    trainer.train()
    first = told[: told.index(1.0) + 1]
    assert first == sorted(first)
    assert len(first) > 10
    assert told[-1] == 1.0


# --- the list -----------------------------------------------------------------------------------------------


def test_runs_are_listed_with_their_states(begin, tmp_path):
    place = tmp_path / "runs"
    place.mkdir()
    finished, interrupted, damaged, running = (begin(f"runs/{name}") for name in ("a", "b", "c", "d"))
    for trainer in (finished, damaged):
        trainer.train()
    interrupted.observers.append(StopAt(9))
    interrupted.train()
    newest = checkpoints(damaged.folder)[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    lost = begin("runs/e")
    for path in checkpoints(lost.folder):
        path.write_bytes(b"")
    with locked(running.folder):
        states = {path.name: listing.state(path) for path in listing.find_runs(place)}
        console = a_console(False, 200)
        console.print(listing.table(place))
    assert {name: found["state"] for name, found in states.items()} == {
        "a": "finished",
        "b": "interrupted",
        "c": "damaged",
        "d": "running",
        "e": "damaged",
    }
    assert states["c"]["step"] == 21  # of the checkpoint that serves
    shown = console.file.getvalue()
    assert re.search(r"/b +interrupted +9/24 +\d\.\d{3} +\d\.\d{3} .* 20\d\d-\d\d-\d\d \d\d:\d\d", shown)
    assert re.search(r"/e +damaged *\n", shown)


def test_a_run_that_diverged_is_called_so_until_it_goes_on(begin):
    trainer = begin()
    original = trainer.model.loss
    trainer.model.loss = lambda *args: original(*args) * (math.nan if trainer.progress.step == 9 else 1)
    with pytest.raises(DivergedError):
        trainer.train()
    assert listing.state(trainer.folder)["state"] == "diverged"
    assert "the loss is nan at step 10" in read_log(trainer.folder / "log.jsonl")[-1]["diverged"]
    draw_comparison([trainer.folder], trainer.folder.parent / "x.svg", "tokens")
    resumed, _ = continued_run(trainer.folder, {})
    resumed.observers = [LogFile(resumed.folder)]
    resumed.train()
    assert listing.state(trainer.folder)["state"] == "finished"
    assert not [line for line in read_log(trainer.folder / "log.jsonl") if "diverged" in line]


# --- TensorBoard ----------------------------------------------------------------------------------------------


@pytest.fixture
def scalars(tensorboard):
    """scalars(folder): all points in its event files, (tag, step) -> (value, time). Fails at one that stands twice."""

    def read(folder):
        found = {}
        for path in sorted(folder.glob("events.out.tfevents.*")):
            content = path.read_bytes()
            while content:  # a record: its length, a checksum of that, the event, a checksum of it
                (length,) = struct.unpack("<Q", content[:8])
                event = tensorboard.Event.FromString(content[12 : 12 + length])
                content = content[16 + length :]
                for value in event.summary.value:
                    assert (value.tag, event.step) not in found
                    found[value.tag, event.step] = value.simple_value, event.wall_time
        return found

    return read


def with_board(trainer):
    trainer.observers = [LogFile(trainer.folder), TensorBoard(trainer.folder)]
    return trainer


def as_logged(folder):
    """What TensorBoard should show."""
    lines = read_log(folder / "log.jsonl")
    names = ("loss", "validation_loss", "learning_rate", "gradient_norm")
    return {(TAGS[n], line["step"]): line[n] for line in lines for n in names if line.get(n) is not None}


def test_tensorboard_shows_what_the_log_says(begin, scalars):
    trainer = with_board(begin())
    trainer.train()
    found, expected = scalars(trainer.folder / "tensorboard"), as_logged(trainer.folder)
    shown = {key: value for key, (value, _) in found.items() if key[0] != "tokens_per_second"}
    assert shown == pytest.approx(expected, rel=1e-6)
    assert len(shown) > 20
    assert sum(tag == "tokens_per_second" for tag, _ in found) == len(read_log(trainer.folder / "log.jsonl"))
    times = [found["loss/training", step][1] for step in (3, 12, 24)]
    assert times == sorted(times)
    assert times[-1] - times[0] <= trainer.progress.seconds + 0.01


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_has_one_curve_without_gaps_or_doubles(begin, scalars, before):
    """Whether it was written from the beginning or not; killed after more steps than the checkpoint knows."""
    part = begin()
    if before:
        with_board(part)

    class Die(Observer):
        def stepped(self, trainer):
            if trainer.progress.step == 13:
                raise OSError("gone")

    part.observers.append(Die())
    with pytest.raises(OSError, match="gone"):
        part.train()
    if before:
        part.observers[1].close()
        assert ("loss/training", 12) in scalars(part.folder / "tensorboard")  # beyond the checkpoint of step 7
    resumed = with_board(continued_run(part.folder, {})[0])
    assert resumed.progress.step == 7
    resumed.train()
    found, expected = scalars(part.folder / "tensorboard"), as_logged(part.folder)
    assert {key: found[key][0] for key in expected} == pytest.approx(expected, rel=1e-6)
    assert {key for key in found if key[0] != "tokens_per_second"} == set(expected)


def test_without_the_package_it_is_refused_before_anything_is_made(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"need tensorboardX: pip install 'minilm\[tensorboard\]'"):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())


def test_pytorch_is_not_imported_for_it(tensorboard):
    code = "import sys; from minilm.train.tensorboard import summary_writer as w; w(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_train_writes_tensorboards_files_and_says_when_it_cannot(
    text, settings_of_small, scalars, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = [*settings_of_small, "--set=steps=3", "--set=eval_every=1"]
    app(["train", str(text), "--out", "run", "--tensorboard", *settings], standalone_mode=False)
    assert ("loss/validation", 3) in scalars(tmp_path / "run" / "tensorboard")
    app(["train", "--resume", "run", "--tensorboard", "--set=steps=5"], standalone_mode=False)
    assert {("loss/validation", step) for step in range(1, 6)} <= scalars(tmp_path / "run" / "tensorboard").keys()
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match="need tensorboardX"):
        app(["train", str(text), "--out", "other", "--tensorboard", *settings], standalone_mode=False)
    assert not (tmp_path / "other").exists()
