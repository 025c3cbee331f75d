"""What a BERT begins its pre-training with: positions as waves, and heads that look at the neighbours.

Where a token is hidden its place holds nothing of it, so all that can be learnt about it comes through attention, and
random attention gives the average of all tokens. A GPT learns pairs of tokens without attention, and goes on from
there; a BERT says little more than the frequencies until some head happens to find the token beside. Here two heads
of the first layer find it from the first step on. All are initial values only: every weight is learnt as usual, and
shapes, names and files are BERT's.

T positions, C channels, H heads, D = C / H channels of a head.
"""

from __future__ import annotations

import math
from typing import Any

from minilm.models.bert_config import BertConfig
from minilm.models.bert_heads import BertForPreTraining
from minilm.train.bert_matching import free_channels
from minilm.train.neighbours import look_at, wave_speeds, waves

NEIGHBOURS = (-1, 1)  # what the first layer's first heads look at, from where they are
# Words and segments are two thirds of the layer's input. With this a head gives the neighbour a third to a half of its
# attention, which leaves a gradient to all.
SHARPNESS = 1.5


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
    attention, D = first.attention.self, C // config.num_attention_heads
    for head, offset in enumerate(NEIGHBOURS[: config.num_attention_heads // 2]):
        rows = slice(head * D, (head + 1) * D)
        look_at(attention.query.weight.array[rows], attention.key.weight.array[rows], offset, speeds, SHARPNESS)
    return model
