"""Heads with which a BERT begins its pre-training by telling whether its two segments share rare words.

    first layer    each token looks for itself in the other segment, or else at the separator there
    second layer   [CLS] looks at the tokens that have found themselves

Whether a segment follows another is decided, in few tokens, by names and rare words that both have. From random heads
a BERT comes to that only after it has learnt the words, in some ten million tokens (docs/log.md has how many). Begun
like this, its first state tells from the first step on, and what remains to be learnt is to read it. As with the heads
of `bert_start`, all are initial values only: every weight is learnt as usual, and shapes, names and files are BERT's.

D channels are kept free of positions and, but for one, of segments. Each token has a code there, signs drawn at random,
so that the product of two codes is large where the tokens are the same. Frequent tokens have smaller codes.

Source: Elhage et al. 2021, "A mathematical framework for transformer circuits" (composition of two layers' heads);
Trockman and Kolter 2023 (mimetic initialisation).

T positions, C channels, H heads, D = C / H channels of a head, V tokens.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minilm import random
from minilm.models.bert_config import BertConfig
from minilm.models.bert_heads import BertForPreTraining

Array = NDArray[Any]

# What a token's query gives for a key, before softmax: SAME for the same rare token, + OTHER in the other segment and
# - OTHER in its own, + NOTHING for a separator. So the same token, 28, is before the other separator, 22, and that
# before all else, 12 and as much as two codes have in common by chance.
SAME, OTHER, NOTHING = 16.0, 12.0, 10.0
RARE = 3e-3  # a token with a larger share of the text is less than SAME, in proportion
CODE = 1.5  # how large the codes are beside other initial values, and the same of segments and separators
SEGMENT, SEPARATOR = 4.0, 6.0
LOUDNESS = 0.8  # of what these heads give, per channel, beside states of 1
FOCUS = 9.0  # how much more of its attention [CLS] gives to a token that has found itself, as a power of e


class _Channels(NamedTuple):
    """Where the free channels are: codes of tokens, the segment, whether it is a separator."""

    codes: slice
    segment: int
    separator: int


def free_channels(config: BertConfig) -> int:
    """How many of the last channels positions leave to `match_segments`: D, or 0 for a model too small for it.

    Shorter codes than of 30 have too much in common by chance.
    """
    D = config.hidden_size // config.num_attention_heads
    return D if D >= 32 and config.num_attention_heads >= 4 and config.num_hidden_layers >= 2 else 0


def match_segments(model: BertForPreTraining, counts: Array, start_id: int, end_id: int) -> None:
    """Begin the third head of the first layer, and the first of the second, as the module says.

    Of a model that is too small, and of a text without rare tokens, nothing changes.

    Args:
        model: by `new_bert`. counts: (V,) how often each token is in the text; 0 for special ones.
        start_id, end_id: [CLS] and [SEP].
    """
    C, D = model.config.hidden_size, free_channels(model.config)
    rare = (counts > 0) & (counts <= RARE * counts.sum())
    if not D or not rare.any():
        return
    generator = random.default_generator
    channels = _Channels(slice(C - D, C - 2), C - 2, C - 1)
    _give_codes(model, counts, end_id, channels, generator)
    first: Any = model.bert.encoder.layer[0]
    second: Any = model.bert.encoder.layer[1]
    _look_for_the_same(first.attention.self, _states(model, rare), _states(model, end_id)[0], channels)
    look, away = _speak(first.attention, 2, generator), np.zeros(C)
    for segment in (0, 1):
        away += look @ _states(model, end_id, segment)[0] / 2  # what a token gets that has not found itself
    _look_at_those_without(second.attention.self, away, _states(model, start_id)[0], generator)
    _speak(second.attention, 0, generator)


def _give_codes(
    model: BertForPreTraining, counts: Array, end_id: int, at: _Channels, generator: random.Generator
) -> None:
    """Tokens' codes, and the channels of segments and separators, in the embeddings."""
    embeddings, scale = model.bert.embeddings, model.config.initializer_range
    words = embeddings.word_embeddings.weight.array
    segments = embeddings.token_type_embeddings.weight.array
    share = counts / counts.sum()
    size = np.where(counts > 0, np.minimum(1, np.sqrt(RARE / np.maximum(share, 1e-12))), 0)
    for table in (words, segments):
        table[:, at.codes.start :] = 0
    codes = words[:, at.codes]
    codes[:] = _signs(generator, codes.shape) * size[:, None] * CODE * scale
    segments[:2, at.segment] = SEGMENT * scale, -SEGMENT * scale
    words[end_id, at.separator] = SEPARATOR * scale


def _states(model: BertForPreTraining, tokens: Any, segment: int = 0) -> Array:
    """What the first layer is given of these tokens (n), in the middle of a segment: (n, C)."""
    e = model.bert.embeddings
    words = np.atleast_2d(e.word_embeddings.weight.array[tokens]).astype(np.float64)
    positions = e.position_embeddings.weight.array
    x = words + e.token_type_embeddings.weight.array[segment] + positions[len(positions) // 2]
    return np.asarray((x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))


def _look_for_the_same(attention: Any, rare: Array, separator: Array, at: _Channels) -> None:
    """The third head's queries and keys read nothing but codes, segments and separators: see SAME.

    rare: states (n, C) of rare tokens. separator: that of one (C,).
    """
    query, key = attention.query.weight.array, attention.key.weight.array
    D = len(query) // attention.heads
    rows, root = slice(2 * D, 3 * D), D**0.25  # a score is the product by the root of D
    query[rows] = key[rows] = 0
    code = np.arange(at.codes.start, at.codes.stop)
    same = math.sqrt(SAME / (rare[:, at.codes] ** 2).sum(1).mean()) * root
    query[2 * D + np.arange(len(code)), code] = key[2 * D + np.arange(len(code)), code] = same
    other = math.sqrt(OTHER) / rare[:, at.segment].mean() * root
    query[3 * D - 2, at.segment], key[3 * D - 2, at.segment] = other, -other
    attention.query.bias.array[3 * D - 1] = root  # all tokens ask for separators alike
    key[3 * D - 1, at.separator] = NOTHING / (separator[at.separator] - rare[:, at.separator].mean()) * root


def _look_at_those_without(attention: Any, away: Array, start: Array, generator: random.Generator) -> None:
    """The first head's keys read how much of `away` (C,) is in a state, and the query of `start` (C,) is against it."""
    query, key = attention.query.weight.array, attention.key.weight.array
    D = len(query) // attention.heads
    signs = _signs(generator, (D,))
    size = math.sqrt(FOCUS / math.sqrt(D))
    query[:D] = np.outer(signs, start) / (start @ start) * size
    key[:D] = -np.outer(signs, away) / (away @ away) * size


def _signs(generator: random.Generator, shape: tuple[int, ...]) -> Array:
    return np.where(generator.uniform(shape) < 0.5, -1.0, 1.0)


def _speak(attention: Any, head: int, generator: random.Generator) -> Array:
    """Random values and outputs of a head, louder than others, so that later layers hear it; their product (C, C)."""
    value, output = attention.self.value.weight.array, attention.output.dense.weight.array
    C = len(value)
    D = C // attention.self.heads
    rows, scale = slice(head * D, (head + 1) * D), math.sqrt(LOUDNESS / math.sqrt(C * D))
    value[rows] = generator.normal((D, C)) * scale
    output[:, rows] = generator.normal((C, D)) * scale
    return np.asarray(output[:, rows].astype(np.float64) @ value[rows])
