"""What a run is configured by that learns to make one text of another: to translate, to summarise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from minilm.errors import ConfigError
from minilm.models.marian_config import MarianConfig
from minilm.models.pretrained_config import PretrainedConfig
from minilm.optim.schedule import Schedule, cosine, linear, warmup, warmup_inverse_sqrt
from minilm.train.config import RunConfig
from minilm.train.finetuning.config import ALL

P = TypeVar("P", bound="PairConfig")

PAD, END = 0, 1  # the first tokens of a vocabulary that a run learns
SCHEDULES = ("inverse_sqrt", "linear", "cosine")


def _small_marian() -> MarianConfig:
    sizes: dict[str, Any] = {"layers": 3, "attention_heads": 4, "ffn_dim": 1024}
    return MarianConfig(
        vocab_size=8000,
        d_model=256,
        **{f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in sizes.items()},
        activation_function="relu",
        dropout=0.1,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=END,
        decoder_start_token_id=PAD,
        forced_eos_token_id=END,
    )


@dataclass
class PairConfig(RunConfig):
    """A run that learns pairs of texts, from nothing or from a pretrained model.

    Attributes:
        model: the model's shape; of a pretrained one its own.
        pretrained: the folder of a pretrained model; "" to begin with random weights and learn a vocabulary.
        vocabulary: how many tokens the byte pairs of both sides are.
        max_source, max_target: tokens of a side, its end included. Longer pairs are not learnt from; they are counted,
            and said. truncate: cut long sources in place of that, which is counted and said too.
        held_out: every so manieth pair is tested on, where there is no file for that.
        batch_tokens: how many tokens a side of a batch has at most, padding included.
        batch_size: how many texts are written at a time.
        epochs: how often all pairs are learnt from. `steps` may end it sooner.
        evaluations: how many in an epoch, each with a checkpoint; eval_every and checkpoint_every follow.
        label_smoothing: the share of each label that is spread over the vocabulary (Szegedy et al. 2016, section 7).
        decay: how the learning rate falls behind the warm-up: "inverse_sqrt", "linear" or "cosine".
        average: the weights are averaged over so many of the last checkpoints, where that is better; 1 for never.
        num_beams, length_penalty: of the outputs in the end; at evaluations they are greedy.
    """

    METRICS: ClassVar[tuple[str, ...]] = ()
    VOCABULARY: ClassVar[str] = "set vocabulary, without model."

    model: PretrainedConfig | None = field(default_factory=_small_marian)
    pretrained: str = ""
    vocabulary: int = 8000
    max_source: int = 128
    max_target: int = 128
    truncate: bool = False
    held_out: int = 50
    batch_tokens: int = 4096
    batch_size: int = 32
    epochs: int = 20
    evaluations: int = 1
    label_smoothing: float = 0.1
    decay: str = "inverse_sqrt"
    average: int = 5
    num_beams: int = 5
    length_penalty: float = 1.0
    steps: int = ALL
    learning_rate: float = 1e-3
    min_learning_rate: float = 0.0
    warmup_steps: int = 400
    beta2: float = 0.98
    weight_decay: float = 0.01
    keep_checkpoints: int = 1
    log_every: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        self.keep_checkpoints = max(self.keep_checkpoints, self.average)

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        for name in ("epochs", "evaluations", "average", "num_beams"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("held_out", self.held_out >= 2, "at least 2")
        self.require("vocabulary", self.vocabulary > 259, "more than 259: 256 bytes and three special tokens")
        self.require("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0 and below 1")
        self.require("decay", self.decay in SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        positions = getattr(self.model, "max_position_embeddings", None)
        for name in ("max_source", "max_target"):
            length = getattr(self, name)
            self.require(name, length >= 2, "at least 2, for a token and the end")
            if positions is not None and length > positions:
                raise ConfigError(f"{name} is {length}, and the model knows {positions} positions")
            if length > self.batch_tokens:
                raise ConfigError(f"{name} is {length}, and a batch has {self.batch_tokens} tokens (batch_tokens)")
        if 2 * self.num_beams > self.vocabulary:
            raise ConfigError(f"num_beams {self.num_beams} is too wide for a vocabulary of {self.vocabulary}")
        super().check()

    @property
    def sequence_length(self) -> int:
        """The most tokens of a side."""
        return max(self.max_source, self.max_target)

    @property
    def tokens_per_step(self) -> str:
        """How large a batch is, in words."""
        return f"at most {self.batch_tokens:,}"

    def schedule(self) -> Schedule:
        """The factor on the learning rate at each step."""
        if self.decay == "inverse_sqrt":  # the same however many steps there are
            return warmup_inverse_sqrt(max(self.warmup_steps, 1))
        rising = min(self.warmup_steps, self.steps - 1)
        left, floor = self.steps - rising, self.min_learning_rate / self.learning_rate
        return warmup(rising, linear(left, 1.0, floor) if self.decay == "linear" else cosine(left, floor))

    @classmethod
    def from_dict(cls: type[P], values: Mapping[str, Any]) -> P:
        """The inverse of `to_dict`; the model's kind is what its model_type says. Errors: see Config."""
        given = dict(values)
        if isinstance(given.get("model"), Mapping):
            kind = model_config(given["model"])
            try:
                given["model"] = kind.from_dict(given["model"])
            except ConfigError as error:
                raise ConfigError(f"in model: {error}") from None
        return super().from_dict(given)


def model_config(values: Mapping[str, Any]) -> Any:
    """The class of the configuration with these values: that of their model_type. Errors: ConfigError."""
    kind = values.get("model_type", MarianConfig.model_type)
    if kind == "t5":
        from minilm.models.t5_config import T5Config

        return T5Config
    return MarianConfig


@dataclass
class TranslateConfig(PairConfig):
    """A run that learns to translate."""

    TASK: ClassVar[str] = "translate"
    METRICS: ClassVar[tuple[str, ...]] = ("bleu", "chrf")

    task: str = TASK


@dataclass
class SummarizeConfig(PairConfig):
    """A run that learns to summarise.

    Attributes:
        lead: how many first sentences of a text are the baseline.
    """

    TASK: ClassVar[str] = "summarize"
    METRICS: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL")

    task: str = TASK
    max_source: int = 512
    max_target: int = 96
    held_out: int = 20
    lead: int = 3

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("lead", self.lead >= 1, "at least 1")
        super().check()
