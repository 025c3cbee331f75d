"""The command line: what a user sees, and that a mistake is one line and exit code 2, never a traceback."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from minilm import cli

SOURCE = Path(cli.__file__).parents[1]
COMMAND = [sys.executable, "-m", "minilm.cli"]
TEXT = "the cat sat on the mat, and the dog sat on the cat.\n" * 40
TINY = {
    "model": {"block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8},
    "batch_size": 2,
    "steps": 3,
    "eval_batches": 1,
    "sample_length": 5,
}


def environment(**extra) -> dict[str, str]:
    one = dict.fromkeys(("NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # small work, busy machines
    return {**os.environ, "PYTHONPATH": str(SOURCE), **one, **extra}


def run(*args, cwd=None, **extra) -> subprocess.CompletedProcess:
    """`minilm args...` in a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, args)], cwd=cwd, env=environment(**extra), capture_output=True, timeout=60
    )


def test_the_command_is_named_as_a_shell_here_finds_it(tmp_path, monkeypatch):
    """After `make demo` minilm lies in .venv/bin, and the shell knows nothing of it."""
    script = tmp_path / ".venv" / "bin" / "minilm"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [".venv/bin/minilm", "demo"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli._program() == ".venv/bin/minilm"
    monkeypatch.setenv("PATH", str(script.parent))
    assert cli._program() == "minilm"
    monkeypatch.setattr(sys, "argv", ["minilm"])
    assert cli._program() == "minilm"


@pytest.mark.parametrize(
    ("module", "code"), [("numpy", -signal.SIGINT), ("typer", -signal.SIGINT), ("minilm.train.run", 130)]
)
def test_an_interrupt_while_modules_are_loaded_is_no_traceback(tmp_path, module, code):
    """Ctrl-C at the moment when `module` is first looked for; a shell says 130 of both codes."""
    program = f"""
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *rest):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
import minilm_command
minilm_command.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "demo"], cwd=tmp_path, env=environment(), capture_output=True, timeout=60
    )
    assert done.stderr == b""
    assert done.returncode == code


def is_one_line(err: str, *parts: str) -> None:
    assert err.startswith("minilm: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert len(err) < 600
    assert "Traceback" not in err
    for part in parts:
        assert part in err


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """`minilm demo --steps 3`: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("somewhere with a blank")
    done = run("demo", "--steps", 3, "--out", "my runs/demo", cwd=folder)
    assert done.stderr == b""
    assert done.returncode == 0
    return folder, done.stdout.decode()


@pytest.fixture
def tiny(tmp_path, call):
    """A run of three steps in tmp_path/run."""
    (tmp_path / "cat.txt").write_text(TEXT)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    assert call("train", "cat.txt", "--config", "tiny.json", "--out", "run")[::2] == (0, "")
    return tmp_path / "run"


# --- demo ------------------------------------------------------------------------------------------


def test_the_demo_leaves_everything_that_it_speaks_of(demo):
    folder, out = demo
    files = folder / "my runs" / "demo"
    assert {p.name for p in files.iterdir()} == {
        "checkpoints", "config.json", "tokenizer.json", "tokens.bin", "log.jsonl", "timing.jsonl", "costs.json",
        "loss.png", "lock",
    }  # fmt: skip
    assert json.loads((files / "config.json").read_text())["steps"] == 3
    assert [json.loads(line)["step"] for line in (files / "log.jsonl").read_text().splitlines()] == [1, 2, 3]
    from matplotlib import pyplot

    assert pyplot.imread(files / "loss.png").shape == (540, 960, 4)
    for named in ("checkpoints/step-00000003.safetensors", "loss.png"):
        assert f"my runs/demo/{named}" in out


def test_the_demo_shows_plain_lines_where_there_is_no_terminal(demo):
    out = demo[1]
    assert "\x1b" not in out
    assert "\r" not in out
    losses = r"loss \d\.\d{3}  validation \d\.\d{3}  learning rate \d\.\d+  gradient norm \d\.\d+"
    speed = r"[\d,]+ tokens/s +\d+% of peak  memory \d+ MiB  \d:\d\d left"
    assert re.search(rf"step 3/3  {losses} +{speed}", out)
    assert out.count("── after ") == 3
    assert "done: 3 steps in" in out


def test_the_commands_that_the_demo_prints_work(demo):
    folder, out = demo
    write, go_on = re.findall(r"(?:let it write|go on) +(minilm .*)", out)
    assert "--resume" in go_on
    (folder / "minilm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m minilm.cli "$@"\n')
    (folder / "minilm").chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        write + " --tokens 20", shell=True, cwd=folder, env=environment(PATH=path), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith("To be")
    assert len(done.stdout.decode()) == len("To be") + 20 + 1
    done = subprocess.run(go_on, shell=True, cwd=folder, env=environment(PATH=path), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"step 6/6" in done.stdout


def test_a_demo_beside_a_demo_gets_a_folder_of_its_own(tmp_path):
    folder = tmp_path / "demo"
    for expected in ("demo", "demo-2", "demo-3"):
        assert cli._unused(folder).name == expected
        (tmp_path / expected).mkdir()
        (tmp_path / expected / "config.json").write_text("{}")


# --- train -----------------------------------------------------------------------------------------


def test_train_takes_a_text_a_file_and_settings_and_goes_on(tiny, call):
    code, out, err = call("train", "--resume", "run", "--set", "steps=5", "--set", "eval_every=2")
    assert (code, err) == (0, "")
    assert "step 4/5" in out
    assert "step 5/5" in out
    code, _, err = call("train", "cat.txt", "--config", "tiny.json", "--set", "steps=1", "--set", "model.n_layer=2")
    assert (code, err) == (0, "")
    config = json.loads((tiny.parent / "runs" / "cat" / "config.json").read_text())
    assert (config["steps"], config["model"]["n_layer"], config["batch_size"]) == (1, 2, 2)


def test_the_printed_prompt_is_one_that_the_model_knows(tmp_path, call):
    (tmp_path / "漢 $x$.txt").write_text("漢字仮名交じり文\n" * 50, encoding="utf-8")
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    code, out, err = call("train", "漢 $x$.txt", "--config", "tiny.json")
    assert (code, err) == (0, "")
    assert "minilm generate 'runs/漢 $x$' --prompt '漢字仮名交じり文'\n" in out
    assert (tmp_path / "runs" / "漢 $x$" / "loss.png").is_file()


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["train"], ["a text to learn from is missing"]),
        (["train", "missing.txt"], ["missing.txt", "there is no such file"]),
        (["train", "."], ["this is a folder"]),
        (["train", "empty.txt"], ["empty.txt", "the file is empty"]),
        (["train", "short.txt"], ["short.txt", "is too short: 3 tokens", "a context of 64 needs at least 65"]),
        (["train", "latin1.txt"], ["latin1.txt", "byte 0xe9 at offset 3, line 1, is not valid UTF-8"]),
        (["train", "cat.txt", "--out", "cat.txt"], ["cat.txt", "is a file, and a run needs a folder"]),
        (["train", "cat.txt", "--out", "cat.txt/run"], ["cat.txt/run", "Not a directory"]),
        (["train", "cat.txt", "--out", "/proc/run"], ["/proc/run", "No such file"]),
        (["train", "cat.txt", "--out", "run"], ["run", "holds a run already", "--resume"]),
        (["train", "cat.txt", "--set", "model.n_head=3"], ["n_embd must be a multiple of n_head (3), not 128"]),
        (["train", "cat.txt", "--set", "stepz=3"], ["unknown key 'stepz' (did you mean 'steps'?)"]),
        (["train", "cat.txt", "--set", "steps=0"], ["steps must be at least 1, not 0"]),
        (["train", "cat.txt", "--set", "steps=Infinity"], ["steps must be a whole number, not inf"]),
        (["train", "cat.txt", "--set", "steps"], ["a setting reads key=value"]),
        (["train", "cat.txt", "--set", "model.n_embd=4000000000000"], ["not enough memory", "4000000000000"]),
        (["train", "cat.txt", "--set", "model.n_embd=4" + "0" * 18], ["the model cannot be built"]),
        (["train", "cat.txt", "--set", "model.n_embd=4" + "0" * 30], ["the model cannot be built"]),
        (["train", "cat.txt", "--set", "batch_size=1000000000000000"], ["batch_size must be below 2**31"]),
        (["train", "cat.txt", "--config", "missing.json"], ["missing.json", "cannot be read"]),
        (["train", "cat.txt", "--config", "cat.txt"], ["cat.txt", "is not JSON"]),
        (["train", "cat.txt", "--config", "tiny.json", "--set", "learning_rate=1e30", "--set", "warmup_steps=0"],
         ["the run diverged", "learning_rate (now 1e+30)"]),
        (["train", "--resume", "missing"], ["missing", "there is no such folder"]),
        (["train", "--resume", "run"], ["the run is at step 3 of 3", "--set steps=6"]),
        (["train", "--resume", "run", "--set", "seed=5"], ["seed cannot change when a run goes on"]),
        (["train", "cat.txt", "--resume", "run"], ["--resume takes everything from the run itself"]),
        (["generate", "missing"], ["missing", "there is no such folder"]),
        (["generate", "."], ["holds no checkpoints"]),
        (["generate", "run", "--prompt", ""], ["the prompt is empty"]),
        (["generate", "run", "--prompt", "the Cat"], ["'C' (U+0043) at position 4 is not in the vocabulary"]),
        (["generate", "run", "--tokens", "-1"], ["tokens must be at least 0, not -1"]),
        (["generate", "run", "--tokens", "many"], ["--tokens", "integer"]),
        (["generate", "run", "--samples", "0"], ["samples must be at least 1, not 0"]),
        (["generate", "run", "--seed", "-1"], ["seed must be from 0 to 2**64 - 1, not -1"]),
        (["generate", "run", "--seed", str(2**64)], ["seed must be from 0 to 2**64 - 1"]),
        (["generate", "run", "--temperature", "-1"], ["temperature must be at least 0, not -1.0"]),
        (["generate", "run", "--top-k", "0"], ["top_k must be a whole number of at least 1, not 0"]),
        (["generate", "run", "--top-p", "2"], ["top_p must be above 0 and at most 1, not 2.0"]),
        (["generate", "run", "--repetition-penalty", "0"], ["repetition_penalty must be above 0"]),
        (["generate"], ["Missing"]),
        (["demo", "--steps", "0"], ["steps must be at least 1, not 0"]),
        (["demo", "--seed", "-5"], ["seed must be from 0"]),
        (["demo", "--out", "cat.txt"], ["cat.txt", "is a file"]),
        (["demo", "--nonsense"], ["--nonsense"]),
        (["nonsense"], ["nonsense"]),
    ],
    ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else None,
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_everything_as_it_was(mistakes, monkeypatch, capfd, request, args, parts):
    before = {p: p.read_bytes() for p in mistakes.rglob("*") if p.is_file()}
    request.addfinalizer(lambda: shutil.rmtree(mistakes / "runs", ignore_errors=True))
    monkeypatch.chdir(mistakes)
    monkeypatch.setattr(sys, "argv", ["minilm", *args])
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        cli.main()
    is_one_line(capfd.readouterr().err, *parts)
    assert caught.value.code == 2
    after = {p: p.read_bytes() for p in mistakes.rglob("*") if p.is_file() and "runs" not in p.parts}
    assert after == before


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory):
    """A folder with texts of all kinds, and a run that is done."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "cat.txt").write_text(TEXT)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "short.txt").write_text("abc")
    (folder / "latin1.txt").write_bytes(b"caf\xe9 au lait" * 50)
    done = run("train", "cat.txt", "--config", "tiny.json", "--out", "run", cwd=folder)
    assert done.returncode == 0
    return folder


def test_a_truncated_checkpoint_is_one_line(tiny, call):
    for path in (tiny / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    for args in (["generate", "run"], ["train", "--resume", "run", "--set", "steps=9"]):
        code, _, err = call(*args)
        is_one_line(err, "run/checkpoints/step-00000003.safetensors", "perhaps it was cut short")
        assert code == 2


def test_a_damaged_checkpoint_with_one_before_it_is_a_warning(tiny):
    path = tiny / "checkpoints" / "step-00000003.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    done = run("generate", "run", "--tokens", "5", cwd=tiny.parent)
    is_one_line(
        done.stderr.decode(), "warning: run/checkpoints/step-00000003.safetensors", "in its place serves step-00000000"
    )
    assert (done.returncode, len(done.stdout) > 5) == (0, True)


def test_runs_replay_and_plot(tiny, call):
    code, out, _ = call("runs", ".")
    assert code == 0
    assert re.search(r"run\s+finished\s+3/3 ", out)
    code, out, _ = call("replay", "run", "--step", "2")
    assert code == 0
    assert out.startswith("step 2, from the checkpoint of step 0\n  loss ")
    assert out.count("\nexample ") == 2
    assert call("plot", "run", "--out", "x.svg")[:2] == (0, "x.svg\n")
    assert (tiny.parent / "x.svg").read_text().startswith("<?xml")
    for args, words in (
        (["replay", "run", "--step", "4"], "the run has done steps 1 to 3"),
        (["plot", "run", "--out", "x.txt"], "ends in .png or .svg"),
        (["plot", "run", "--x", "hour"], "the axis is one of step, tokens, seconds"),
        (["plot", "nowhere"], "nowhere: holds no log.jsonl"),
        (["runs", "nowhere"], "there is no such folder"),
        (["train", "--resume", "run", "--allow", "all"], "--allow takes data or version"),
    ):
        code, _, err = call(*args)
        is_one_line(err, words)
        assert code == 2


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(tiny, call, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    newest = tiny / "checkpoints" / "step-00000003.safetensors"
    before = newest.read_bytes()
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        code, _, err = call("train", "--resume", "run", "--set", "steps=5")
        is_one_line(err, "No space left on device", "run")
        assert code == 2
    assert newest.read_bytes() == before
    assert call("train", "--resume", "run", "--set", "steps=5")[0] == 0


# --- generate --------------------------------------------------------------------------------------


def test_generate_writes_the_prompt_and_the_same_text_for_the_same_seed(tiny, call):
    code, out, err = call("generate", "run", "--prompt", "the", "--tokens", "5", "--seed", "3")
    assert (code, err) == (0, "")
    assert out.startswith("the")
    assert len(out) == 3 + 5 + 1
    assert call("generate", "run", "--prompt", "the", "--tokens", "5", "--seed", "3")[1] == out
    both = call("generate", "run", "--prompt", "the", "--tokens", "5", "--seed", "2", "--samples", "2")[1]
    assert both.endswith(out)
    assert both != out + out


def test_generation_past_the_context_is_said_in_one_line_and_done(tiny, call):
    code, out, err = call("generate", "run", "--prompt", "the", "--tokens", "50")
    assert code == 0
    assert err == "note: the model sees 8 tokens at a time; 3 + 50 are more, so it forgets the oldest\n"
    assert len(out) == 3 + 50 + 1


def test_generate_stops_before_a_text(tiny, call):
    whole = call("generate", "run", "--prompt", "the", "--tokens", "40", "--seed", "1")[1]
    stop = whole[10:12]
    out = call("generate", "run", "--prompt", "the", "--tokens", "40", "--seed", "1", "--stop", stop)[1]
    assert out == whole[: whole.index(stop, 3)] + "\n"


# --- the process around it -------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error(mistakes):
    writer = subprocess.Popen(
        [*COMMAND, "generate", "run", "--tokens", "100000"],
        cwd=mistakes,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert len(writer.stdout.read(10)) == 10
    writer.stdout.close()
    err = writer.stderr.read()
    writer.stderr.close()
    assert writer.wait(timeout=30) in (0, 1)
    assert err.startswith(b"note: ")
    assert err.count(b"\n") == 1


def test_ctrl_c_ends_with_130_a_checkpoint_and_the_way_to_go_on(mistakes):
    process = subprocess.Popen(
        [
            *COMMAND,
            *["train", "cat.txt", "--config", "tiny.json", "--out", "runs/stopped", "--set", "steps=1000000"],
            *["--set", "eval_every=1", "--set", "sample_every=0"],
        ],
        cwd=mistakes,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("step"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == ""
    step = re.search(r"stopped at step (\d+) of 1000000", out)[1]
    assert "go on         minilm train --resume runs/stopped\n" in out
    log = (mistakes / "runs" / "stopped" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == int(step)
    assert run("generate", "runs/stopped", "--tokens", 1, cwd=mistakes).returncode == 0


@pytest.mark.parametrize("extra", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}, {"PYTHONIOENCODING": "latin-1"}])
def test_a_terminal_without_these_characters_is_no_error(tmp_path, extra):
    (tmp_path / "x.txt").write_text("漢字é仮名\n" * 60, encoding="utf-8")
    (tmp_path / "tiny.json").write_text(json.dumps({**TINY, "sample_every": 1}))
    done = run("train", "x.txt", "--config", "tiny.json", cwd=tmp_path, **extra)
    assert (done.returncode, done.stderr) == (0, b"")
    done = run("generate", "runs/x", "--prompt", "漢", "--tokens", 3, "--samples", 2, cwd=tmp_path, **extra)
    assert (done.returncode, done.stderr) == (0, b"")
    done = run("generate", "runs/x", "--prompt", "鬱", cwd=tmp_path, **extra)
    assert done.returncode == 2
    is_one_line(done.stderr.decode("latin-1"), "U+9B31")


def test_info_names_versions_and_backends(call):
    code, out, err = call("info")
    assert (code, err) == (0, "")
    for word in ("minilm:", "Python:", "NumPy:", "CPU features:", "threads:", "softmax", "reference"):
        assert word in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["demo", "train", "generate", "bench", "info"]),
        (["--help"], ["demo", "train", "generate", "bench", "info"]),
        (["bench", "--help"], ["--against", "--only", "--rounds", "--threads", "--json", "--picture", "--brief"]),
        (["demo", "--help"], ["--steps", "--out", "--seed"]),
        (["train", "--help"], ["--set", "--resume", "--config", "--out", "model.n_layer=6"]),
        (["generate", "--help"], ["--prompt", "--temperature", "--top-k", "--top-p", "--stop", "--samples"]),
    ],
    ids=str,
)
def test_help_names_every_option(call, args, words):
    code, out, err = call(*args)
    assert (code, err) == (0, "")
    for word in words:
        assert word in out
