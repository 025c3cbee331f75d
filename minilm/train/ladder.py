"""The ladder: language models from n-grams to a GPT, of one size, on one text, each for the same time.

    n-gram -> feed-forward -> RNN -> LSTM -> GRU -> GPT

All have the same tokens to learn from and, as nearly as their shapes allow, the same number of parameters; all networks
the same batches in size, and the same seconds (or steps). Then each is asked for the probabilities of the same held-out
tokens, with as much before them as it can see.
"""

from __future__ import annotations

import contextlib
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minilm import random
from minilm.errors import ConfigError, DataError
from minilm.models.config import Config
from minilm.models.ngram import NGram
from minilm.models.ngram_counts import ORDERS, NGramCounts
from minilm.modes import no_grad
from minilm.ops.loss import cross_entropy
from minilm.tensor import Tensor
from minilm.text.tokenizer import FILE_NAME as TOKENIZER
from minilm.train.config import RunConfig, TextConfig, TrainConfig
from minilm.train.corpus import TOKENS, Corpus
from minilm.train.neural import CONFIGS as NEURAL
from minilm.train.observers import LogFile, Observer
from minilm.train.run import new_run
from minilm.train.tasks import task
from minilm.train.trainer import Trainer, precision

Array = Any

NGRAM = "ngram"
RUNGS = (NGRAM, "ffnn", "rnn", "lstm", "gru", "gpt")  # from the oldest to the newest
TITLES = {NGRAM: "n-gram", "ffnn": "feed-forward", "rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "gpt": "GPT"}

# What each network has beside its width, which the budget decides, and its learning rate.
NETWORKS: dict[str, dict[str, Any]] = {
    "ffnn": {"model.context": 8, "model.n_embd": 32, "learning_rate": 4e-3},
    "rnn": {"model.n_layer": 1, "model.n_embd": 64, "learning_rate": 4e-3},
    "lstm": {"model.n_layer": 1, "model.n_embd": 24, "learning_rate": 3e-2},
    "gru": {"model.n_layer": 1, "model.n_embd": 24, "learning_rate": 1.6e-2},
    "gpt": {"model.n_layer": 2, "model.n_head": 4, "model.bias": False, "looking_back": 4, "learning_rate": 5e-3},
}
WIDTH = {"ffnn": "n_hidden", "gpt": "n_embd"}  # of the others n_hidden
UNIT = 4  # widths are multiples of it, so that there may be as many heads


@dataclass
class LadderConfig(Config):
    """What the models of a ladder share.

    Attributes:
        parameters: how many each model may have.
        seconds: of training for each network; it is turned into steps by a short trial.
        steps: of training for each network, in place of seconds; 0 for none.
        batch_size, block_size: B and T of a step of each network.
        precision: "float32", or "bf16" for products of matrices in bfloat16.
        tokenizer: "char" or "bpe", with bpe_vocab_size tokens.
        train_fraction: the share of the text, from its beginning, to learn from.
        held_out: how many tokens behind it are asked for; all of them where there are fewer.
        seed: of the initial values and the batches.
    """

    parameters: int = 160_000
    seconds: float = 90.0
    steps: int = 0
    batch_size: int = 16
    block_size: int = 64
    precision: str = "bf16"
    tokenizer: str = "char"
    bpe_vocab_size: int = 2048
    train_fraction: float = 0.9
    held_out: int = 100_000
    seed: int = 1337

    def check(self) -> None:
        """Raise ConfigError for what makes no sense."""
        self.require("seconds", 0 < self.seconds < math.inf, "above 0")
        self.require("steps", self.steps >= 0, "at least 0")
        for name in ("parameters", "held_out"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("block_size", self.block_size >= 2, "at least 2")
        self.run("gpt", steps=max(self.steps, 1)).check()

    def run(self, kind: str, **settings: Any) -> TextConfig:
        """The training run of one kind of network, with its width still to be found."""
        shared = {name: getattr(self, name) for name in _SHARED} | {"model.block_size": self.block_size}
        made: type[TextConfig] = TrainConfig if kind == "gpt" else NEURAL[kind]
        return made.build(None, {**shared, **NETWORKS[kind], **settings})


_SHARED = ("batch_size", "precision", "tokenizer", "bpe_vocab_size", "train_fraction", "seed")


@dataclass
class Rung:
    """What became of one model.

    Attributes:
        kind: of RUNGS. shape: in words. parameters: how many it has.
        seconds: of training, without evaluations. tokens: read in training.
        nats: the mean of -ln p over the held-out tokens. bits_per_character: all their bits over their characters.
    """

    kind: str
    shape: str
    parameters: int
    seconds: float
    tokens: int
    nats: float
    bits_per_character: float

    @property
    def title(self) -> str:
        """Its name for people."""
        return TITLES[self.kind]

    @property
    def tokens_per_second(self) -> float:
        """How fast it learnt."""
        return self.tokens / self.seconds

    @property
    def perplexity(self) -> float:
        """As unsure as between so many tokens."""
        return math.exp(self.nats)


# --- models of one size --------------------------------------------------------------------------------


def sized(config: TextConfig, budget: int, vocab_size: int) -> TextConfig:
    """The run with the widest model that has at most `budget` parameters. Errors: ConfigError if even 4 is too wide."""
    name = WIDTH.get(config.task, "n_hidden")

    def of_width(units: int) -> TextConfig:
        return replace(config, model=replace(config.model, vocab_size=vocab_size, **{name: units * UNIT}))

    def fits(units: int) -> bool:
        return _count(of_width(units)) <= budget

    if not fits(1):
        least = _count(of_width(1))
        raise ConfigError(f"parameters must be at least {least:,} for {TITLES[config.task]}, not {budget:,}")
    least, most = 1, 2
    while fits(most):
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if fits(middle) else (least, middle)
    return of_width(least)


def _count(config: RunConfig) -> int:
    return sum(parameter.numel() for parameter in task(config.task).model(config.model).parameters())


def longest_order(ids: Array, vocab_size: int, budget: int) -> int:
    """The largest order whose n-gram model has at most `budget` numbers, at least 1.

    How many it has follows from the text: a probability for each n-gram, and a weight for each shorter one.
    """
    sizes = [len(grams.keys) for grams in NGramCounts(ids, vocab_size, ORDERS[-1]).grams]
    numbers = [sum(sizes[:order]) + sum(sizes[: order - 1]) for order in ORDERS]
    return max([order for order, count in zip(ORDERS, numbers) if count <= budget], default=1)


def shape(config: RunConfig) -> str:
    """A network's shape in a few words."""
    model = config.model
    if config.task == "ffnn":
        return f"{model.context} tokens, {model.n_embd} to {model.n_hidden}"
    if config.task == "gpt":
        return f"{model.n_layer} layers of {model.n_embd}, {model.n_head} heads"
    return f"{model.n_layer} layer{'s' if model.n_layer > 1 else ''} of {model.n_hidden}"


# --- the same question for all -------------------------------------------------------------------------


@dataclass
class HeldOut:
    """The held-out tokens: tokens[first : end], to be foretold from those before them."""

    tokens: Array
    first: int
    end: int
    characters: int

    @classmethod
    def of(cls, corpus: Corpus, count: int) -> HeldOut:
        """The first `count` tokens behind the training part. Errors: DataError if there is none."""
        tokens, cut = corpus.tokens, int(len(corpus.tokens) * corpus.train_fraction)
        end = min(cut + count, len(tokens))
        if not 0 < cut < end:
            raise DataError(f"{corpus.name}: is too short: {cut} tokens to learn from and {end - cut} to foretell")
        array = np.asarray(tokens[:end]).astype(np.int64)
        return cls(array, cut, end, len(corpus.tokenizer.decode(array[cut:end])))

    def by_ngram(self, model: NGram) -> float:
        """The mean of -ln p over them."""
        before = max(self.first - model.order, 0)
        return -float(model.log_probs(self.tokens[before:], begins=before == 0)[self.first - before :].mean())

    def by_network(self, model: Any, T: int) -> float:
        """The mean of -ln p over them, of a network that reads T tokens at a time.

        One that carries a state, or looks back a few tokens, reads on from the T tokens before the first; of a GPT,
        which sees T tokens, each token is foretold from the T / 2 before it at least.
        """
        model.eval()
        with no_grad():
            return self._reading(model, T) if getattr(model, "unbounded", False) else self._in_windows(model, T)

    def _reading(self, model: Any, T: int, streams: int = 16) -> float:
        count = self.end - self.first
        length = -(-count // streams)
        starts = [min(self.first + s * length, self.end) for s in range(streams)]
        ends = [min(start + length, self.end) for start in starts]
        cache, total = model.new_cache(streams), 0.0
        # Each stream reads its part and, before it, T tokens to find its state; what is not asked for is -100.
        for at in range(-T, length, T):
            places = np.array(starts)[:, None] + at + np.arange(T)  # of the tokens to foretell
            asked = (places >= np.array(starts)[:, None]) & (places < np.array(ends)[:, None])
            total += _nats(model(Tensor(self._at(places - 1)), cache), np.where(asked, self._at(places), -100))
        return total / count

    def _in_windows(self, model: Any, T: int, batch: int = 64) -> float:
        half, total = T // 2, 0.0
        first = np.arange(self.first, self.end, T - half)
        for rows in np.split(first, range(batch, len(first), batch)):
            places = rows[:, None] - half + np.arange(T)
            asked = (places >= rows[:, None]) & (places < self.end)
            total += _nats(model(Tensor(self._at(places - 1))), np.where(asked, self._at(places), -100))
        return total / (self.end - self.first)

    def _at(self, places: Array) -> Array:
        """The tokens at these places; beyond the ends of the text those at its ends, which nobody asks for."""
        return self.tokens[np.clip(places, 0, len(self.tokens) - 1)]


def _nats(logits: Tensor, targets: Array) -> float:
    """The sum of -ln p of the targets but -100."""
    rows = logits.reshape(-1, logits.shape[-1])
    return float(cross_entropy(rows, Tensor(targets.reshape(-1)), reduction="sum").item())


# --- climbing ------------------------------------------------------------------------------------------


def climb(
    source: str | os.PathLike[str] | None,
    folder: Path,
    config: LadderConfig,
    kinds: Sequence[str] = RUNGS,
    observers: Callable[[Trainer], list[Observer]] = lambda trainer: [],
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Rung], int]:
    """Train and ask all models; `folder` gets a training run for each network. How many tokens they learnt from.

    Args:
        source: a UTF-8 file; None for the Shakespeare that ships.
        kinds: which of RUNGS. observers: more of them for each run. say: told what happens.
    Errors: ConfigError, DataError, CheckpointError as of `new_run`; KeyboardInterrupt if a run was interrupted.
    """
    for kind in kinds:
        if kind not in RUNGS:
            raise ConfigError(f"the models are {', '.join(RUNGS)}, not {kind}")
    corpus, held, runs = _prepared(source, folder, config, kinds)
    found = []
    for kind in kinds:
        if kind == NGRAM:
            rung = _ngram(corpus, held, config)
        else:
            rung = _network(source, folder / kind, runs[kind], config, held, corpus, observers, say)
        say(f"{rung.title}: {rung.bits_per_character:.3f} bits per character, perplexity {rung.perplexity:.3f}")
        found.append(rung)
    return found, held.first


def _prepared(
    source: str | os.PathLike[str] | None, folder: Path, config: LadderConfig, kinds: Sequence[str]
) -> tuple[Corpus, HeldOut, dict[str, TextConfig]]:
    """The corpus, its held-out tokens and the networks' runs. When it fails, nothing is left of it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]  # innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        corpus = Corpus.prepare(source, folder, config.run("gpt"))
        held, V = HeldOut.of(corpus, config.held_out), corpus.tokenizer.vocab_size
        return corpus, held, {kind: sized(config.run(kind), config.parameters, V) for kind in kinds if kind != NGRAM}
    except BaseException:
        for name in (TOKENS, TOKENIZER):
            with contextlib.suppress(OSError):  # here and below: the error that is on its way says more
                (folder / name).unlink()
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _ngram(corpus: Corpus, held: HeldOut, config: LadderConfig) -> Rung:
    ids, V = held.tokens[: held.first], corpus.tokenizer.vocab_size
    order = longest_order(ids, V, config.parameters)
    began = time.perf_counter()
    model = NGram.fit(ids, V, order)
    seconds = time.perf_counter() - began
    return _rung(NGRAM, f"order {order}", model.numel(), seconds, len(ids), held.by_ngram(model), held)


def _network(
    source: Any,
    folder: Path,
    run: TextConfig,
    config: LadderConfig,
    held: HeldOut,
    corpus: Corpus,
    observers: Callable[[Trainer], list[Observer]],
    say: Callable[[str], None],
) -> Rung:
    steps = config.steps or _steps_within(config.seconds, run, corpus)
    often = max(steps // 10, 1)
    run = replace(
        run, steps=steps, warmup_steps=min(100, steps // 10), eval_every=often, eval_batches=10, log_every=often
    )
    run = replace(run, checkpoint_every=steps, keep_checkpoints=1, sample_every=0)
    trainer, _ = new_run(source, folder, run)
    say(f"{TITLES[run.task]}: {_count(trainer.config):,} parameters, {shape(trainer.config)}, {steps} steps")
    trainer.observers = [LogFile(folder), *observers(trainer)]
    trainer.train()
    if trainer.interrupted:
        raise KeyboardInterrupt
    with precision(run.precision):
        nats = held.by_network(trainer.model, config.block_size)
    p = trainer.progress
    return _rung(run.task, shape(trainer.config), _count(trainer.config), p.seconds, p.tokens, nats, held)


def _rung(kind: str, form: str, size: int, seconds: float, tokens: int, nats: float, held: HeldOut) -> Rung:
    bits = nats / math.log(2) * (held.end - held.first) / held.characters
    return Rung(kind, form, size, seconds, tokens, nats, bits)


def _steps_within(seconds: float, run: TextConfig, corpus: Corpus, trial: float = 3.0) -> int:
    """How many steps fit into so many seconds, by a trial of some seconds on a model that is thrown away.

    The median of their times counts: where something else runs for a moment, the mean would promise too few.
    """
    random.manual_seed(run.seed)
    trainer = Trainer(task(run.task).model(run.model), corpus.data(run), run)
    trainer.model.train()
    with precision(run.precision):
        for step in range(2):  # the first ones also fill caches and pools
            trainer.step(trainer.data.batch(step))
        times: list[float] = []
        while sum(times) < min(trial, seconds / 10) or not times:
            began = time.perf_counter()
            trainer.step(trainer.data.batch(len(times)))
            times.append(time.perf_counter() - began)
    return max(round(seconds / statistics.median(times)), 1)
