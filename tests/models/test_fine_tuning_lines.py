"""The lines with which Hugging Face's users fine-tune BERT, run by both: the imports differ, the losses do not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from minilm import random
from minilm.models import BertConfig, BertForSequenceClassification
from minilm.text import BertTokenizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from bert_sections.article import losses_of_both, some_texts
from bert_sections.turns import MINILM, PYTORCH


@pytest.mark.parametrize(("rate", "atol"), [("1e-5", 1e-5), ("1e-3", 1e-4)])
def test_the_losses_of_51_steps_are_hugging_faces(torch, transformers, tmp_path, rate, atol):
    texts = some_texts(136)
    tokenizer = BertTokenizer.train(texts, vocab_size=300, model_max_length=40)
    tokenizer.save_pretrained(tmp_path)
    random.manual_seed(5)
    shape = {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 70}
    config = BertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=40,
        initializer_range=0.15,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=2,
        **shape,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)  # the classifier is to be the same
    found = losses_of_both(tmp_path, texts, rate)
    ours, theirs = np.array(found[MINILM]), np.array(found[PYTORCH])
    assert len(ours) == len(theirs) == 51
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
    assert np.ptp(ours) > 0.1
