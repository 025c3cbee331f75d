"""Heads that begin by telling whether two segments share rare words."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import random
from minilm.models import BertConfig
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.train.bert_matching import free_channels, match_segments
from minilm.train.bert_start import new_bert

V, T = 800, 64
CLS, SEP, FIRST = 2, 3, 5  # tokens before FIRST are special
COMMON = 20  # the tokens from FIRST to there are most of the text


def shape(C=256, heads=4, layers=2):
    sizes = {"vocab_size": V, "hidden_size": C, "num_attention_heads": heads, "intermediate_size": 2 * C}
    return BertConfig(**sizes, num_hidden_layers=layers, max_position_embeddings=T, initializer_range=0.035)


def counts():
    found = np.ones(V, np.int64)
    found[FIRST:COMMON] = 500
    found[:FIRST] = 0
    return found


def begun(config, seed=0):
    random.manual_seed(seed)
    model = new_bert(config)
    match_segments(model, counts(), CLS, SEP)
    return model.eval()


def pair(shared):
    """Tokens and segments (1, T) of 30 and 31 rare words; the words at places 1 ... `shared` of B are A's, too."""
    words = np.random.default_rng(1).permutation(np.arange(COMMON, V))[:61]
    words[30 : 30 + shared] = words[:shared]
    tokens = np.concatenate([[CLS], words[:30], [SEP], words[30:], [SEP]])[None]
    return tokens, (np.arange(T) > 31).astype(np.int64)[None]


def attentions(model, tokens, segments):
    """Of both layers, each (H, T, T)."""
    with no_grad():
        found = model.bert(Tensor(tokens), token_type_ids=Tensor(segments), output_attentions=True).attentions
    return [weights.numpy()[0] for weights in found]


@pytest.mark.parametrize(("C", "heads"), [(256, 4), (256, 8), (192, 4)])
def test_a_rare_token_looks_at_itself_in_the_other_segment_or_at_its_separator(C, heads):
    first, _ = attentions(begun(shape(C, heads)), *pair(shared=5))
    head, a, b = first[2], np.arange(1, 31), np.arange(32, 63)
    both = [(a[:5], b[:5], a[5:], 63), (b[:5], a[:5], b[5:], 31)]
    for here, there, alone, separator in both:
        assert np.median(head[here, there]) > 0.8
        assert np.median(head[alone, separator]) > 0.8
        assert head[np.ix_(here, here)].max() < 0.05  # not at itself


def test_frequent_tokens_are_not_looked_for():
    tokens, segments = pair(shared=0)
    tokens[0, [1, 32]] = FIRST
    first, _ = attentions(begun(shape()), tokens, segments)
    assert first[2][32, 1] < 0.2
    assert first[2][32, 31] > 0.5


def test_the_first_token_looks_at_those_that_have_found_themselves():
    tokens, segments = pair(shared=5)
    _, second = attentions(begun(shape()), tokens, segments)
    start = second[0][0]
    shared = np.r_[1:6, 32:37]
    alone = np.r_[6:31, 37:63]
    assert start[shared].min() > 2 * start[alone].max()
    assert start[shared].mean() > 5 * start[alone].mean()


def test_its_state_tells_how_many_are_shared():
    model, states = begun(shape()), []
    for shared in (0, 2, 8):
        tokens, segments = pair(shared)
        with no_grad():
            states.append(model.bert(Tensor(tokens), token_type_ids=Tensor(segments)).last_hidden_state.numpy()[0, 0])
    none, few, many = states
    assert np.linalg.norm(few - none) > 2
    assert np.linalg.norm(many - none) > 1.3 * np.linalg.norm(few - none)


@pytest.mark.parametrize(("C", "heads", "layers"), [(64, 4, 2), (256, 2, 2), (256, 4, 1)])
def test_small_models_are_left_as_they_are(C, heads, layers):
    config = shape(C, heads, layers)
    assert free_channels(config) == 0
    random.manual_seed(2)
    before = {name: tensor.numpy().copy() for name, tensor in new_bert(config).state_dict().items()}
    after = begun(config, seed=2).state_dict()
    assert all(np.array_equal(before[name], tensor.numpy()) for name, tensor in after.items())


def test_of_a_text_without_rare_tokens_nothing_changes():
    model = new_bert(shape())
    before = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    few = np.where(np.arange(V) < COMMON, 100, 0)
    match_segments(model, few, CLS, SEP)
    after = model.state_dict()
    assert all(np.array_equal(before[name], tensor.numpy()) for name, tensor in after.items())


def test_no_other_head_is_touched():
    random.manual_seed(3)
    before = {name: tensor.numpy().copy() for name, tensor in new_bert(shape()).state_dict().items()}
    after = {name: tensor.numpy() for name, tensor in begun(shape(), seed=3).state_dict().items()}
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    layer = "bert.encoder.layer.{}.attention"
    embeddings = {f"bert.embeddings.{name}_embeddings.weight" for name in ("word", "token_type")}
    heads = {f"{layer.format(n)}.self.{name}.weight" for n in (0, 1) for name in ("query", "key", "value")}
    outputs = {f"{layer.format(n)}.output.dense.weight" for n in (0, 1)}
    tied = {"cls.predictions.decoder.weight"}  # the same as the words' embeddings
    assert changed - tied == embeddings | heads | outputs | {f"{layer.format(0)}.self.query.bias"}
    for n, rows in ((0, slice(128, 192)), (1, slice(0, 64))):
        for name in ("query", "key", "value"):
            key = f"{layer.format(n)}.self.{name}.weight"
            others = np.delete(np.arange(256), rows)
            np.testing.assert_array_equal(before[key][others], after[key][others])
        key = f"{layer.format(n)}.output.dense.weight"
        np.testing.assert_array_equal(before[key][:, others], after[key][:, others])
