"""The encoder of BERT's kind from minilm's blocks; the GPT is minilm.models.GPT itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm import nn
from minilm.nn import functional as F
from minilm.tensor import Tensor


class EncoderLayer(nn.Module):
    """Attention, then MLP, each added to what it was given and then normalised: (B, T, C) -> (B, T, C).

    x = norm1(x + self_attn(x))
    x = norm2(x + linear2(gelu(linear1(x))))

    Source: Vaswani et al. 2017, section 3.1, with BERT's GELU; names as in torch.nn.TransformerEncoderLayer.
    """

    def __init__(self, C: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(C, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(C, hidden), nn.Linear(hidden, C)
        self.norm1, self.norm2 = nn.LayerNorm(C), nn.LayerNorm(C)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        _, x = self.norm1(self.self_attn(x, x, x, need_weights=False)[0], residual=x)
        h = F.linear_gelu(x, self.linear1.weight, self.linear1.bias)
        return self.norm2(self.linear2(h), residual=x)[1]


class Encoder(nn.Module):
    """Tokens (B, T) -> classes (B, classes), decided by the first position."""

    def __init__(self, s: dict[str, int]) -> None:
        super().__init__()
        C = s["n_embd"]
        self.tokens, self.positions = nn.Embedding(s["V"], C), nn.Embedding(s["T"], C)
        self.norm = nn.LayerNorm(C)
        self.layers = nn.ModuleList([EncoderLayer(C, s["n_head"], s["n_hidden"]) for _ in range(s["n_layer"])])
        self.classifier = nn.Linear(C, s["classes"])

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        x = self.norm(self.tokens(tokens) + self.positions(Tensor(np.arange(tokens.shape[1]))))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(x[:, 0])

    def loss(self, tokens: Tensor, targets: Tensor) -> Any:
        """The mean cross-entropy of the classes."""
        return F.cross_entropy(self(tokens), targets)
