"""What a BERT begins its pre-training with: positions as waves, and heads that look at the neighbours.

Where a token is hidden its place holds nothing of it, so all that can be learnt about it comes through attention, and
random attention gives the average of all tokens. A GPT learns pairs of tokens without attention, and goes on from
there; a BERT says little more than the frequencies until some head happens to find the token beside. Here two heads
of the first layer find it from the first step on. All are initial values only: every weight is learnt as usual, and
shapes, names and files are BERT's.

Sources: sines and cosines, and that a shift rotates them: Vaswani et al. 2017, section 3.5. Initial queries and
keys that give attention the form which it has in trained models: Trockman and Kolter 2023 (mimetic initialisation).
That trained models have heads which look at the token before or behind: Clark et al. 2019, section 3.1.

T positions, C channels, H heads, D = C / H channels of a head.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.models.bert import BertSelfAttention
from minilm.models.bert_config import BertConfig
from minilm.models.bert_heads import BertForPreTraining
from minilm.train.bert_matching import free_channels

Array = NDArray[Any]

NEIGHBOURS = (-1, 1)  # what the first layer's first heads look at, from where they are
SHARPNESS = 1.5  # of these heads; see look_at


def new_bert(config: BertConfig) -> BertForPreTraining:
    """A BERT to be trained; only its positions and up to two heads of the first layer begin otherwise than at random.

    The other heads are left as they are, at least half. What `match_segments` needs is left free of positions.
    """
    model = BertForPreTraining(config)
    T, C = config.max_position_embeddings, config.hidden_size
    speeds = wave_speeds(T, C - free_channels(config))
    # The mean square of waves is 1 / 2, so that positions are as large as their random values would be.
    positions = model.bert.embeddings.position_embeddings.weight.array
    positions[:, C - free_channels(config) :] = 0
    positions[:, : 2 * len(speeds)] = waves(T, speeds) * config.initializer_range * math.sqrt(2)
    first: Any = model.bert.encoder.layer[0]
    for head, offset in enumerate(NEIGHBOURS[: config.num_attention_heads // 2]):
        look_at(first.attention.self, head, offset, speeds)
    return model


def wave_speeds(T: int, C: int) -> Array:
    """Radians per position of C / 2 waves (C // 2,), from half a turn, the fastest there is, down to some pi / T.

    Slower ones, as those of 10000 positions, would hardly change from one end to the other.
    """
    return math.pi * float(T) ** (-np.arange(C // 2) / max(C // 2, 1))


def waves(T: int, speeds: Array) -> Array:
    """Positions (T, 2 n) of n waves: their sines, then their cosines."""
    angles = np.arange(T)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def look_at(attention: BertSelfAttention, head: int, offset: int, speeds: Array) -> None:
    """Let a head look at the position `offset` from its own: its queries and keys read nothing but waves.

    A wave's sine and cosine, turned by speed * offset, are those of the position `offset` further on. So with keys that
    are waves, and queries that are waves turned, a query t and a key s have the product

        SHARPNESS ** 2 * (sum of cos(speed * (t + offset - s)))

    which is largest at s = t + offset. The head takes D / 2 waves, all of the faster half, which tell neighbours
    apart. Of the layer's input, normalised, words and segments are the other two thirds: they are noise to it. With a
    SHARPNESS of 1.5 the head gives the neighbour a third to a half of its attention, which leaves a gradient to all.

    Args:
        offset: -1 for the token before, 1 for the one behind.
    """
    query, key = attention.query.weight.array, attention.key.weight.array
    n, D = len(speeds), len(query) // attention.heads
    rows = slice(head * D, head * D + D // 2 * 2)
    chosen = np.arange(D // 2) * max(n // 2, 1) // max(D // 2, 1)
    sine, cosine = (np.eye(query.shape[1])[chosen + at] for at in (0, n))  # (D / 2, C) each: which channel is read
    turn = (speeds[chosen] * offset)[:, None]
    turned = np.cos(turn) * sine + np.sin(turn) * cosine, np.cos(turn) * cosine - np.sin(turn) * sine
    query[rows] = SHARPNESS * np.concatenate(turned)
    key[rows] = SHARPNESS * np.concatenate([sine, cosine])
