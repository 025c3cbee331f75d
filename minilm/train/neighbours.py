"""Positions that begin as waves, and heads that begin by looking at the neighbours.

Random attention gives the average of all tokens, and it takes long until some head happens to find a token beside. A
head whose queries and keys read nothing but waves finds it from the first step on. These are initial values only:
every weight is learnt as usual.

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

from minilm.models.gpt import GPT

Array = NDArray[Any]


def wave_speeds(T: int, C: int) -> Array:
    """Radians per position of C / 2 waves (C // 2,), from half a turn, the fastest there is, down to some pi / T.

    Slower ones, as those of 10000 positions, would hardly change from one end to the other.
    """
    return math.pi * float(T) ** (-np.arange(C // 2) / max(C // 2, 1))


def waves(T: int, speeds: Array) -> Array:
    """Positions (T, 2 n) of n waves: their sines, then their cosines."""
    angles = np.arange(T)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def look_at(query: Array, key: Array, offset: int, speeds: Array, sharpness: float) -> None:
    """Let a head look at the position `offset` from its own: its queries and keys read nothing but waves.

    A wave's sine and cosine, turned by speed * offset, are those of the position `offset` further on. So with keys that
    are waves, and queries that are waves turned, a query t and a key s have the product

        sharpness ** 2 * (sum of cos(speed * (t + offset - s)))

    which is largest at s = t + offset. The head takes D / 2 waves, all of the faster half, which tell neighbours
    apart. What else is in the layer's input is noise to it.

    Args:
        query, key: the head's rows of the weights, (D, C), written to; the first channels are waves.
        offset: -1 for the token before, 1 for the one behind.
    """
    n, (D, C) = len(speeds), query.shape
    chosen = np.arange(D // 2) * max(n // 2, 1) // max(D // 2, 1)
    sine, cosine = (np.eye(C)[chosen + at] for at in (0, n))  # (D / 2, C) each: which channel is read
    turn = (speeds[chosen] * offset)[:, None]
    turned = np.cos(turn) * sine + np.sin(turn) * cosine, np.cos(turn) * cosine - np.sin(turn) * sine
    query[: D // 2 * 2] = sharpness * np.concatenate(turned)
    key[: D // 2 * 2] = sharpness * np.concatenate([sine, cosine])


BACKWARDS = 2.5  # the sharpness of a GPT's heads


def look_back(model: GPT, count: int) -> None:
    """Begin a GPT with waves as positions, and the first layer's first heads looking 1, 2, ... `count` tokens back."""
    config, shapes = model.config, model.transformer
    T, C, D = config.block_size, config.n_embd, config.n_embd // config.n_head
    speeds = wave_speeds(T, C)
    positions = shapes["wpe"].weight.array
    # The mean square of waves is 1 / 2: positions are as large as their random values were.
    positions[:, : 2 * len(speeds)] = waves(T, speeds) * positions.std() * math.sqrt(2)
    first: Any = shapes["h"]
    maps = first[0].attn.c_attn.weight.array  # queries, keys and values, (3 C, C)
    for head in range(count):
        rows = slice(head * D, (head + 1) * D)
        look_at(maps[:C][rows], maps[C : 2 * C][rows], -1 - head, speeds, BACKWARDS)
