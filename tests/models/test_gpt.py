"""GPT against a twin in PyTorch, and what must hold of it by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minilm as ml
from minilm import optim
from minilm.errors import AutogradError, ConfigError, DtypeError, ShapeError
from minilm.models import GPT, GPTConfig
from minilm.testing import assert_same

SHAPE = {"vocab_size": 13, "block_size": 7, "n_layer": 2, "n_head": 2, "n_embd": 10}
B, T = 3, 7


def build(dtype="float64", seed=0, **settings) -> GPT:
    ml.manual_seed(seed)
    model = GPT(GPTConfig(**{**SHAPE, **settings}))
    for name, parameter in model.named_parameters():
        # biases and norms off their round initial values, so that a dropped one is seen
        if parameter.ndim == 1:
            parameter.array[...] += np.random.default_rng(len(name)).normal(size=parameter.shape) * 0.1
    return model.to(dtype)


def batch(seed=0, V=13):
    rng = np.random.default_rng(seed)
    return rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))


def twin(torch, config: GPTConfig):
    """The same model, written in PyTorch with PyTorch's own layers and GPT-2's names."""
    nn, F = torch.nn, torch.nn.functional
    C, H = config.n_embd, config.n_head

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_attn = nn.Linear(C, 3 * C, bias=config.bias)
            self.c_proj = nn.Linear(C, C, bias=config.bias)

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (p.view(b, t, H, C // H).transpose(1, 2) for p in self.c_attn(x).split(C, -1))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.c_proj(y.transpose(1, 2).reshape(b, t, C))

    class MLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_fc = nn.Linear(C, 4 * C, bias=config.bias)
            self.c_proj = nn.Linear(4 * C, C, bias=config.bias)

        def forward(self, x):
            approximate = "tanh" if config.activation == "gelu_new" else "none"
            return self.c_proj(F.gelu(self.c_fc(x), approximate=approximate))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1, self.attn = nn.LayerNorm(C, bias=config.bias), Attention()
            self.ln_2, self.mlp = nn.LayerNorm(C, bias=config.bias), MLP()

        def forward(self, x):
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp(self.ln_2(x))

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = nn.ModuleDict(
                {
                    "wte": nn.Embedding(config.vocab_size, C),
                    "wpe": nn.Embedding(config.block_size, C),
                    "h": nn.ModuleList([Block() for _ in range(config.n_layer)]),
                    "ln_f": nn.LayerNorm(C, bias=config.bias),
                }
            )
            self.lm_head = nn.Linear(C, config.vocab_size, bias=False)
            self.lm_head.weight = self.transformer["wte"].weight

        def forward(self, tokens):
            t = self.transformer
            x = t["wte"](tokens) + t["wpe"](torch.arange(tokens.shape[1]))
            for block in t["h"]:
                x = block(x)
            return self.lm_head(t["ln_f"](x))

    return Twin()


def pair(torch, dtype="float64", **settings):
    ours = build(dtype, **settings)
    theirs = twin(torch, ours.config).to(getattr(torch, dtype))
    weights = {name: torch.from_numpy(t.array.copy()) for name, t in ours.state_dict().items()}
    theirs.load_state_dict(weights)  # strict: the names and shapes are the same
    return ours, theirs


def losses(torch, ours, theirs, x, y):
    logits = theirs(torch.from_numpy(x))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten())
    return ours.loss(ml.tensor(x), ml.tensor(y)), loss, ours(ml.tensor(x)), logits


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"activation": "gelu_new"}], ids=str)
def test_logits_loss_and_every_gradient_equal_pytorchs(torch, settings):
    ours, theirs = pair(torch, **settings)
    loss, their_loss, logits, their_logits = losses(torch, ours, theirs, *batch())
    assert_same(logits, their_logits.detach().numpy(), rtol=1e-10)
    assert_same(loss, their_loss.detach().numpy(), rtol=1e-11)
    loss.backward()
    their_loss.backward()
    names = [name for name, _ in ours.named_parameters()]
    assert names == [name for name, _ in theirs.named_parameters()]
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert_same(p.grad, q.grad.numpy(), rtol=1e-9, name=name)


def test_twenty_steps_of_adamw_equal_pytorchs(torch):
    ours, theirs = pair(torch)
    settings = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
    optimizer = optim.AdamW(ours.parameters(), **settings)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), **settings)
    for step in range(20):
        loss, their_loss, *_ = losses(torch, ours, theirs, *batch(step))
        for opt, value in ((optimizer, loss), (their_optimizer, their_loss)):
            opt.zero_grad()
            value.backward()
        optim.clip_grad_norm_(ours.parameters(), 1.0)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()
        their_optimizer.step()
        assert_same(loss, their_loss.detach().numpy(), rtol=1e-8, name=f"loss of step {step}")
    for (name, p), q in zip(ours.named_parameters(), theirs.named_parameters()):
        assert_same(p, q[1].detach().numpy(), rtol=1e-6, name=name)


def test_float32_stays_near_float64(torch):
    ours, theirs = pair(torch, "float32")
    _, _, logits, their_logits = losses(torch, ours, theirs, *batch())
    assert logits.dtype == ml.float32
    assert_same(logits, their_logits.detach().numpy(), rtol=1e-4)


def test_a_future_token_cannot_move_past_logits():
    model, (x, _) = build(), batch()
    before = model(ml.tensor(x)).array
    for t in range(1, T):
        changed = x.copy()
        changed[:, t:] = (changed[:, t:] + 1) % 13
        after = model(ml.tensor(changed)).array
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (after[:, t] != before[:, t]).any()


def test_a_row_does_not_depend_on_the_others():
    model, (x, _) = build(), batch()
    assert_same(model(ml.tensor(x)).array[1:2], model(ml.tensor(x[1:2])), rtol=1e-12)


@pytest.mark.parametrize("parts", [(1,) * 7, (3, 4), (2, 1, 4), (7,)])
def test_with_a_cache_the_logits_are_those_of_the_whole(parts):
    model, (x, _) = build(), batch()
    whole = model(ml.tensor(x))
    cache, found, at = model.new_cache(B), [], 0
    with ml.no_grad():
        for length in parts:
            found.append(model(ml.tensor(x[:, at : at + length]), cache).array)
            at += length
    assert_same(np.concatenate(found, axis=1), whole, rtol=1e-12)
    assert cache.length == T
    with pytest.raises(ShapeError, match="after 7 earlier ones"):
        model(ml.tensor(x[:, :1]), cache)


def test_the_embedding_and_the_last_layer_are_one():
    model = build()
    assert model.lm_head.weight is model.transformer["wte"].weight
    state = model.state_dict()
    assert {"lm_head.weight", "transformer.wte.weight", "transformer.h.1.attn.c_attn.weight"} <= set(state)
    assert sum(p is model.lm_head.weight for p in model.parameters()) == 1


def test_initial_values():
    ml.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=101, block_size=16, n_layer=2, n_head=2, n_embd=64))
    for name, p in model.named_parameters():
        if name.endswith("c_proj.weight"):
            assert p.array.std() == pytest.approx(0.01, rel=0.1)  # 0.02 / sqrt(2 * 2)
        elif p.ndim == 2:
            assert p.array.std() == pytest.approx(0.02, rel=0.1)
        else:
            assert (p.array == (0 if name.endswith("bias") else 1)).all()
    x, y = batch(V=101)
    assert model.loss(ml.tensor(x), ml.tensor(y)).item() == pytest.approx(math.log(101), abs=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_embd": 10, "n_head": 3}, r"n_embd must be a multiple of n_head \(3\), not 10"),
        ({"n_layer": 0}, "n_layer must be at least 1, not 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"activation": "swish"}, "activation must be 'gelu' or 'gelu_new', not 'swish'"),
        ({"n_layer": 2.5}, r"n_layer must be a whole number, not 2.5"),
        ({"bias": "yes"}, "bias must be true or false, not 'yes'"),
    ],
)
def test_impossible_shapes_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        GPTConfig(**{**SHAPE, **settings})


def test_unknown_keys_are_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"unknown key 'n_layers' \(did you mean 'n_layer'\?\)"):
        GPTConfig.from_dict({"n_layers": 2})
    assert GPTConfig.from_dict(GPTConfig(**SHAPE).to_dict()) == GPTConfig(**SHAPE)


def test_more_positions_than_the_context_are_refused():
    with pytest.raises(ShapeError, match=r"\(1, 8\) after 0 earlier ones do not fit: .* at most 7 positions"):
        build()(ml.tensor(np.zeros((1, 8), int)))


def test_dropout_is_drawn_anew_in_training_and_off_in_evaluation():
    model, (x, _) = build(dropout=0.3), batch()
    first, second = model(ml.tensor(x)).array, model(ml.tensor(x)).array
    assert (first != second).any()
    model.eval()
    np.testing.assert_array_equal(model(ml.tensor(x)).array, model(ml.tensor(x)).array)


def test_a_cache_refuses_gradients_and_other_batches_before_it_changes():
    model, (x, _) = build(), batch()
    cache = model.new_cache(2)
    with pytest.raises(AutogradError, match="keeps no gradients; use it under no_grad"):
        model(ml.tensor(x[:2]), cache)
    with ml.no_grad():
        with pytest.raises(ShapeError, match=r"made for 2 sequences .* keys of shape \(3, 7, 10\)"):
            model(ml.tensor(x), cache)
        assert {layer.length for layer in cache.layers} == {0}
        assert_same(model(ml.tensor(x[:2]), cache), model(ml.tensor(x[:2])), rtol=1e-12)


def test_what_is_no_tensor_is_refused():
    with pytest.raises(DtypeError, match="tokens are a Tensor of integers, not list"):
        build()([[1, 2]])
