"""Fixed positions: the paper's waves, Hugging Face's order of them, and a state that is not learnt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError
from minilm.testing import assert_same


@pytest.mark.parametrize("C", [6, 7])
def test_waves_are_those_of_the_paper(C: int) -> None:
    positions = nn.SinusoidalPositions(5, C, dtype="float64")
    for t in range(5):
        for channel in range(C):
            wave = math.cos if channel % 2 else math.sin
            expected = wave(t / 10000 ** (2 * (channel // 2) / C))
            assert positions.weight.array[t, channel] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("C", [6, 7])
def test_the_other_order_is_marians(torch: Any, transformers: Any, C: int) -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    theirs = MarianSinusoidalPositionalEmbedding(5, C).create_weight().numpy()
    assert_same(nn.SinusoidalPositions(5, C, interleaved=False).weight, theirs, rtol=1e-6, atol=1e-7)


def test_they_are_called_as_an_embedding_and_not_learnt() -> None:
    positions = nn.SinusoidalPositions(5, 4)
    assert positions(ml.tensor([[3, 1]])).shape == (1, 2, 4)
    assert_same(positions(ml.tensor([3])), positions.weight.array[3:4], rtol=0)
    assert not list(positions.parameters())
    assert list(positions.state_dict()) == ["weight"]
    assert positions.weight.dtype == np.float32
    with pytest.raises(IndexError, match="5 to 5"):
        positions(ml.tensor([5]))
    with pytest.raises(ConfigError, match="not 0 and 4"):
        nn.SinusoidalPositions(0, 4)


def test_a_step_is_one_rotation_wherever_it_begins() -> None:
    waves = nn.SinusoidalPositions(50, 8, dtype="float64").weight.array
    step, *_ = np.linalg.lstsq(waves[:20], waves[3:23], rcond=None)
    assert_same(waves[20:47] @ step, waves[23:50], rtol=0, atol=1e-10)
    assert_same(step @ step.T, np.eye(8), rtol=0, atol=1e-8)
