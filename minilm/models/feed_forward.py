"""Bengio's language model: a network with one hidden layer reads the last n - 1 tokens and predicts the next.

    y = b + W x + U tanh(d + H x),    x = the embeddings of the last n - 1 tokens, side by side

Source: Bengio, Ducharme, Vincent & Jauvin 2003, equations 1 and 2; W are the direct connections, which may be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import nn
from minilm.creation import zeros
from minilm.errors import DtypeError, ShapeError
from minilm.models.config import Config
from minilm.nn import functional as F
from minilm.ops.joining import cat
from minilm.tensor import Tensor


@dataclass
class FeedForwardConfig(Config):
    """The shape of Bengio's model.

    Attributes:
        vocab_size: V, how many different tokens there are.
        context: n - 1, how many tokens it sees.
        block_size: T, the tokens of an example in training, each of which is predicted from those before it.
        n_embd: channels of an embedding (the paper's m). n_hidden: units of the hidden layer (h).
        direct: whether the scores also depend on the embeddings directly (the paper's W).
        dropout: the share of hidden units dropped in training.
    """

    vocab_size: int = 10000
    context: int = 5
    block_size: int = 64
    n_embd: int = 64
    n_hidden: int = 256
    direct: bool = False
    dropout: float = 0.0

    def check(self) -> None:
        """Raise ConfigError for an impossible shape."""
        for name in ("vocab_size", "context", "block_size", "n_embd", "n_hidden"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")


class TokenCache:
    """The last tokens that a model has read, (B, up to n - 2): as many as the next one needs beside itself."""

    def __init__(self) -> None:
        self.tokens: Any = None

    def clear(self) -> None:
        """Forget everything."""
        self.tokens = None


class FeedForwardLM(nn.Module):
    """The language model: tokens (B, T) -> logits (B, T, V), the scores of each next token.

    In the place of what lies before the first token stand zeros. Parameters, with the paper's names behind: wte.weight
    (V, m) C; hidden.weight (h, (n - 1) m) and .bias H and d; lm_head.weight (V, h) and .bias U and b; direct.weight
    (V, (n - 1) m) W.
    """

    unbounded = True  # any number of tokens may be given; it looks at the last of them

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__()
        self.config = config
        seen = config.context * config.n_embd
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.hidden = nn.Linear(seen, config.n_hidden)
        self.drop = nn.Dropout(config.dropout)
        self.lm_head = nn.Linear(config.n_hidden, config.vocab_size)
        self.direct = nn.Linear(seen, config.vocab_size, bias=False) if config.direct else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values: nn.Embedding's and nn.Linear's, but uniform in +-0.1 for the scores.

        With embeddings in +-0.1 the hidden units began near 0 and learnt slowly.
        """
        self.wte.reset_parameters()
        self.hidden.reset_parameters()
        for layer in (self.lm_head, self.direct):
            if layer is not None:
                nn.init.uniform_(layer.weight, -0.1, 0.1)
        nn.init.zeros_(self.lm_head.bias)

    def forward(self, tokens: Tensor, cache: TokenCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens` (B, T).

        Args:
            cache: the tokens before, which `tokens` continue; they are added to it.
        Errors: ShapeError, DtypeError for what are no tokens (B, T).
        """
        if not isinstance(tokens, Tensor):
            raise DtypeError(
                f"FeedForwardLM: tokens are a Tensor of integers, not {type(tokens).__name__}; use minilm.tensor()"
            )
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ShapeError(f"FeedForwardLM: tokens (B, T) with T at least 1 were expected, not {tokens.shape}")
        T, n = tokens.shape[1], self.config.context
        array = tokens.array
        if cache is not None:
            array = array if cache.tokens is None else np.concatenate([cache.tokens, array], 1)
            cache.tokens = array[:, -(n - 1) :] if n > 1 else array[:, :0]
        x = self._seen(Tensor(array))[:, -T:]  # (B, T, n m)
        y = self.lm_head(self.drop(F.tanh(self.hidden(x))))
        return y if self.direct is None else y + self.direct(x)

    def _seen(self, tokens: Tensor) -> Tensor:
        """For each token the embeddings of the last n, the oldest first: (B, T) -> (B, T, n m)."""
        e, n = self.wte(tokens), self.config.context
        B, T, m = e.shape
        padded = cat([zeros(B, n - 1, m, dtype=e.dtype), e], 1)
        return cat([padded[:, i : i + T] for i in range(n)], -1)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of `targets` (B, T), each the token after that in `tokens` (B, T)."""
        logits = self.forward(tokens)
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))

    def new_cache(self, batch_size: int) -> TokenCache:
        """An empty cache."""
        return TokenCache()

    def generate(self, tokens: Any, max_new_tokens: int, **settings: Any) -> Tensor:
        """`tokens` (B, T) or (T,) continued: see `minilm.generation.generate`."""
        from minilm.generation import generate

        return generate(self, tokens, max_new_tokens, **settings)

    def flops_per_token(self) -> int:
        """Multiplications and additions of a training step per token: 6 for each parameter in a product."""
        layers = [self.hidden, self.lm_head, *([] if self.direct is None else [self.direct])]
        return 6 * sum(layer.weight.numel() for layer in layers)
