"""The training loop: that it goes on exactly where it stopped, whatever stopped it, and that it learns."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from minilm.train import LogFile, Observer, load_run
from minilm.train.checkpoint import checkpoints, save_checkpoint
from minilm.train.run import continued_run
from minilm.train.trainer import DivergedError

TIMES = ("seconds", "tokens_per_second")


class StopAt(Observer):
    """Stops a run as the first Ctrl-C does, or as an error does."""

    def __init__(self, step, error=None):
        self.step, self.error = step, error

    def stepped(self, trainer):
        if trainer.progress.step == self.step:
            if self.error is not None:
                raise self.error
            trainer.interrupted = True


class Events(Observer):
    def __init__(self, name, into):
        self.name, self.into = name, into

    def __getattribute__(self, attribute):
        if attribute in ("started", "stepped", "saved", "ended"):
            return lambda trainer: self.into.append((self.name, attribute, trainer.progress.step))
        return super().__getattribute__(attribute)


def state(trainer) -> dict[str, bytes]:
    """Weights and the optimiser's memory, to the bit."""
    found = {name: tensor.array.tobytes() for name, tensor in trainer.model.state_dict().items()}
    for number, memory in trainer.optimizer.state_dict()["state"].items():
        for name, value in memory.items():
            found[f"{number}.{name}"] = value.array.tobytes() if hasattr(value, "array") else repr(value)
    return found


def log(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def go_on(folder, **settings):
    trainer, _ = continued_run(folder, settings)
    trainer.observers = [LogFile(folder)]
    return trainer


# --- stopped and resumed ---------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("stop", [5, 12, 13])
def test_a_stop_and_a_resume_change_no_bit(begin, stop, dropout):
    whole = begin("whole", **{"model.dropout": dropout})
    whole.train()
    part = begin("part", **{"model.dropout": dropout})
    part.observers.append(StopAt(stop))
    assert part.train().step == stop
    resumed = go_on(part.folder)
    assert resumed.progress.step == stop
    assert state(resumed) == state(part)
    assert resumed.train().step == 24
    assert state(resumed) == state(whole)
    assert log(part.folder) == log(whole.folder)
    assert resumed.progress.validation_loss == whole.progress.validation_loss
    assert resumed.progress.seconds > part.progress.seconds  # the time of all sessions


def test_after_an_error_the_steps_since_the_checkpoint_are_done_again(begin):
    whole, part = begin("whole"), begin("part")
    whole.train()
    part.observers.append(StopAt(13, OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        part.train()
    assert log(part.folder)[-1]["step"] == 12
    with (part.folder / "log.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')  # as a power cut leaves it
    resumed = go_on(part.folder)
    assert resumed.progress.step == 7
    resumed.train()
    assert log(part.folder) == log(whole.folder)
    assert state(resumed) == state(whole)


def test_a_finished_run_goes_on_with_more_steps(begin):
    trainer = begin()
    trainer.train()
    resumed = go_on(trainer.folder, steps=30)
    assert resumed.train().step == 30
    steps = [line["step"] for line in log(trainer.folder)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30


def test_the_same_seed_gives_the_same_run_and_another_seed_another(begin):
    first, second, other = begin("a"), begin("b"), begin("c", seed=1338)
    for trainer in (first, second, other):
        trainer.train()
    assert state(first) == state(second)
    assert log(first.folder) == log(second.folder)
    assert state(first) != state(other)


RUN = """
import sys
from pathlib import Path
from minilm.train import LogFile, Observer, TrainConfig
from minilm.train.run import new_run

class Say(Observer):
    def started(self, trainer):
        print("started", flush=True)

text, folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
trainer, _ = new_run(text, folder, TrainConfig.build(None, settings))
trainer.observers = [LogFile(folder), Say()]
trainer.train()
print("ended", trainer.interrupted, trainer.progress.step, flush=True)
"""


@pytest.mark.parametrize("twice", [False, True])
def test_ctrl_c_at_any_time_leaves_a_checkpoint_to_go_on_from(text, tmp_path, small, twice):
    config = small(steps=100_000, checkpoint_every=2).to_dict()
    config["model"]["vocab_size"] = 1
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(text), str(folder), repr(config)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "started\n"
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGINT)
        if twice:
            time.sleep(random.uniform(0, 0.002))
            process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=30)[0]
    finally:
        process.kill()
    if not twice:
        assert rest.startswith("ended True ")
        assert process.returncode == 0
    assert not list(folder.glob(".*")), "a temporary file was left"
    load_run(folder)
    trainer = go_on(folder, steps=100_001)
    if not twice:
        assert trainer.progress.step == int(rest.split()[2])
    trainer.observers.append(StopAt(trainer.progress.step + 3))
    trainer.train()
    steps = [line["step"] for line in log(folder)]
    assert steps == sorted(set(steps))


def test_the_first_ctrl_c_ends_the_step_and_the_second_raises(begin):
    before = signal.getsignal(signal.SIGINT)
    trainer = begin()

    class Interrupt(Observer):
        times = 1

        def stepped(self, trainer):
            if trainer.progress.step == 4:
                for _ in range(self.times):
                    os.kill(os.getpid(), signal.SIGINT)

    trainer.observers.append(Interrupt())
    assert trainer.train().step == 4
    assert trainer.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    resumed = go_on(trainer.folder)
    assert resumed.progress.step == 4
    assert not resumed.interrupted
    other = begin("other")
    other.observers.append(Interrupt())
    Interrupt.times = 2
    with pytest.raises(KeyboardInterrupt):
        other.train()
    assert signal.getsignal(signal.SIGINT) is before
    assert go_on(other.folder).progress.step == 0  # the one checkpoint there was


def test_the_same_trainer_can_go_on_after_an_interrupt(begin):
    whole, trainer = begin("whole"), begin("part")
    whole.train()
    trainer.observers.append(StopAt(12))
    trainer.train()
    assert trainer.train().step == 24
    assert state(trainer) == state(whole)


def test_it_trains_in_a_thread_too_where_no_signal_comes(begin):
    trainer = begin(steps=3)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.progress.step == 3


# --- divergence ------------------------------------------------------------------------------------


def diverges(trainer, message):
    with pytest.raises(DivergedError, match=message):
        trainer.train()
    load_run(trainer.folder)  # refuses NaN and infinity
    return go_on(trainer.folder).progress.step


def test_a_learning_rate_far_too_high_is_one_clear_error(begin):
    trainer = begin(learning_rate=1e30, warmup_steps=0, grad_clip=0)
    assert diverges(trainer, r"is (nan|inf) at step \d+: the run diverged. A smaller learning_rate \(now 1e\+30\)") == 0


def test_a_loss_that_is_no_number_ends_the_run_at_the_last_good_checkpoint(begin):
    trainer = begin()
    original = trainer.model.loss
    trainer.model.loss = lambda *args: original(*args) * (math.nan if trainer.progress.step == 9 else 1)
    assert diverges(trainer, "the loss is nan at step 10") == 7


def test_a_gradient_that_is_no_number_never_reaches_the_weights(begin):
    trainer = begin()
    bias = trainer.model.transformer["wpe"].weight
    bias.register_hook(lambda g: g * (math.inf if trainer.progress.step == 9 else 1))
    before = state(trainer)
    assert diverges(trainer, "the gradient's norm is (nan|inf) at step 10") == 7
    assert state(trainer) != before
    assert all(np.isfinite(p.array).all() for p in trainer.model.parameters())


def test_a_validation_loss_that_is_no_number_leaves_the_last_checkpoint(begin):
    trainer = begin(eval_every=7)
    original = trainer.evaluate
    trainer.evaluate = lambda: math.nan if trainer.progress.step == 14 else original()
    assert diverges(trainer, "the validation loss is nan at step 14") == 7


def test_weights_that_are_no_numbers_are_never_saved(begin):
    trainer = begin()
    trainer.train()
    path = checkpoints(trainer.folder)[0]
    content = path.read_bytes()
    trainer.model.transformer["wpe"].weight.array[0, 0] = np.inf
    with pytest.raises(DivergedError, match=r"transformer.wpe.weight holds NaN or infinity at step 24"):
        save_checkpoint(trainer, trainer.folder)
    assert path.read_bytes() == content


# --- around the steps ------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_is_the_same_at_every_call_and_changes_nothing(begin, training):
    trainer = begin(**{"model.dropout": 0.4})
    trainer.model.train(training)
    before, first = state(trainer), trainer.evaluate()
    assert trainer.evaluate() == first
    assert trainer.evaluate(batches=2, seed=0) == first
    assert trainer.evaluate(batches=3) != first
    assert trainer.evaluate(seed=1) != first
    assert all(m.training is training for m in trainer.model.modules())
    assert state(trainer) == before
    assert all(p.grad is None for p in trainer.model.parameters())


def test_evaluation_measures_the_validation_part(begin, text):
    text.write_text("abcdefgh" * 90 + "ijklmnop" * 10)
    trainer = begin(steps=100, learning_rate=1e-2, min_learning_rate=1e-2, eval_every=100, checkpoint_every=100)
    trainer.train()
    assert trainer.progress.loss < 0.5
    assert trainer.progress.validation_loss > 3  # it never saw these letters


def test_looking_more_often_does_not_change_the_run(begin):
    plain = begin("plain", **{"model.dropout": 0.3}, eval_every=1000, checkpoint_every=1000)
    looking = begin("looking", **{"model.dropout": 0.3}, eval_every=1, checkpoint_every=1)
    plain.train()
    looking.train()
    assert state(plain) == state(looking)


def test_observers_hear_of_everything_in_order(begin):
    trainer, heard = begin(steps=9, checkpoint_every=4), []
    trainer.observers = [Events("a", heard), Events("b", heard)]
    trainer.train()
    expected = [("started", 0), ("saved", 0)]
    for step in range(1, 10):
        expected += [("stepped", step)] + ([("saved", step)] if step in (4, 8, 9) else [])
    expected += [("ended", 9)]
    assert heard == [(name, *event) for event in expected for name in "ab"]


def test_the_log_holds_the_mean_loss_of_the_steps_between_and_their_rates(begin):
    trainer, losses, norms = begin(), [], []
    original = trainer.model.loss

    def loss(*args):
        value = original(*args)
        if trainer.model.training:
            losses.append(value.item())
        return value

    class Norms(Observer):
        def stepped(self, trainer):
            norms.append(trainer.progress.gradient_norm)

    trainer.model.loss = loss
    trainer.observers.append(Norms())
    trainer.train()
    lines = log(trainer.folder)
    assert [line["step"] for line in lines] == [3, 5, 6, 9, 10, 12, 15, 18, 20, 21, 24]
    assert [line["step"] for line in lines if "validation_loss" in line] == [5, 10, 15, 20, 24]
    schedule = trainer.config.schedule()
    for line in lines:
        step = line["step"]
        if step % 3 == 0:
            assert line["loss"] == pytest.approx(np.mean(losses[step - 3 : step]), abs=1e-6)
        assert line["learning_rate"] == pytest.approx(1e-3 * schedule(step - 1))
        assert line["gradient_norm"] == pytest.approx(norms[step - 1], abs=1e-6)
    assert lines[0]["learning_rate"] < lines[1]["learning_rate"] > lines[-1]["learning_rate"]


def test_only_matrices_decay(begin):
    trainer = begin(**{"model.bias": True})
    matrices, vectors = trainer.optimizer.param_groups
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert {p.ndim for p in matrices["params"]} == {2}
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(trainer.model.parameters()))


def test_gradients_are_clipped_to_the_limit_and_not_at_zero(begin):
    def after_one_step(name, clip):
        trainer, found = begin(name, steps=1, grad_clip=clip), []
        step = trainer.optimizer.step
        trainer.optimizer.step = lambda: (
            found.append([p.grad.array.copy() for p in trainer.model.parameters()]),
            step(),
        )
        trainer.train()
        return trainer.progress.gradient_norm, math.sqrt(sum((g.astype(float) ** 2).sum() for g in found[0]))

    norm, clipped = after_one_step("a", 0.01)
    assert norm > 0.05
    assert clipped == pytest.approx(0.01, rel=1e-4)
    assert after_one_step("b", 0) == pytest.approx((norm, norm), rel=1e-4)


def test_the_time_left_follows_from_the_speed_so_far(begin):
    trainer = begin()
    assert trainer.progress.seconds_left == math.inf
    trainer.progress.step, trainer.progress.seconds = 6, 3.0
    assert trainer.progress.seconds_left == pytest.approx(9.0)


def test_the_loss_falls_to_the_entropy_of_the_text(begin, text):
    # "ab" or "cd", as a coin falls: after b and d one of two, else certain, so ln 2 / 2 per character
    coins = np.random.default_rng(0).integers(0, 2, 4000)
    text.write_text("".join("ab" if c else "cd" for c in coins))
    entropy = math.log(2) / 2
    trainer = begin(
        steps=150,
        batch_size=16,
        learning_rate=1e-2,
        min_learning_rate=1e-4,
        eval_batches=20,
        eval_every=1000,
        checkpoint_every=1000,
    )
    assert trainer.evaluate() == pytest.approx(math.log(4), abs=0.1)
    trainer.train()
    assert trainer.progress.validation_loss == pytest.approx(entropy, abs=0.03)
