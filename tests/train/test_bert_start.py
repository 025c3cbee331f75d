"""What a BERT begins with: positions as waves, and heads that look at the neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from minilm import random
from minilm.models import BertConfig, BertForPreTraining
from minilm.modes import no_grad
from minilm.tensor import Tensor
from minilm.train.bert_start import new_bert

V, T = 500, 40


def shape(C, heads, **more):
    sizes = {"vocab_size": V, "hidden_size": C, "num_attention_heads": heads, "intermediate_size": 2 * C}
    return BertConfig(**sizes, num_hidden_layers=2, max_position_embeddings=T, **more)


def looks(model, distances):
    """How much of its attention each head of the first layer gives to each distance, (H, len(distances))."""
    tokens = np.random.default_rng(0).integers(5, V, (16, T))
    model.eval()
    with no_grad():
        weights = model.bert(Tensor(tokens), output_attentions=True).attentions[0].numpy()
    return np.stack([weights.diagonal(d, 2, 3).mean((0, 2)) for d in distances], 1)


@pytest.mark.parametrize(("C", "heads"), [(256, 4), (128, 4), (128, 8), (90, 6)])
def test_two_heads_look_at_the_neighbours_and_the_others_at_all(C, heads):
    random.manual_seed(0)
    found = looks(new_bert(shape(C, heads, initializer_range=0.02)), range(-4, 5))
    assert found[0].argmax() == 3  # the token before
    assert found[1].argmax() == 5  # the one behind
    assert (found[0, 3] > 5 / T, found[1, 5] > 5 / T) == (True, True)
    np.testing.assert_allclose(found[2:], 1 / T, rtol=0.5)


@pytest.mark.parametrize(("heads", "sharp"), [(1, 0), (2, 1), (4, 2)])
def test_half_of_the_heads_are_left_as_they_are(heads, sharp):
    found = looks(new_bert(shape(128, heads)), (-1, 1))
    assert (found.max(1) > 3 / T).sum() == sharp


def test_no_other_weight_is_touched():
    random.manual_seed(3)
    plain = BertForPreTraining(shape(64, 4)).state_dict()
    random.manual_seed(3)
    begun = new_bert(shape(64, 4)).state_dict()
    changed = {name for name, tensor in begun.items() if not np.array_equal(tensor.numpy(), plain[name].numpy())}
    attention = "bert.encoder.layer.0.attention.self"
    assert changed == {
        "bert.embeddings.position_embeddings.weight",
        f"{attention}.query.weight",
        f"{attention}.key.weight",
    }
    for name in ("query", "key"):  # D is 16: the first two heads are the first 32 rows
        key = f"{attention}.{name}.weight"
        np.testing.assert_array_equal(begun[key].numpy()[32:], plain[key].numpy()[32:])
