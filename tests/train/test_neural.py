"""Runs of the models before Transformers: streams, the carried state, and that a stop and a resume change no bit."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm import cli
from minilm.data import CausalBlocks
from minilm.errors import CheckpointError, ConfigError, DataError, ShapeError
from minilm.generation import generate_text
from minilm.models import RecurrentConfig, RecurrentLM
from minilm.train import Observer, load_run
from minilm.train.batches import Streams
from minilm.train.neural import CONFIGS
from minilm.train.replay import replay
from minilm.train.run import continued_run, new_run

SHARED = {
    "model.block_size": 8,
    "model.n_embd": 6,
    "model.n_hidden": 7,
    "batch_size": 3,
    "steps": 20,
    "warmup_steps": 4,
    "eval_every": 5,
    "eval_batches": 2,
    "log_every": 3,
    "checkpoint_every": 7,
    "sample_every": 0,
}
RECURRENT = ("rnn", "lstm", "gru")


@pytest.fixture
def start(text, tmp_path):
    """start("lstm", "name", steps=5): the trainer of a small new run."""

    def start(kind, name="run", **settings):
        return new_run(text, tmp_path / name, CONFIGS[kind].build(None, {**SHARED, **settings}))[0]

    return start


class StopWithin(Observer):
    """Asks to end after a step, so that the micro-batch after it is the last one."""

    def __init__(self, step):
        self.step = step

    def stepped(self, trainer):
        if trainer.progress.step == self.step:
            self.model, self.loss = trainer.model, trainer.model.loss
            trainer.model.loss = lambda *batch: self._last(trainer, batch)

    def _last(self, trainer, batch):
        trainer.interrupted = True
        trainer.model.loss = self.loss
        return self.loss(*batch)


def state(trainer):
    found = {name: tensor.array.tobytes() for name, tensor in trainer.model.state_dict().items()}
    if getattr(trainer.model, "carried", None) is not None:
        found["carried"] = trainer.model.carried.array.tobytes()
    return found


# --- streams --------------------------------------------------------------------------------------


def test_streams_read_every_token_in_order_and_begin_again():
    tokens = np.arange(100)
    data = Streams(CausalBlocks(tokens, 4, stride=1), CausalBlocks(tokens, 4, stride=1), 3)
    assert data.length == 33
    read = [data.batch(step) for step in range(8)]
    x = np.concatenate([batch[0] for batch in read], 1)
    for b in range(3):
        np.testing.assert_array_equal(x[b], np.arange(b * 33, b * 33 + 32))
    for step, (x, places, y) in enumerate(read):
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(places, [[0, 4 * step], [1, 4 * step], [2, 4 * step]])
    for part, again in zip(data.batch(8), data.batch(0)):
        np.testing.assert_array_equal(part, again)
    assert not data.validation(3)[1][:, 1].any()


def test_streams_need_a_block_each():
    blocks = CausalBlocks(np.arange(20), 4, stride=1)
    Streams(blocks, blocks, 4)
    for size in (5, 0):
        with pytest.raises(DataError, match="smaller batch_size"):
            Streams(blocks, blocks, size)


# --- the carried state ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_batch_begins_with_the_state_that_the_one_before_it_left(kind):
    ml.manual_seed(1)
    model = RecurrentLM(RecurrentConfig(kind, 11, 4, 2, 5, 6)).to("float64")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 11, (2, 3, 8))
    rows = np.arange(3)

    def part(first, end, start):
        places = np.stack([rows, np.full(3, start)], 1)
        return [ml.Tensor(a) for a in (x[:, first:end], places, y[:, first:end])]

    first = model.loss(*part(0, 4, 0))
    kept = model.carried.array.copy()
    model.eval()
    model.loss(*part(4, 8, 4))
    np.testing.assert_array_equal(model.carried.array, kept)  # looking at it changes nothing
    model.train()
    second = model.loss(*part(4, 8, 4))
    assert (model.carried.array != kept).all()
    whole = model.loss(ml.Tensor(x), ml.Tensor(y))
    assert (first + second).item() / 2 == pytest.approx(whole.item(), rel=1e-12)
    assert model.loss(*part(4, 8, 0)).item() != pytest.approx(second.item(), rel=1e-6)  # a stream that begins
    second.backward()
    assert model.rnn.weight_hh_l0.grad is not None


def test_a_state_that_is_no_number_begins_again():
    model = RecurrentLM(RecurrentConfig("lstm", 11, 4, 1, 5, 6))
    tokens, places = ml.Tensor(np.zeros((2, 4), np.int64)), ml.Tensor(np.array([[0, 0], [1, 0]]))
    model.wte.weight.array[0, 0] = np.inf
    with np.errstate(all="ignore"):
        model.loss(tokens, places, tokens)
    assert np.isfinite(model.carried.array).all()


def test_streams_that_were_never_begun_are_refused():
    model = RecurrentLM(RecurrentConfig("gru", 11, 4, 1, 5, 6))
    tokens = ml.Tensor(np.zeros((2, 4), np.int64))
    model.loss(tokens, ml.Tensor(np.array([[0, 0], [1, 0]])), tokens)
    with pytest.raises(ShapeError, match="stream 2 goes on"):
        model.loss(tokens, ml.Tensor(np.array([[1, 4], [2, 4]])), tokens)


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_stop_within_a_batch_and_a_resume_change_no_bit(start, kind):
    settings = {"micro_batch_size": 2, "model.dropout": 0.2}
    whole = start(kind, "whole", **settings)
    whole.train()
    assert whole.progress.step == 20
    part = start(kind, "part", **settings)
    part.observers.append(StopWithin(9))
    part.train()
    assert (part.progress.step, part.progress.examples) == (9, 2)
    resumed, _ = continued_run(part.folder, {})
    assert state(resumed) == state(part)
    resumed.train()
    assert state(resumed) == state(whole)
    assert resumed.progress.recent == whole.progress.recent
    assert resumed.progress.validation_loss == whole.progress.validation_loss


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_learns_is_replayed_and_writes(start, kind):
    larger = {"model.n_embd": 16, "model.n_hidden": 32, "batch_size": 8}
    trainer = start(kind, steps=60, learning_rate=3e-2, min_learning_rate=1e-2, **larger)
    losses = []
    step = trainer.step
    trainer.step = lambda batch: (step(batch), losses.append(trainer.progress.recent[-1]))[0]
    trainer.train()
    assert np.mean(losses[-10:]) < 0.75 * losses[0]
    assert replay(trainer.folder, 58).loss == losses[57]
    model, tokenizer = load_run(trainer.folder)
    written = ["".join(generate_text(model, tokenizer, "the ", 30, seed=3, use_cache=c)) for c in (True, False)]
    assert written[0] == written[1]
    assert len(written[0]) == 30  # more than a block


def test_a_state_that_is_not_carried_is_an_option(start):
    trainer = start("lstm", carry_state=False, steps=3)
    trainer.train()
    assert trainer.model.carried is None


def test_what_makes_no_sense_is_refused(start, text, tmp_path):
    with pytest.raises(ConfigError, match="kind must be 'gru'"):
        start("gru", **{"model.kind": "lstm"})
    with pytest.raises(ConfigError, match="recompute must be false"):
        start("lstm", recompute=True)
    with pytest.raises(ConfigError, match="n_hidden must be n_embd"):
        start("lstm", **{"model.tied": True})
    with pytest.raises(DataError, match=r"cat\.txt: is too short"):
        start("lstm", batch_size=400)
    trainer = start("lstm", steps=1)
    with pytest.raises(CheckpointError, match="is a run of the kind lstm; needed is one of gpt"):
        load_run(trainer.folder, ("gpt",))


def test_mixed_folders_have_no_order_to_carry_a_state_along(tmp_path, text):
    from minilm.data import tokenize_files
    from minilm.text import load_tokenizer

    tokenize_files([text], tmp_path / "a", kind="char", jobs=1)
    tokenize_files([text], tmp_path / "b", load_tokenizer(tmp_path / "a"), jobs=1)
    places = [(str(tmp_path / "a"), 1.0), (str(tmp_path / "b"), 1.0)]
    with pytest.raises(ConfigError, match="carry_state=false"):
        new_run(places, tmp_path / "run", CONFIGS["lstm"].build(None, SHARED))
    trainer, _ = new_run(places, tmp_path / "run", CONFIGS["lstm"].build(None, {**SHARED, "carry_state": False}))
    trainer.step(trainer.data.batch(0))


def test_the_command_trains_and_writes(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = [f"--set={name}={value}" for name, value in {**SHARED, "steps": 2}.items()]
    cli.app(["train", str(text), "--model", "gru", "--out", "run", *settings], standalone_mode=False)
    assert "a GRU learns from" in capsys.readouterr().out
    cli.app(["generate", "run", "--prompt", "the", "--tokens", "20", "--seed", "1"], standalone_mode=False)
    assert capsys.readouterr().out.startswith("the")
    with pytest.raises(cli.UsageError, match="one of gpt, ffnn, rnn, lstm, gru, not cnn"):
        cli.app(["train", str(text), "--model", "cnn"], standalone_mode=False)
    with pytest.raises(cli.UsageError, match="--resume takes everything"):
        cli.app(["train", "--resume", "run", "--model", "gru"], standalone_mode=False)
