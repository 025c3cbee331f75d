"""The shape of a Marian model for translation, as Hugging Face's config.json says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minilm.models.activations import ACTIVATIONS
from minilm.models.pretrained_config import PretrainedConfig

SIZES = (
    "vocab_size", "d_model", "encoder_attention_heads", "decoder_attention_heads", "encoder_ffn_dim", "decoder_ffn_dim",
    "max_position_embeddings",
)  # fmt: skip
OWN_TYPE = "minilm-marian"  # with learnt positions, or normalisation before each part


@dataclass
class MarianConfig(PretrainedConfig):
    """The shape of a Transformer of encoder and decoder, under Hugging Face's names and with their defaults.

    Attributes:
        vocab_size: V, of the source. decoder_vocab_size: of the target; None for V.
        d_model: C, a multiple of the numbers of heads. max_position_embeddings: how many positions there are.
        encoder_layers, encoder_attention_heads, encoder_ffn_dim: L, H, and the channels inside of a feed-forward part.
        decoder_layers, decoder_attention_heads, decoder_ffn_dim: the decoder's.
        activation_function: "swish", "relu", "gelu" (exact) or "gelu_new" (its tanh approximation).
        dropout: of what each part of a layer adds, and of the embeddings. attention_dropout: of attention's weights.
        activation_dropout: inside of a feed-forward part.
        init_std: the standard deviation of the initial weights.
        scale_embedding: multiply the embeddings by sqrt(C), as Vaswani et al. 2017, section 3.4.
        share_encoder_decoder_embeddings: one matrix for both sides' tokens, which then have one vocabulary.
        tie_word_embeddings: the scores of tokens are made by the matrix of the decoder's embeddings.
        pad_token_id, eos_token_id, bos_token_id, decoder_start_token_id: tokens; the decoder begins with the last.
        forced_eos_token_id: the token that ends a translation at its largest length.
        normalize_before: LayerNorm before each part of a layer, and behind the last one, as in mBART; else behind
            each part. static_position_embeddings: positions are fixed waves; else they are learnt. With other values
            than the defaults, Hugging Face's Marian does not know the model.
    Errors: ConfigError for an impossible shape, and for a key that asks for what this model is not.
    """

    vocab_size: int = 58101
    decoder_vocab_size: int | None = None
    d_model: int = 1024
    max_position_embeddings: int = 1024
    encoder_layers: int = 12
    encoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_layers: int = 12
    decoder_attention_heads: int = 16
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int = 58100
    eos_token_id: int | None = 0
    bos_token_id: int | None = None
    decoder_start_token_id: int = 58100
    forced_eos_token_id: int | None = 0
    normalize_before: bool = False
    static_position_embeddings: bool = True

    model_type: ClassVar[str] = "marian"
    refused: ClassVar[dict[str, tuple[Any, ...]]] = {
        "model_type": ("marian", OWN_TYPE, "", None),
        "is_encoder_decoder": (True, None),
        "is_decoder": (False, None),
        "normalize_embedding": (False, None),
        "add_bias_logits": (False, None),
        "encoder_layerdrop": (0, None),
        "decoder_layerdrop": (0, None),
        "extra_pos_embeddings": (0, None),
        "quantization_config": (None,),
    }

    def check(self) -> None:
        """Raise ConfigError for an impossible shape; fill in the target's vocabulary."""
        super().check()
        for name in SIZES:
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.decoder_vocab_size = V = self.decoder_vocab_size or self.vocab_size
        for side in ("encoder", "decoder"):
            self.require(f"{side}_layers", getattr(self, f"{side}_layers") >= 1, "at least 1")
            heads = getattr(self, f"{side}_attention_heads")
            self.require("d_model", self.d_model % heads == 0, f"a multiple of {side}_attention_heads ({heads})")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            self.require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self.require("init_std", self.init_std >= 0, "at least 0")
        self.require("activation_function", self.activation_function in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
        if self.share_encoder_decoder_embeddings:
            self.require("decoder_vocab_size", self.vocab_size == V, f"vocab_size ({self.vocab_size}), which is shared")
        known = min(self.vocab_size, V)
        for name in ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id", "forced_eos_token_id"):
            token = getattr(self, name)
            self.require(name, token is None or 0 <= token < known, f"from 0 to {known - 1}")

    @property
    def initializer_range(self) -> float:
        """The standard deviation of the initial weights, by the name that other models have for it."""
        return self.init_std

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it; what Hugging Face's Marian is not gets a name that their library refuses."""
        theirs = self.static_position_embeddings and not self.normalize_before
        return {**super().to_dict(), "is_encoder_decoder": True, **({} if theirs else {"model_type": OWN_TYPE})}
