"""compare() on attention of both libraries, minilm's own GPT, and models whose modules do not pair off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minilm as ml
from minilm import nn
from minilm.testing import compare

C, H, T, B, V = 8, 2, 5, 3, 11
RNG = np.random.default_rng(7)
X = RNG.standard_normal((B, T, C)).astype(np.float32)
TOKENS = RNG.integers(0, V, (B, T))


def beside(torch: Any, ours: Any, theirs: Any) -> Any:
    return compare(ours, theirs, TOKENS, weights="ours")


def test_values_are_recorded_before_they_are_changed_in_place(torch: Any) -> None:
    def model(m: Any, factor: float) -> Any:
        class Changing(m.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first, self.last = m.nn.Linear(C, C), m.nn.Linear(C, C)

            def forward(self, x: Any) -> Any:
                h = self.first(x)
                h.mul_(factor)
                return self.last(h)

        return Changing()

    report = compare(model(ml, 1.0), model(torch, 2.0), X)
    assert (report.first.kind, report.first.name) == ("input", "last [0]")
    assert report.rows[0].name == "first"
    assert report.rows[0].agrees


def test_where_as_a_mask(torch: Any) -> None:
    def model(m: Any, allowed: Any) -> Any:
        class Scores(m.nn.Module):
            def forward(self, x: Any) -> Any:
                scores = x @ x.transpose(-2, -1)
                return m.where(m.tensor(allowed), scores, -math.inf).softmax(-1) @ x

        return Scores()

    allowed = np.tri(T, dtype=bool)
    allowed[2, 3] = True
    report = compare(model(ml, allowed), model(torch, allowed.T | np.eye(T, dtype=bool)), X)
    assert report.explanation.cause == "mask"
    assert report.explanation.label == "the mask transposed"
    hidden = ~allowed | np.eye(T, dtype=bool)
    assert compare(model(ml, hidden), model(torch, hidden), X).agrees


def test_multihead_attention_of_both_libraries(torch: Any) -> None:
    def model(m: Any, negated: bool) -> Any:
        class Looks(m.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = m.nn.MultiheadAttention(C, H, dropout=0.2, batch_first=True)

            def forward(self, x: Any) -> Any:
                hidden = ~np.tri(T, dtype=bool)
                return self.attention(x, x, x, attn_mask=m.tensor(hidden.T.copy() if negated else hidden))[0]

        return Looks()

    assert compare(model(ml, False), model(torch, False), X, steps=1).agrees
    ours, theirs = model(ml, False).eval(), model(torch, True).eval()
    report = compare(ours, theirs, X)
    assert report.first.kind == "input"
    theirs = model(torch, False).eval()
    theirs.attention.head_dim, before = 4, theirs.attention.in_proj_weight
    assert compare(ours, theirs, X).agrees
    assert theirs.attention.in_proj_weight is before


def test_modules_on_one_side_only_are_listed(torch: Any) -> None:
    class Skipping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(C, C)

        def forward(self, x: Any) -> Any:
            return torch.nn.functional.linear(x, self.layer.weight, self.layer.bias)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(C, C)

        def forward(self, x: Any) -> Any:
            return self.layer(x)

    report = compare(Plain(), Skipping(), X)
    assert report.agrees
    assert report.only_ours == ["layer"]
    assert "called on minilm's side only, not compared: layer" in str(report)


def test_minilms_own_gpt_beside_one_by_hand(torch: Any) -> None:
    from minilm.models import GPT, GPTConfig

    config = GPTConfig(vocab_size=V, block_size=T, n_layer=2, n_head=H, n_embd=C, activation="gelu_new")
    ours, theirs = GPT(config), torch_gpt(torch, config, "tanh")
    for block in ours.transformer["h"]:
        block.mlp.c_fc.weight.data = block.mlp.c_fc.weight.data * 30  # where the two forms of GELU differ most
    assert beside(torch, ours, theirs).agrees
    report = beside(torch, ours, torch_gpt(torch, config, "none"))
    assert report.explanation.cause == "GELU's form"
    assert report.explanation.text.startswith(
        "what transformer.h.0.mlp.c_proj is given, computed in transformer.h.0.mlp"
    )


def torch_gpt(torch: Any, config: Any, approximate: str) -> Any:
    """GPT-2 in PyTorch, with the names of minilm.models.GPT."""
    lib, F = torch.nn, torch.nn.functional

    class Attention(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn, self.c_proj = lib.Linear(C, 3 * C), lib.Linear(C, C)

        def forward(self, x: Any) -> Any:
            q, k, v = (part.reshape(B, T, H, C // H).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(y.transpose(1, 2).reshape(B, T, C))

    class MLP(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_fc, self.c_proj = lib.Linear(C, 4 * C), lib.Linear(4 * C, C)

        def forward(self, x: Any) -> Any:
            return self.c_proj(F.gelu(self.c_fc(x), approximate=approximate))

    class Block(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.attn, self.ln_2, self.mlp = lib.LayerNorm(C), Attention(), lib.LayerNorm(C), MLP()

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Model(lib.Module):
        def __init__(self) -> None:
            super().__init__()
            parts = {"wte": lib.Embedding(V, C), "wpe": lib.Embedding(T, C), "ln_f": lib.LayerNorm(C)}
            self.transformer = lib.ModuleDict({**parts, "h": lib.ModuleList([Block(), Block()])})
            self.lm_head = lib.Linear(C, V, bias=False)
            self.lm_head.weight = self.transformer["wte"].weight

        def forward(self, tokens: Any) -> Any:
            x = self.transformer["wte"](tokens) + self.transformer["wpe"](torch.arange(T))
            for block in self.transformer["h"]:
                x = block(x)
            return self.lm_head(self.transformer["ln_f"](x))

    return Model()


def test_rounding_errors_that_adam_makes_steps_of_are_no_difference(torch: Any) -> None:
    """What is added to all keys alike does not change softmax: the gradient of a key's bias is 0 but for rounding."""

    def model(m: Any) -> Any:
        class Attention(m.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.q, self.k, self.v = m.nn.Linear(C, C), m.nn.Linear(C, C), m.nn.Linear(C, C)

            def forward(self, x: Any) -> Any:
                return m.nn.functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))

        return Attention()

    makers = (lambda p: ml.optim.AdamW(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.1))
    ours, theirs = model(ml), model(torch)
    report = compare(ours, theirs, X, steps=5, optimizer=makers)
    assert report.agrees, report.conclusion
    row = next(row for row in report.rows if (row.kind, row.name) == ("gradient", "k.bias"))
    assert row.error > 1e-2  # of its own size; what counts is the largest gradient of the model
    theirs.k.bias.data += 0.1
    report = compare(ours, theirs, X, steps=1, optimizer=makers, weights=None)
    assert (report.first.kind, report.first.name) == ("weight", "k.bias")
