"""A convolutional classifier of texts: which short sequences of words, anywhere in a text, speak for which class?

    tokens (B, T) -> embeddings (B, E, T) -> for each width k: conv1d, relu, the maximum over time (B, F)
                  -> all side by side (B, F widths) -> scores of the classes (B, K)

Source: Kim 2014, "Convolutional neural networks for sentence classification".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import nn
from minilm.creation import zeros
from minilm.errors import ConfigError, ShapeError
from minilm.models.config import Config
from minilm.models.outputs import Output
from minilm.nn import functional as F
from minilm.ops.joining import cat
from minilm.tensor import Tensor


@dataclass
class TextCNNConfig(Config):
    """The shape of a TextCNN; the defaults are the paper's.

    Attributes:
        vocab_size: V. num_labels: K, how many classes there are. n_embd: E. n_filter: F, filters of each width.
        widths: how many tokens the filters see, as "3,4,5".
        dropout: the share of the F times the widths features dropped in training.
    """

    vocab_size: int = 10000
    num_labels: int = 2
    n_embd: int = 300
    n_filter: int = 100
    widths: str = "3,4,5"
    dropout: float = 0.5

    def check(self) -> None:
        """Raise ConfigError for an impossible shape."""
        for name in ("vocab_size", "num_labels", "n_embd", "n_filter"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("widths", min(self.sizes, default=0) >= 1, "whole numbers of at least 1, as in '3,4,5'")
        self.require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")

    @property
    def sizes(self) -> list[int]:
        """The widths as numbers."""
        try:
            return [int(width) for width in self.widths.split(",")]
        except ValueError:
            raise ConfigError(f"widths must be whole numbers, as in '3,4,5', not {self.widths!r}") from None


class TextCNN(nn.Module):
    """Which class a text is of: input_ids (B, T), attention_mask (B, T) -> logits (B, K).

    Padding, and how much of it there is, changes nothing: a filter sees places that lie in the text whole, and of a
    text shorter than the filter the one place at its beginning, followed by zeros.

    Parameters: wte.weight (V, E); convs.i.weight (F, E, width) and .bias (F); classifier.weight (K, F widths), .bias.
    """

    def __init__(self, config: TextCNNConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.convs = nn.ModuleList([nn.Conv1d(config.n_embd, config.n_filter, k) for k in config.sizes])
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.n_filter * len(config.sizes), config.num_labels)
        nn.init.uniform_(self.wte.weight, -0.25, 0.25)  # the paper's, for words without a pretrained vector

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None, **_: Any
    ) -> Output:
        """The scores, and the loss where labels (B) are given: an Output with `loss` and `logits` (B, K).

        Args:
            attention_mask: (B, T), 1 for tokens and 0 for the padding behind them; None: no padding.
            others, such as token_type_ids, are what tokenizers give for other models, and are left alone.
        Errors: ShapeError for other shapes, an empty text, or padding before tokens.
        """
        lengths = self._lengths(input_ids, attention_mask)
        x = self.wte(input_ids)  # (B, T, E)
        B, T, E = x.shape
        if attention_mask is not None:
            x = x * Tensor((np.arange(T) < lengths[:, None])[..., None].astype(x.dtype))
        if (missing := max(self.config.sizes) - T) > 0:
            x = cat([x, zeros(B, missing, E, dtype=x.dtype)], 1)
        x = x.transpose(1, 2)
        features = [self._strongest(conv(x), k, lengths) for conv, k in zip(self.convs, self.config.sizes)]
        logits = self.classifier(self.dropout(cat(features, -1)))
        return Output(loss=None if labels is None else F.cross_entropy(logits, labels.reshape(-1)), logits=logits)

    @staticmethod
    def _strongest(scores: Tensor, k: int, lengths: Any) -> Tensor:
        """Each filter's largest value over the places in the text: (B, F, places) -> (B, F)."""
        last = np.maximum(lengths - k, 0)  # the last place
        outside = np.arange(scores.shape[2]) > last[:, None]
        return F.relu(scores).masked_fill(Tensor(outside[:, None]), -math.inf).amax(-1)

    def _lengths(self, input_ids: Tensor, attention_mask: Tensor | None) -> Any:
        """How many tokens each text has (B)."""
        if input_ids.ndim != 2 or not input_ids.shape[1]:
            raise ShapeError(f"TextCNN: input_ids (B, T) with T at least 1 were expected, not {input_ids.shape}")
        if attention_mask is None:
            return np.full(input_ids.shape[0], input_ids.shape[1])
        mask = attention_mask.array != 0
        if mask.shape != input_ids.shape:
            raise ShapeError(f"TextCNN: the attention_mask {mask.shape} does not fit input_ids {input_ids.shape}")
        lengths = mask.sum(1)
        if not lengths.all() or (mask != (np.arange(mask.shape[1]) < lengths[:, None])).any():
            raise ShapeError("TextCNN: each text needs a token, and its padding must stand behind all of its tokens")
        return lengths

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of labels (B)."""
        loss: Tensor = self.forward(input_ids, attention_mask, labels).loss
        return loss
