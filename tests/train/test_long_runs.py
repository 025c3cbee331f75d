"""What 50,000 steps must not leave behind: memory that grows, and a tape that waits for the garbage collector."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

import minilm as ml
from minilm import nn, optim
from minilm.models import GPT, GPTConfig
from minilm.nn import functional as F
from minilm.tape import Node
from minilm.tensor import Tensor
from minilm.train import Costs, LogFile, Observer, Samples, tidying
from minilm.train.run import continued_run

# --- the tape -----------------------------------------------------------------------------------------------

TOKENS = np.random.default_rng(0).integers(0, 11, (3, 7))


class Recurrent(nn.Module):
    """A language model over any recurrent layer."""

    def __init__(self, layer):
        super().__init__()
        self.embedding, self.layer, self.head = nn.Embedding(11, 8), layer(8, 8, batch_first=True), nn.Linear(8, 11)

    def loss(self, tokens, targets):
        """Cross-entropy."""
        return F.cross_entropy(self.head(self.layer(self.embedding(tokens))[0]).reshape(-1, 11), targets.reshape(-1))


class Translator(nn.Module):
    """An encoder and a decoder."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(11, 8), nn.Linear(8, 11)
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, dropout=0.1, batch_first=True)

    def loss(self, tokens, targets):
        """Cross-entropy."""
        x = self.embedding(tokens)
        return F.cross_entropy(self.head(self.transformer(x, x)).reshape(-1, 11), targets.reshape(-1))


def gpt(**options):
    config = GPTConfig(vocab_size=11, block_size=7, n_layer=2, n_head=2, n_embd=8, dropout=0.1)
    model = GPT(config)
    model.recompute = options.get("recompute", False)
    return model


MODELS = {
    "GPT": gpt,
    "GPT that computes activations again": lambda: gpt(recompute=True),
    "RNN": lambda: Recurrent(nn.RNN),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "Transformer": Translator,
}


def taped():
    # By its type: `isinstance` asks a proxy of a thing that is gone for its class.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), (Tensor, Node))]


@pytest.fixture
def no_collector():
    """The garbage collector does not help."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("anomaly", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_a_steps_tape_is_gone_with_its_loss(no_collector, name, anomaly):
    ml.manual_seed(0)
    model = MODELS[name]()
    optimizer = optim.AdamW(model.parameters())
    inputs = ml.tensor(TOKENS), ml.tensor(TOKENS)
    counts = []
    for _ in range(3):
        optimizer.zero_grad()
        before = {id(thing) for thing in taped()}
        with ml.autograd.detect_anomaly() if anomaly else contextlib.nullcontext():
            loss = model.loss(*inputs)
            made = [weakref.ref(thing) for thing in taped() if id(thing) not in before]
            assert len(made) >= 10
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        del loss
        assert [thing for ref in made if (thing := ref()) is not None] == []
        counts.append(len(taped()))
    assert counts[1] == counts[2]  # in the first the optimiser got its memory


def test_a_loss_that_nobody_differentiates_takes_its_tape_along(no_collector):
    model = gpt()
    before = len(taped())
    loss = model.loss(ml.tensor(TOKENS), ml.tensor(TOKENS))
    assert len(taped()) > before + 10
    del loss
    assert len(taped()) == before


# --- memory ---------------------------------------------------------------------------------------------------


class Memory(Observer):
    """Notes what `measure` gives, every so many steps, in memory that it has from the beginning."""

    def __init__(self, every, times, measure):
        self.every, self.measure = every, measure
        self.found = np.ones(times, np.int64)

    def stepped(self, trainer):
        index, other = divmod(trainer.progress.step, self.every)
        if not other:
            self.found[index - 1] = self.measure()


OFTEN = {"log_every": 10, "eval_every": 50, "checkpoint_every": 100, "micro_batch_size": 2, "model.dropout": 0.1}


def watched(trainer, *more):
    tokenizer = continued_run(trainer.folder, {})[1].tokenizer
    watchers = LogFile(trainer.folder), Costs(trainer.folder), Samples(tokenizer, lambda step, text: None, "t")
    trainer.observers = [*watchers, *more]
    return trainer


def test_a_run_leaves_nothing_behind_at_its_steps(begin):
    """Of all that Python allocates nothing is more after 400 steps than after 200.

    Every object that leaks is a block, also an array, whose numbers lie elsewhere; the few that come and go are
    entries of caches. (`tracemalloc` counts some 3 KB of strings here that are gone.)
    """

    def blocks():
        gc.collect()
        return sys.getallocatedblocks()

    seen = Memory(200, 2, blocks)
    trainer = watched(begin(steps=401, **OFTEN, sample_every=100, sample_length=5), seen)
    trainer.train()
    early, late = seen.found
    assert late - early < 100, f"{late - early} blocks more, {early} before"


def test_a_run_makes_nothing_that_waits_for_the_collector(begin):
    """Neither steps, nor evaluations, checkpoints, logs or samples leave cycles."""
    trainer = watched(begin(steps=12, **{**OFTEN, "log_every": 1, "eval_every": 3, "checkpoint_every": 4}))
    trainer.config.sample_every, trainer.config.sample_length = 4, 5
    trainer.observers.append(Memory(4, 3, gc.collect))
    gc.collect()
    gc.disable()
    try:
        trainer.train()
    finally:
        gc.enable()
    assert trainer.observers[-1].found.tolist()[1:] == [0, 0]


# In a process of its own: what other tests left in memory, in holes of any size, is not a run's.
LONG = """
import sys
from pathlib import Path
import numpy as np
from minilm.train import Costs, LogFile, Observer, Samples, TrainConfig
from minilm.train.observers import memory
from minilm.train.run import new_run

class Memory(Observer):
    found = np.ones(int(sys.argv[3]) // 100, np.int64)  # there from the beginning

    def stepped(self, trainer):
        if trainer.progress.step % 100 == 0:
            self.found[trainer.progress.step // 100 - 1] = memory()

text, folder, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
shape = {"model.block_size": 8, "model.n_layer": 1, "model.n_head": 2, "model.n_embd": 8, "model.dropout": 0.1}
often = {"log_every": 50, "eval_every": 1000, "eval_batches": 2, "checkpoint_every": 1000, "sample_every": 5000}
config = TrainConfig.build(None, {**shape, **often, "batch_size": 3, "steps": steps, "sample_length": 20})
trainer, corpus = new_run(text, folder, config)
seen = Memory()
samples = Samples(corpus.tokenizer, lambda step, text: None, "t")
trainer.observers = [LogFile(folder), Costs(folder), samples, seen]
trainer.train()
print(*seen.found.tolist())
"""


@pytest.mark.skipif(not os.environ.get("MINILM_DEEP"), reason="50,000 steps: in the deep profile")
def test_resident_memory_does_not_grow(text, tmp_path):
    """Over the second half of 50,000 steps less than 1 KB per 1,000 steps, by least squares."""
    command = [sys.executable, "-c", LONG, str(text), str(tmp_path / "run"), "50000"]
    found = np.array(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(), np.int64)
    slope = np.polyfit(np.arange(251, 501) / 10, found[250:], 1)[0]
    print(f"resident memory after 5,000, 10,000 ... steps: {found[49::50] >> 10} KiB; slope {slope:.0f}")
    assert slope < 1000, f"{slope:.0f} bytes per 1,000 steps"


def test_tidying_takes_one_percent_of_the_time_at_most(monkeypatch):
    passes, clock = [], [0.0]

    def collect():
        passes.append(clock[0])
        clock[0] += 0.5

    monkeypatch.setattr(tidying.gc, "collect", collect)
    monkeypatch.setattr(tidying.time, "perf_counter", lambda: clock[0])
    tidy = tidying.Tidying()
    for _ in range(300):
        tidy()
        clock[0] += 1.0
    assert passes == [0.0, 50.5, 101.0, 151.5, 202.0, 252.5]
