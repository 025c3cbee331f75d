"""What a fine-tuning run is configured by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from minilm.errors import ConfigError
from minilm.models.bert_config import BertConfig
from minilm.optim.schedule import Schedule, linear, warmup
from minilm.train.config import RunConfig

ALL = 10**9  # steps: as many as the epochs have


@dataclass
class FinetuneConfig(RunConfig):
    """A run that fine-tunes a BERT.

    Attributes:
        model: the model's shape, which is that of the pretrained one.
        pretrained: the folder of the pretrained model.
        max_length: T, the most tokens of a text; what is longer is cut, or read through a window.
        epochs: how often all examples are learnt from. `steps` may end it sooner.
        evaluations: how many in an epoch, each with a checkpoint; eval_every and checkpoint_every follow.
        metric: the measure that says what is best, for the checkpoint that is kept and for `patience`; or "loss".
        class_weights: whether each class counts alike in the loss, however many examples it has.
    """

    VOCABULARY: ClassVar[str] = "it is the pretrained model's"

    model: BertConfig = field(default_factory=BertConfig)
    pretrained: str = ""
    max_length: int = 128
    epochs: int = 3
    evaluations: int = 1
    metric: str = ""
    class_weights: bool = False
    train_fraction: float = 0.9
    batch_size: int = 32
    steps: int = ALL
    learning_rate: float = 5e-5
    min_learning_rate: float = 0.0
    warmup_steps: int = 0
    beta2: float = 0.999
    weight_decay: float = 0.01
    keep_checkpoints: int = 1

    def __post_init__(self) -> None:
        self.metric = self.metric or self.METRICS[0]
        super().__post_init__()

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        for name in ("epochs", "evaluations"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("max_length", self.max_length >= 3, "at least 3, for [CLS], a token and [SEP]")
        if self.max_length > self.model.max_position_embeddings:
            known_positions = self.model.max_position_embeddings
            raise ConfigError(f"max_length is {self.max_length}, and the model knows {known_positions} positions")
        super().check()

    @property
    def sequence_length(self) -> int:
        """T, the most tokens of an example."""
        return self.max_length

    def schedule(self) -> Schedule:
        """The factor on the learning rate at each step: a straight line down, as in Devlin et al. 2019, section A.3."""
        rising = min(self.warmup_steps, self.steps - 1)
        return warmup(rising, linear(self.steps - rising, 1.0, self.min_learning_rate / self.learning_rate))


@dataclass
class ClassifyConfig(FinetuneConfig):
    """A run that learns to classify texts, or pairs of texts."""

    TASK: ClassVar[str] = "classify"
    METRICS: ClassVar[tuple[str, ...]] = ("accuracy", "f1_macro")

    task: str = TASK


@dataclass
class TagConfig(FinetuneConfig):
    """A run that learns a tag for each word.

    Attributes:
        tags: the column of a CoNLL-U file, as "upos"; "" for the last one of a CoNLL file.
    """

    TASK: ClassVar[str] = "tag"
    METRICS: ClassVar[tuple[str, ...]] = ("token_accuracy", "f1")

    task: str = TASK
    tags: str = ""


@dataclass
class AnswerConfig(FinetuneConfig):
    """A run that learns where in a text the answer to a question stands, or that there is none.

    Attributes:
        stride: the tokens that two windows of a long text have in common.
        max_answer: the most tokens of an answer. best: how many beginnings and ends are tried.
        no_answer: whether a question may have no answer; it follows from the examples.
    """

    TASK: ClassVar[str] = "qa"
    METRICS: ClassVar[tuple[str, ...]] = ("f1", "exact")

    task: str = TASK
    max_length: int = 384
    stride: int = 128
    max_answer: int = 30
    best: int = 20
    no_answer: bool = False
    batch_size: int = 16
    learning_rate: float = 3e-5

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("stride", 0 <= self.stride < self.max_length - 3, "from 0 to below max_length - 3")
        for name in ("max_answer", "best"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        super().check()
