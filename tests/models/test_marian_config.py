"""What no Marian can be."""

from __future__ import annotations

import pytest

from minilm.errors import ConfigError
from minilm.models import MarianConfig

MARIAN = {
    "vocab_size": 31, "d_model": 20, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 28, "decoder_ffn_dim": 36, "max_position_embeddings": 13,
    "pad_token_id": 30, "eos_token_id": 0, "forced_eos_token_id": 0, "decoder_start_token_id": 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"d_model": 21}, "d_model must be a multiple of encoder_attention_heads"),
        ({"decoder_layers": 0}, "decoder_layers must be at least 1"),
        ({"decoder_attention_heads": 0}, "decoder_attention_heads must be at least 1"),
        ({"activation_function": "tanh"}, "activation_function must be one of"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"decoder_vocab_size": 37}, "decoder_vocab_size must be vocab_size"),
        ({"pad_token_id": 31}, "pad_token_id must be from 0 to 30"),
        ({"others": {"model_type": "bart"}}, "model_type 'bart' is not supported: this Marian knows 'marian' only"),
        ({"others": {"normalize_embedding": True}}, "normalize_embedding True is not supported"),
        ({"others": {"is_encoder_decoder": False}}, "is_encoder_decoder False is not supported"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_impossible_configurations_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        MarianConfig(**{**MARIAN, **settings})
