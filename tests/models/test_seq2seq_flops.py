"""The arithmetic of a training step of encoder and decoder: by hand, and as PyTorch counts its products."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm import models

S, T, V = 7, 5, 31
MARIAN = {
    "vocab_size": V, "d_model": 20, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 28, "decoder_ffn_dim": 36, "max_position_embeddings": 13,
    "pad_token_id": 30, "eos_token_id": 0, "forced_eos_token_id": 0, "decoder_start_token_id": 30, "dropout": 0.0,
}  # fmt: skip
T5 = {
    "vocab_size": V, "d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4,
    "dropout_rate": 0.0,
}  # fmt: skip
CASES = {
    "marian": ("Marian", "MarianMTModel", MARIAN),
    "marian-two-vocabularies": (
        "Marian", "MarianMTModel", {**MARIAN, "decoder_vocab_size": 37, "share_encoder_decoder_embeddings": False}
    ),
    "t5": ("T5", "T5ForConditionalGeneration", T5),
    "t5-1.1": (
        "T5", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request):
    kind, name, shape = CASES[request.param]
    ml.manual_seed(0)
    model = getattr(models, name)(getattr(models, f"{kind}Config")(**shape))
    model.usual_lengths = (float(S), float(T))
    return model


def test_pytorch_counts_as_many_in_a_step_of_transformers(torch, transformers, case, tmp_path):
    """Forward and backward of one pair without padding; it counts two for each multiplication with its addition."""
    from torch.utils.flop_counter import FlopCounterMode

    case.save_pretrained(tmp_path)
    theirs = getattr(transformers, type(case).__name__).from_pretrained(tmp_path, attn_implementation="eager").train()
    rng = np.random.default_rng(0)
    ids, labels = (torch.from_numpy(rng.integers(1, 30, (1, length))) for length in (S, T))
    with FlopCounterMode(display=False) as counter:
        theirs(ids, labels=labels, use_cache=False).loss.backward()
    assert case.flops_per_token() * (S + T) == counter.get_total_flops()


def test_a_marian_by_hand():
    C, L, E, M, D = 20, 2, 28, 3, 36
    model = models.MarianMTModel(models.MarianConfig(**MARIAN))
    model.usual_lengths = (float(S), float(T))
    encoder = L * (4 * C * C + 2 * C * E) * S
    decoder = M * ((4 * C * C + 2 * C * C + 2 * C * D) * T + 2 * C * C * S)
    attention = 12 * C * (L * S * S + M * T * T + M * S * T)
    assert model.flops_per_token() * (S + T) == pytest.approx(6 * (encoder + decoder + C * V * T) + attention)
    model.usual_lengths = None
    whole = model.flops_per_token()
    model.usual_lengths = (13.0, 13.0)
    assert model.flops_per_token() == whole, "all positions, where nothing is known of lengths"
