"""The same models in PyTorch, with the same parameters under the same names."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """GPT-2's block: attention, then MLP, each behind its own normalisation."""

    def __init__(self, C: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C), "c_proj": nn.Linear(C, C)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C), "c_proj": nn.Linear(4 * C, C)})

    def forward(self, x: Any) -> Any:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.attn["c_attn"](self.ln_1(x)).split(C, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
        x = x + self.attn["c_proj"](y)
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class GPT(nn.Module):
    """minilm.models.GPT: tokens and targets (B, T) -> the mean cross-entropy."""

    def __init__(self, s: dict[str, int]) -> None:
        super().__init__()
        C = s["n_embd"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(s["V"], C),
                "wpe": nn.Embedding(s["T"], C),
                "h": nn.ModuleList([Block(C, s["n_head"]) for _ in range(s["n_layer"])]),
                "ln_f": nn.LayerNorm(C),
            }
        )

    def forward(self, tokens: Any, targets: Any) -> Any:
        """See the class."""
        t = self.transformer
        x = t["wte"](tokens) + t["wpe"](torch.arange(tokens.shape[1]))
        for block in t["h"]:
            x = block(x)
        logits = F.linear(t["ln_f"](x), t["wte"].weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Encoder(nn.Module):
    """PyTorch's own TransformerEncoderLayer, between embeddings and a classifier of the first position."""

    def __init__(self, s: dict[str, int]) -> None:
        super().__init__()
        C = s["n_embd"]
        self.tokens, self.positions = nn.Embedding(s["V"], C), nn.Embedding(s["T"], C)
        self.norm = nn.LayerNorm(C)
        self.layers = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(C, s["n_head"], s["n_hidden"], 0.0, "gelu", batch_first=True)
                for _ in range(s["n_layer"])
            ]
        )
        self.classifier = nn.Linear(C, s["classes"])

    def forward(self, tokens: Any, targets: Any) -> Any:
        """Tokens (B, T) and targets (B) -> the mean cross-entropy."""
        x = self.norm(self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1])))
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.classifier(x[:, 0]), targets)


class Recurrent(nn.Module):
    """minilm.models.RecurrentLM: PyTorch's own RNN, LSTM or GRU between embeddings and scores."""

    def __init__(self, s: dict[str, Any]) -> None:
        super().__init__()
        layers = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[s["kind"]]
        self.wte = nn.Embedding(s["V"], s["n_embd"])
        self.rnn = layers(s["n_embd"], s["n_hidden"], s["n_layer"], batch_first=True)
        self.lm_head = nn.Linear(s["n_hidden"], s["V"], bias=False)

    def forward(self, tokens: Any, targets: Any) -> Any:
        """Tokens and targets (B, T) -> the mean cross-entropy."""
        x, _ = self.rnn(self.wte(tokens))
        return F.cross_entropy(self.lm_head(x).flatten(0, 1), targets.flatten())
