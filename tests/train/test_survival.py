"""Runs survive damage, changed data, two processes, signals and power cuts; and any step comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import minilm as ml
from minilm import kernels
from minilm.errors import CheckpointError, ConfigError, LockedError
from minilm.files import locked
from minilm.train import LogFile, Observer, load_run
from minilm.train.checkpoint import CheckpointWarning, checkpoints, read_checkpoint
from minilm.train.replay import replay
from minilm.train.run import continued_run


def weights(trainer):
    return {name: tensor.array.tobytes() for name, tensor in trainer.model.state_dict().items()}


def names(folder):
    return [path.name for path in checkpoints(folder)]


# --- which checkpoints are there -----------------------------------------------------------------------


def test_the_newest_the_first_and_the_best_are_kept(begin):
    trainer = begin(checkpoint_every=2, eval_every=2, keep_checkpoints=3)
    losses = {2: 3.0, 4: 1.0, 6: 2.0}
    trainer.evaluate = lambda: losses.get(trainer.progress.step, 2.5)
    trainer.train()
    assert names(trainer.folder) == [f"step-{step:08d}.safetensors" for step in (24, 22, 20, 4, 0)]
    assert trainer.progress.best_checkpoint == 4


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-1], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-9] + b"\x00" * 9],
    ids=range(4),
)
def test_the_checkpoint_before_a_damaged_one_serves_and_says_so(begin, stop_after, damage):
    whole, part = begin("whole"), begin("part")
    whole.train()
    stop_after(part, 16)
    part.train()
    newest = checkpoints(part.folder)[0]
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(CheckpointWarning, match=r"step-00000016.safetensors: .*; in its place serves step-00000014"):
        resumed, _ = continued_run(part.folder, {})
    assert resumed.progress.step == 14
    resumed.train()
    assert weights(resumed) == weights(whole)


def test_every_flipped_bit_is_seen(begin):
    trainer = begin(steps=1)
    trainer.train()
    path = checkpoints(trainer.folder)[0]
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for position in (*range(0, 200, 7), *rng.integers(0, len(content), 200).tolist()):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(damaged))
        with pytest.raises(CheckpointError):
            read_checkpoint(path)
    path.write_bytes(content)
    read_checkpoint(path)


# --- in the middle of a batch -----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"model.dropout": 0.3, "ema_decay": 0.9}], ids=["plain", "dropout, average"])
@pytest.mark.parametrize("stop", [1, 2, 13, 14, 15])
def test_a_stop_between_micro_batches_and_a_resume_change_no_bit(begin, stop_after, stop, settings):
    settings = {"micro_batch_size": 1, "steps": 9, **settings}  # three micro-batches a step
    whole = begin("whole", **settings)
    whole.train()
    part = begin("part", **settings)
    stop_after(part, stop)
    part.train()
    assert (part.progress.step, part.progress.examples) == divmod(stop, 3)
    resumed, _ = continued_run(part.folder, {})
    resumed.observers = [LogFile(part.folder)]
    assert (resumed.progress.step, resumed.progress.examples) == divmod(stop, 3)
    resumed.train()
    assert weights(resumed) == weights(whole)
    assert (part.folder / "log.jsonl").read_bytes() == (whole.folder / "log.jsonl").read_bytes()


@pytest.fixture
def threads(native):
    """threads(2): so many serve from now on, to the test's end."""
    before = ml.get_num_threads()
    with kernels.use("native"):
        yield ml.set_num_threads
    ml.set_num_threads(before)


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_threads_to_the_same_bits(begin, stop_after, threads, first, then):
    """Stopped in the middle of a batch; the arrays are large enough to be shared out."""
    wide = {"model.n_embd": 96, "model.block_size": 32, "batch_size": 12, "micro_batch_size": 5, "steps": 4}
    settings = {**wide, "model.dropout": 0.2, "ema_decay": 0.9, "precision": "bf16" if first == 2 else "float32"}
    threads(first)
    whole, part = begin("whole", **settings), begin("part", **settings)
    whole.train()
    stop_after(part, 5)  # of three micro-batches a step
    part.train()
    assert (part.progress.step, part.progress.examples) == (1, 10)
    threads(then)
    assert ml.get_num_threads() == then
    resumed, _ = continued_run(part.folder, {})
    resumed.observers = [LogFile(part.folder)]
    resumed.train()
    assert weights(resumed) == weights(whole)
    assert (part.folder / "log.jsonl").read_bytes() == (whole.folder / "log.jsonl").read_bytes()


# --- what must not change --------------------------------------------------------------------------------


def test_changed_data_are_refused_unless_allowed(begin):
    trainer = begin(steps=2)
    path = trainer.folder / "tokens.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"tokens.bin: is not what the run learnt from .* --allow data"):
        continued_run(trainer.folder, {})
    continued_run(trainer.folder, {}, allow=["data"])


def test_another_version_of_minilm_is_refused_unless_allowed(begin, monkeypatch):
    trainer = begin(steps=2)
    monkeypatch.setattr("minilm.train.run.__version__", "9.9")
    with pytest.raises(CheckpointError, match=r"was written by minilm 0.1.0, and this is 9.9.* --allow version"):
        continued_run(trainer.folder, {})
    continued_run(trainer.folder, {}, allow=["version"])


HOLD = """
import sys, time
from minilm.files import locked
with locked(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


def test_two_processes_cannot_train_one_run(begin):
    trainer = begin(steps=2)
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(trainer.folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(LockedError, match=rf"run: is in use by another process \(process {other.pid}\)"):
            trainer.train()
        with pytest.raises(LockedError):
            continued_run(trainer.folder, {})
    finally:
        other.kill()
        other.communicate()
    assert trainer.train().step == 2
    with locked(trainer.folder), pytest.raises(LockedError):
        trainer.train()


# --- replay -------------------------------------------------------------------------------------------------


def test_any_step_comes_back_to_the_bit(begin):
    trainer = begin(**{"model.dropout": 0.3}, keep_checkpoints=1, ema_decay=0.5, micro_batch_size=2)
    seen = {}

    class Remember(Observer):
        def stepped(self, trainer):
            batch = trainer.data.batch(trainer.progress.step - 1)
            seen[trainer.progress.step] = weights(trainer), batch, trainer.progress.gradient_norm

    trainer.observers.append(Remember())
    trainer.train()
    held = {path: path.read_bytes() for path in trainer.folder.rglob("*") if path.is_file()}
    for step in (1, 7, 8, 23, 24):
        found = replay(trainer.folder, step)
        expected, batch, norm = seen[step]
        assert weights(found.trainer) == expected
        assert found.trainer.progress.gradient_norm == norm
        assert all(np.array_equal(a, b) for a, b in zip(found.batch, batch))
        assert len(found.losses) == 3
    assert found.started_from == 0  # the first, since the newest comes after
    assert {path: path.read_bytes() for path in trainer.folder.rglob("*") if path.is_file()} == held
    for step in (0, 25, -1):
        with pytest.raises(ConfigError, match=rf"step {step} cannot be replayed: the run has done steps 1 to 24"):
            replay(trainer.folder, step)


def test_a_replay_knows_what_changed_when_a_run_went_on(begin):
    trainer = begin(steps=10)
    trainer.train()
    resumed, _ = continued_run(trainer.folder, {"steps": 20, "micro_batch_size": 1})
    resumed.train()
    assert weights(replay(trainer.folder, 20).trainer) == weights(resumed)


# --- signals and kills --------------------------------------------------------------------------------------

RUN = """
import json, sys
from pathlib import Path
from minilm.train import LogFile, Observer, TrainConfig
from minilm.train.checkpoint import checkpoints
from minilm.train.run import continued_run, new_run

class Say(Observer):
    def started(self, trainer):
        print("started", flush=True)

text, folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
if checkpoints(folder):
    trainer, _ = continued_run(folder, {})
else:
    trainer, _ = new_run(text, folder, TrainConfig.build(None, settings))
trainer.observers = [LogFile(folder), Say()]
trainer.train()
print("ended", trainer.interrupted, trainer.progress.step, flush=True)
"""


def start(text, folder, settings):
    arguments = [sys.executable, "-W", "error", "-c", RUN, str(text), str(folder), json.dumps(settings)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("first", ["before", "while"])
def test_a_second_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(begin, monkeypatch, first):
    """The first asked to end before, or comes when a checkpoint is being written anyway."""
    monkeypatch.setattr("minilm.serialization.PIECE_BYTES", 64)
    whole, part = begin("whole"), begin("part")
    whole.train()

    class Interrupt(Observer):
        def stepped(self, trainer):
            if first == "before" and trainer.progress.step == 13:
                os.kill(os.getpid(), signal.SIGINT)

        def saving(self, trainer, share):
            if trainer.progress.step > 7 and share > 0.75:
                if not trainer.interrupted:
                    os.kill(os.getpid(), signal.SIGINT)
                elif first == "before" or share > 0.8:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(10)  # the interrupt comes at once
                    raise AssertionError

    part.observers.append(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        part.train()
    assert names(part.folder)[0] == "step-00000007.safetensors"
    assert not list((part.folder / "checkpoints").glob(".*"))
    resumed, _ = continued_run(part.folder, {})
    resumed.train()
    assert weights(resumed) == weights(whole)


@pytest.fixture
def endless(small):
    """The settings of a run that does not end by itself."""
    settings = small(steps=1_000_000).to_dict()
    settings["model"].pop("vocab_size")
    return settings


def test_sigterm_leaves_a_checkpoint_and_a_clean_exit(text, tmp_path, endless):
    process = start(text, tmp_path / "run", endless)
    assert process.stdout.readline() == "started\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    said, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert said.startswith("ended True ")
    assert (process.returncode, errors) == (0, "")
    assert continued_run(tmp_path / "run", {})[0].progress.step == int(said.split()[2])


KILLS = 200 if os.environ.get("MINILM_DEEP") else 20


def test_killed_at_any_moment_a_run_goes_on_to_the_same_end(text, tmp_path, small):
    """SIGKILL again and again: never a run that cannot be read, never another one than without."""
    settings = small(steps=40 * KILLS, checkpoint_every=3, log_every=1, micro_batch_size=2).to_dict()
    settings["model"].pop("vocab_size")
    folder, rng = tmp_path / "run", np.random.default_rng()
    kills = 0
    while True:
        process = start(text, folder, settings)
        said = process.stdout.readline()
        if kills < KILLS:
            assert said == "started\n", process.communicate()
            time.sleep(rng.uniform(0, 0.15))
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
            kills += 1
            load_run(folder)  # without a warning: nothing is ever damaged
            continue
        said, errors = process.communicate(timeout=300)
        assert said == f"ended False {settings['steps']}\n", errors
        break
    undisturbed = start(text, tmp_path / "other", settings)
    undisturbed.communicate(timeout=300)
    for name in ("log.jsonl", f"checkpoints/step-{settings['steps']:08d}.safetensors"):
        ours, theirs = ((place / name) for place in (folder, tmp_path / "other"))
        if name.endswith("jsonl"):
            assert ours.read_bytes() == theirs.read_bytes()
        else:
            ours, theirs = read_checkpoint(ours)[0], read_checkpoint(theirs)[0]
            assert {n: t.array.tobytes() for n, t in ours.items()} == {n: t.array.tobytes() for n, t in theirs.items()}
