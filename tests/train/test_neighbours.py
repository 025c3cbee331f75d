"""Positions that begin as waves, and a GPT's heads that begin by looking back."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import random
from minilm.errors import ConfigError
from minilm.models import GPT, GPTConfig
from minilm.modes import no_grad
from minilm.nn import functional as F
from minilm.tensor import Tensor
from minilm.train import TrainConfig
from minilm.train.neighbours import look_back, wave_speeds, waves
from minilm.train.run import new_run

T, V = 40, 50


def gpt(count, C=64, heads=4):
    random.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=V, block_size=T, n_layer=2, n_head=heads, n_embd=C, bias=False))
    if count:
        look_back(model, count)
    return model.eval()


def looks(model):
    """How much of its attention each head of the first layer gives to 0, 1, ... 5 tokens back, (H, 6)."""
    tokens = np.random.default_rng(0).integers(0, V, (16, T))
    shapes, heads = model.transformer, model.config.n_head
    with no_grad():
        x = shapes["wte"](Tensor(tokens)) + shapes["wpe"](Tensor(np.arange(T)))
        qkv = shapes["h"][0].attn.c_attn(shapes["h"][0].ln_1(x))
        q, k, _ = qkv.reshape(16, T, 3, heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(2, 3)).numpy() / np.sqrt(q.shape[-1])
        weights = F.softmax(Tensor(np.where(np.tri(T, dtype=bool), scores, -np.inf)), -1).numpy()
    return np.stack([weights.diagonal(-back, 2, 3).mean((0, 2)) for back in range(6)], 1)


@pytest.mark.parametrize(("C", "heads"), [(64, 4), (76, 4), (128, 4), (128, 8)])
def test_each_head_looks_so_many_tokens_back(C, heads):
    found = looks(gpt(4, C, heads))
    for head in range(4):
        assert found[head].argmax() == head + 1
        assert found[head, head + 1] > 0.25
    assert (found[4:] < 0.25).all()


def test_other_heads_and_layers_are_left_as_they_are():
    plain, begun = (gpt(count).state_dict() for count in (0, 2))
    changed = {name for name, tensor in begun.items() if not np.array_equal(tensor.numpy(), plain[name].numpy())}
    maps = "transformer.h.0.attn.c_attn.weight"
    assert changed == {"transformer.wpe.weight", maps}
    same = np.r_[32:64, 64 + 32 : 192]  # D is 16: two heads are 32 rows, of queries and of keys
    np.testing.assert_array_equal(begun[maps].numpy()[same], plain[maps].numpy()[same])
    assert begun["transformer.wpe.weight"].numpy().std() == pytest.approx(0.02, rel=0.1)


def test_a_run_begins_with_them(tmp_path):
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 200)
    shape = {"model.n_embd": 64, "model.n_layer": 1, "model.block_size": 16, "steps": 1}
    plain, begun = (
        new_run(tmp_path / "text.txt", tmp_path / str(count), TrainConfig.build(None, {**shape, "looking_back": count}))
        for count in (0, 3)
    )
    maps = "transformer.h.0.attn.c_attn.weight"
    found = [trainer.model.state_dict()[maps].numpy() for trainer, _ in (plain, begun)]
    assert (found[0][:48] != found[1][:48]).any()
    np.testing.assert_array_equal(found[0][48:64], found[1][48:64])


@pytest.mark.parametrize("count", [-1, 5])
def test_no_more_heads_look_back_than_there_are(count):
    with pytest.raises(ConfigError, match="looking_back must be from 0 to the model's heads"):
        TrainConfig.build(None, {"looking_back": count})


def test_a_shift_is_the_same_rotation_everywhere():
    speeds = wave_speeds(T, 16)
    assert speeds[0] == pytest.approx(np.pi)
    assert np.pi / T < speeds[-1] < 2 * np.pi / T
    at = waves(T, speeds)
    turn = np.zeros((16, 16))
    pairs = np.arange(8)
    turn[pairs, pairs] = turn[pairs + 8, pairs + 8] = np.cos(speeds)
    turn[pairs, pairs + 8], turn[pairs + 8, pairs] = np.sin(speeds), -np.sin(speeds)
    np.testing.assert_allclose(at[:-1] @ turn.T, at[1:], atol=1e-12)
