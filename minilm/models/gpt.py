"""GPT: a stack of Transformer blocks that predicts each next token from those before it.

    tokens (B, T) -> embeddings (B, T, C) -> L blocks (B, T, C) -> scores of the next token (B, T, V)

Sources: Radford et al. 2018 (GPT) and 2019 (GPT-2: normalisation before each part instead of after it);
the block is the decoder's of Vaswani et al. 2017 without its look at an encoder. Parameters have
GPT-2's names, so that weights travel by name; matrices are stored (out, in), as in nn.Linear.

B batch, T time (positions), C channels, H heads, D = C / H channels of a head, V vocabulary, L layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import nn
from minilm.autograd import is_grad_enabled
from minilm.errors import DtypeError, ShapeError
from minilm.generation import KVCache, LayerCache
from minilm.models.config import Config
from minilm.nn import functional as F
from minilm.nn.recompute import recompute
from minilm.tensor import Tensor


@dataclass
class GPTConfig(Config):
    """The shape of a GPT. The defaults are GPT-2's smallest model.

    Attributes:
        vocab_size: V, how many different tokens there are.
        block_size: the context, how many tokens the model sees at once.
        n_layer: L. n_head: H. n_embd: C, a multiple of n_head.
        dropout: the share of activations dropped in training (0 to below 1).
        bias: whether Linear and LayerNorm add a bias.
        activation: "gelu" (exact) or "gelu_new" (the tanh approximation that GPT-2 was trained with).
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True
    activation: str = "gelu"

    def check(self) -> None:
        """Raise ConfigError for an impossible shape."""
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("n_embd", self.n_embd % self.n_head == 0, f"a multiple of n_head ({self.n_head})")
        self.require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        self.require("activation", self.activation in ("gelu", "gelu_new"), "'gelu' or 'gelu_new'")


class CausalSelfAttention(nn.Module):
    """Each position looks at itself and those before it, in H heads side by side: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)  # queries, keys and values in one product
        self.c_proj = nn.Linear(C, C, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """See the class. With a cache x holds only the new positions; the keys and values of the others are there."""
        qkv = self.c_attn(x)  # (B, T, 3 C)
        if cache is None:
            p = self.dropout if self.training else 0.0
            y = F.self_attention(qkv, self.n_head, dropout_p=p, is_causal=True)
        else:
            y = cache.attend(*qkv.chunk(3, -1))
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Each position by itself, through four times as many channels and back: (B, T, C) -> (B, T, C)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
        self.approximate = "tanh" if config.activation == "gelu_new" else "none"
        self.c_proj = nn.Linear(4 * C, C, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        h = F.linear_gelu(x, self.c_fc.weight, self.c_fc.bias, self.approximate)  # (B, T, 4 C)
        return self.dropout(self.c_proj(h))


class Block(nn.Module):
    """Attention, then MLP, each added to what it was given: (B, T, C) -> (B, T, C).

    x = x + attn(ln_1(x))
    x = x + mlp(ln_2(x))
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """See the class."""
        x, normed = self.ln_2(self.attn(self.ln_1(x), cache), residual=x)
        return x + self.mlp(normed)


class GPT(nn.Module):
    """The language model: tokens (B, T) -> logits (B, T, V), the scores of each next token.

    The matrix that makes embeddings of tokens also makes scores of the last layer's channels
    (`lm_head.weight` is `transformer.wte.weight`): Press & Wolf 2017.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False  # compute the blocks' activations again in the backward, and keep only their inputs
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, config.n_embd),
                "wpe": nn.Embedding(config.block_size, config.n_embd),
                "drop": nn.Dropout(config.dropout),
                "h": nn.ModuleList([Block(config) for _ in range(config.n_layer)]),
                "ln_f": nn.LayerNorm(config.n_embd, bias=config.bias),
            }
        )
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.transformer["wte"].weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """GPT-2's initial values: normal with standard deviation 0.02, biases 0.

        The layers that add to the residual stream begin smaller, by 1 / sqrt(2 L): so many additions
        leave its size as it is (Radford et al. 2019, section 2.3).
        """
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens` (B, T).

        Args:
            cache: keys and values of earlier positions, which `tokens` continue; they are added to it. It keeps
                no gradients, so it works under no_grad() only.
        Errors: ShapeError for more positions than the context has, DtypeError for what is no Tensor.
        """
        return self.lm_head(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the logits are made of, the last layer's normalised channels (B, T, C); see `forward`."""
        if not isinstance(tokens, Tensor):
            raise DtypeError(f"GPT: tokens are a Tensor of integers, not {type(tokens).__name__}; use minilm.tensor()")
        past = 0 if cache is None else cache.length
        T = tokens.shape[-1]
        if tokens.ndim != 2 or past + T > self.config.block_size:
            raise ShapeError(
                f"GPT: tokens of shape {tokens.shape} after {past} earlier ones do not fit: "
                f"(B, T) was expected with at most {self.config.block_size} positions in all"
            )
        transformer = self.transformer
        positions = Tensor(np.arange(past, past + T))
        x = transformer["drop"](transformer["wte"](tokens) + transformer["wpe"](positions))  # (B, T, C)
        for layer, block in enumerate(transformer["h"]):
            if cache is None and self.recompute and is_grad_enabled():
                x = recompute(block, x)
            else:
                x = block(x, None if cache is None else cache.layers[layer])
        return transformer["ln_f"](x)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of `targets` (B, T), each the token after that in `tokens` (B, T)."""
        x = self.hidden(tokens)
        return F.linear_cross_entropy(x.reshape(-1, x.shape[-1]), self.lm_head.weight, targets.reshape(-1))

    def new_cache(self, batch_size: int) -> KVCache:
        """An empty cache for `batch_size` sequences of this model."""
        c = self.config
        return KVCache(c.n_layer, batch_size, c.n_head, c.block_size, c.n_embd // c.n_head, self.lm_head.weight.dtype)

    def generate(self, tokens: Any, max_new_tokens: int, **settings: Any) -> Tensor:
        """`tokens` (B, T) or (T,) continued: see `minilm.generation.generate`."""
        from minilm.generation import generate

        return generate(self, tokens, max_new_tokens, **settings)

    def flops_per_token(self) -> int:
        """Multiplications and additions of a training step per token: 6 for each parameter in a product, and attention.

        Source: Chowdhery et al. 2022 (PaLM), appendix B.
        """
        c = self.config
        matrices = sum(p.numel() for p in self.parameters() if p.ndim == 2) - c.block_size * c.n_embd
        return 6 * matrices + 12 * c.n_layer * c.n_embd * c.block_size
