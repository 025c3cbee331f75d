"""Training runs of the language models before Transformers: Bengio's network, RNN, LSTM and GRU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from minilm.models.feed_forward import FeedForwardConfig
from minilm.models.recurrent import RecurrentConfig
from minilm.train.config import TextConfig


def _small_feed_forward() -> FeedForwardConfig:
    return FeedForwardConfig(vocab_size=1, context=8, block_size=64, n_embd=32, n_hidden=512)


def _small(kind: str) -> RecurrentConfig:
    return RecurrentConfig(kind, vocab_size=1, block_size=64, n_layer=2, n_embd=128, n_hidden=256)


@dataclass
class _KeepsActivations(TextConfig):
    """A run whose model has no blocks that could be computed again."""

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.require("recompute", not self.recompute, "false for a model without Transformer blocks")
        super().check()


@dataclass
class FeedForwardTrainConfig(_KeepsActivations):
    """A training run of Bengio's feed-forward model on a text; `model` is its shape."""

    TASK: ClassVar[str] = "ffnn"
    TITLE: ClassVar[str] = "a feed-forward network"

    model: FeedForwardConfig = field(default_factory=_small_feed_forward)
    task: str = TASK
    batch_size: int = 32


@dataclass
class RecurrentTrainConfig(_KeepsActivations):
    """A training run of a recurrent model on a text.

    Attributes:
        model: its shape; block_size is T, over how many tokens gradients go back.
        carry_state: whether a batch goes on where the one before it ended, with the state that was there (truncated
            back-propagation through time); otherwise batches are drawn at random, and each begins with zeros.
    """

    model: RecurrentConfig = field(default_factory=RecurrentConfig)
    batch_size: int = 32
    learning_rate: float = 2e-3
    carry_state: bool = True

    def check(self) -> None:
        """Raise ConfigError for a run that makes no sense."""
        self.model.require("kind", self.model.kind == self.TASK, f"{self.TASK!r} in such a run")
        super().check()

    @property
    def in_streams(self) -> bool:
        """Whether a batch goes on where the one before it ended."""
        return self.carry_state


@dataclass
class RNNTrainConfig(RecurrentTrainConfig):
    """A training run of an RNN."""

    TASK: ClassVar[str] = "rnn"
    TITLE: ClassVar[str] = "an RNN"

    model: RecurrentConfig = field(default_factory=lambda: _small("rnn"))
    task: str = TASK


@dataclass
class LSTMTrainConfig(RecurrentTrainConfig):
    """A training run of an LSTM."""

    TASK: ClassVar[str] = "lstm"
    TITLE: ClassVar[str] = "an LSTM"

    model: RecurrentConfig = field(default_factory=lambda: _small("lstm"))
    task: str = TASK


@dataclass
class GRUTrainConfig(RecurrentTrainConfig):
    """A training run of a GRU."""

    TASK: ClassVar[str] = "gru"
    TITLE: ClassVar[str] = "a GRU"

    model: RecurrentConfig = field(default_factory=lambda: _small("gru"))
    task: str = TASK


CONFIGS: dict[str, type[TextConfig]] = {
    config.TASK: config for config in (FeedForwardTrainConfig, RNNTrainConfig, LSTMTrainConfig, GRUTrainConfig)
}
