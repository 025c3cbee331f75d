"""What a training run is: one dataclass, saved beside the weights as config.json.

That file is for reading, and for `--config` of another run: the checkpoint carries its own copy, which counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from minilm.errors import ConfigError
from minilm.files import written_whole
from minilm.models.config import Config, merged
from minilm.models.gpt import GPTConfig
from minilm.optim.schedule import Schedule, warmup_cosine

FILE_NAME = "config.json"

R = TypeVar("R", bound="RunConfig")


@dataclass
class RunConfig(Config):
    """What every training run has, whatever it trains; a kind of run adds its model and its data.

    Attributes:
        task: the kind of run, as in `tasks.py`.
        train_fraction: the share of the text, from its beginning, to learn from; the rest validates.
        batch_size: B, sequences in a step.
        micro_batch_size: how many of them are in memory at a time, their gradients added up; 0 for all.
        steps: optimiser steps in all.
        learning_rate: at its highest, after `warmup_steps`; it falls along a cosine to `min_learning_rate`.
        beta1, beta2, weight_decay: AdamW's; only matrices decay.
        ema_decay: of the running average of the weights, which is then what is evaluated and generates; 0 for none.
        precision: "float32", or "bf16" for products of matrices in bfloat16.
        recompute: whether activations inside of blocks are computed again in the backward, to save memory.
        grad_clip: the largest norm that a step's gradient may have; 0 for no limit.
        eval_every, eval_batches: every so many steps the validation loss over so many random batches.
        metric: what says which evaluation is best: the loss, or a measure that the task has.
        patience: evaluations in a row that are no better after which training ends; 0 for any number.
        target_loss: the validation loss whose time is recorded, the first time that it is reached; 0 for none.
        on_nan: what a loss or gradient that is no finite number does: "stop" the run, or "skip" the batch.
        checkpoint_every: every so many steps a checkpoint; the last step always writes one.
        keep_checkpoints: how many of the newest are kept, beside the first and the best.
        log_every: every so many steps a line in log.jsonl.
        seed: of the initial values, the batches, dropout and samples.
    """

    TASK: ClassVar[str] = ""
    METRICS: ClassVar[tuple[str, ...]] = ()  # what is measured at evaluations besides the loss, the usual one first
    TITLE: ClassVar[str] = "a model"  # for people
    VOCABULARY: ClassVar[str] = ""  # which key says how large it is, in place of model.vocab_size

    model: Any = None
    task: str = ""
    train_fraction: float = 0.9
    batch_size: int = 12
    micro_batch_size: int = 0
    steps: int = 2000
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-4
    warmup_steps: int = 100
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    ema_decay: float = 0.0
    precision: str = "float32"
    recompute: bool = False
    grad_clip: float = 1.0
    eval_every: int = 250
    eval_batches: int = 20
    metric: str = "loss"
    patience: int = 0
    target_loss: float = 0.0
    on_nan: str = "stop"
    checkpoint_every: int = 500
    keep_checkpoints: int = 3
    log_every: int = 10
    seed: int = 1337

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("task", self.task == self.TASK, repr(self.TASK))
        self.require("metric", self.metric in ("loss", *self.METRICS), f"one of {', '.join(('loss', *self.METRICS))}")
        self.require("train_fraction", 0 < self.train_fraction < 1, "between 0 and 1")
        for name in (
            "batch_size",
            "steps",
            "eval_every",
            "eval_batches",
            "checkpoint_every",
            "keep_checkpoints",
            "log_every",
        ):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("batch_size", self.batch_size < 2**31, "below 2**31")
        self.require("precision", self.precision in ("float32", "bf16"), "'float32' or 'bf16'")
        self.require("on_nan", self.on_nan in ("stop", "skip"), "'stop' or 'skip'")
        self.require("ema_decay", 0 <= self.ema_decay < 1, "at least 0 and below 1")
        for name in (
            "micro_batch_size",
            "target_loss",
            "patience",
            "warmup_steps",
            "weight_decay",
            "grad_clip",
        ):
            self.require(name, 0 <= getattr(self, name) < float("inf"), "at least 0")
        self.require("learning_rate", 0 < self.learning_rate < float("inf"), "above 0")
        self.require(
            "min_learning_rate",
            0 <= self.min_learning_rate <= self.learning_rate,
            f"from 0 to the learning_rate ({self.learning_rate})",
        )
        for name in ("beta1", "beta2"):
            self.require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self.require("seed", 0 <= self.seed < 2**64, "from 0 to 2**64 - 1")

    @property
    def sequence_length(self) -> int:
        """T, the tokens of an example."""
        raise NotImplementedError

    @property
    def tokens_per_step(self) -> str:
        """How large a batch is, in words."""
        return str(self.batch_size * self.sequence_length)

    def begin(self, model: Any) -> None:
        """Give a fresh model the initial values that this configuration asks for."""

    def schedule(self) -> Schedule:
        """The factor on the learning rate at each step."""
        warmup = min(self.warmup_steps, self.steps - 1)
        return warmup_cosine(warmup, self.steps, self.min_learning_rate / self.learning_rate)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json into `folder`, whole or not at all."""
        with written_whole(Path(folder) / FILE_NAME, "w") as file:
            file.write(json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def build(cls: type[R], file: str | os.PathLike[str] | None = None, settings: Mapping[str, Any] | None = None) -> R:
        """From the defaults, a JSON file over them, and dotted settings such as {"model.n_layer": 6} over both.

        Errors: ConfigError for a file that is missing or no JSON object, and for what `from_dict` refuses.
        """
        values: dict[str, Any] = {} if file is None else _read(Path(file))
        settings = dict(settings or {})
        if "model.vocab_size" in settings:
            raise ConfigError(f"model.vocab_size follows from the tokenizer; {cls.VOCABULARY}")
        values = merged(values, settings)
        own, model = cls().model.to_dict(), values.get("model", {})
        if isinstance(model, dict) and model.get("model_type") in (None, own.get("model_type")):
            values["model"] = {**own, **model}  # a group given in part keeps our defaults for the rest
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            if file is None:
                raise
            raise ConfigError(f"{file}{' and the settings' if settings else ''}: {error}") from None


def _small_gpt() -> GPTConfig:
    return GPTConfig(vocab_size=1, block_size=64, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)


@dataclass
class TextConfig(RunConfig):
    """A training run of a language model on a text; a kind of model adds its shape.

    Attributes:
        model: the model's shape; its vocab_size follows from the tokenizer.
        tokenizer: "char", one token for each character, or "bpe", byte-level pairs.
        bpe_vocab_size: how many tokens a "bpe" tokenizer learns.
        sample_every, sample_length: every so many steps a text of so many tokens; 0 for never.
    """

    VOCABULARY: ClassVar[str] = "of a bpe tokenizer set bpe_vocab_size"

    tokenizer: str = "char"
    bpe_vocab_size: int = 2048
    sample_every: int = 500
    sample_length: int = 200

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("tokenizer", self.tokenizer in ("char", "bpe"), "'char' or 'bpe'")
        self.require("bpe_vocab_size", self.bpe_vocab_size >= 257, "at least 257 (256 bytes and a pair)")
        for name in ("sample_every", "sample_length"):
            self.require(name, getattr(self, name) >= 0, "at least 0")
        super().check()

    @property
    def sequence_length(self) -> int:
        """T, the tokens of an example."""
        return int(self.model.block_size)

    @property
    def in_streams(self) -> bool:
        """Whether a batch goes on where the one before it ended, rather than be drawn at random."""
        return False


@dataclass
class TrainConfig(TextConfig):
    """A training run of a GPT on a text; `model` is the GPT's shape.

    Attributes:
        looking_back: so many heads of the first layer begin by looking at the token 1, 2, ... before, and positions as
            waves (`neighbours.look_back`); 0 for random values, as GPT-2's.
    """

    TASK: ClassVar[str] = "gpt"
    TITLE: ClassVar[str] = "a GPT"

    model: GPTConfig = field(default_factory=_small_gpt)
    task: str = TASK
    looking_back: int = 0

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        heads = self.model.n_head
        self.require("looking_back", 0 <= self.looking_back <= heads, f"from 0 to the model's heads ({heads})")
        super().check()

    def begin(self, model: Any) -> None:
        """See RunConfig."""
        if self.looking_back:
            from minilm.train.neighbours import look_back

            look_back(model, self.looking_back)


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: a JSON object with the configuration's keys was expected")
    return values


def parse_setting(text: str) -> tuple[str, Any]:
    """ "model.n_layer=6" as ("model.n_layer", 6). Errors: ConfigError without an equals sign."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"a setting reads key=value, as in model.n_layer=6, not {text!r}")
    try:
        return key.strip(), json.loads(value)
    except ValueError:
        return key.strip(), value.strip()
