"""The shape of a T5, as Hugging Face's config.json says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minilm.models.activations import ACTIVATIONS
from minilm.models.pretrained_config import PretrainedConfig

SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "relative_attention_num_buckets")


@dataclass
class T5Config(PretrainedConfig):
    """The shape of a T5 under Hugging Face's names. The defaults are t5-small's.

    Attributes:
        vocab_size: V. d_model: C. num_heads: H. d_kv: D, the channels of a head; H D need not be C.
        d_ff: the channels inside of a feed-forward part.
        num_layers: of the encoder. num_decoder_layers: of the decoder; None for as many.
        relative_attention_num_buckets: into how many kinds distances are sorted, relative_attention_max_distance: from
            which on all are of one kind.
        dropout_rate: of what each part adds, of attention's weights, and inside of a feed-forward part.
        initializer_factor: what initial values are multiplied by.
        feed_forward_proj: an activation, "relu" (version 1.0), or "gated-" and one ("gated-gelu", version 1.1).
        pad_token_id, eos_token_id, decoder_start_token_id: tokens; the decoder begins with the last
            (None: with padding's).
        tie_word_embeddings: the scores of tokens are made by the matrix of their embeddings (version 1.0).
        scale_decoder_outputs: multiply the states by 1 / sqrt(C) before; None where the matrix is tied.
    Errors: ConfigError for an impossible shape, and for a key that asks for what this model is not.
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"
    pad_token_id: int = 0
    eos_token_id: int | None = 1
    decoder_start_token_id: int | None = 0
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None

    model_type: ClassVar[str] = "t5"
    refused: ClassVar[dict[str, tuple[Any, ...]]] = {
        "is_encoder_decoder": (True, None),
        "is_decoder": (False, None),
        "quantization_config": (None,),
    }

    def check(self) -> None:
        """Raise ConfigError for an impossible shape; fill in what follows from other keys."""
        super().check()
        for name in SIZES:
            self.require(name, getattr(self, name) >= 1, "at least 1")
        if self.num_decoder_layers is None:
            self.num_decoder_layers = self.num_layers
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.pad_token_id
        if self.scale_decoder_outputs is None:
            self.scale_decoder_outputs = self.tie_word_embeddings
        for name in ("num_layers", "num_decoder_layers"):
            self.require(name, getattr(self, name) >= 1, "at least 1: the first holds the distances' biases")
        buckets = self.relative_attention_num_buckets
        self.require("relative_attention_num_buckets", buckets >= 4 and buckets % 2 == 0, "even and at least 4")
        far = self.relative_attention_max_distance
        self.require(
            "relative_attention_max_distance", far > buckets // 2, f"above {buckets // 2}, half of the buckets"
        )
        self.require("dropout_rate", 0 <= self.dropout_rate < 1, "at least 0 and below 1")
        self.require("layer_norm_epsilon", self.layer_norm_epsilon > 0, "above 0")
        self.require("initializer_factor", self.initializer_factor >= 0, "at least 0")
        known = self.feed_forward_proj.removeprefix("gated-") in ACTIVATIONS
        self.require("feed_forward_proj", known, f"one of {', '.join(ACTIVATIONS)}, or 'gated-' and one of them")
        for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
            token = getattr(self, name)
            self.require(name, token is None or 0 <= token < self.vocab_size, f"from 0 to {self.vocab_size - 1}")

    @property
    def gated(self) -> bool:
        """Whether the activation gates a second linear map."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """Hugging Face's name of the activation; by "gated-gelu" they mean the tanh approximation."""
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it, with the keys that follow from others."""
        implied = {"is_encoder_decoder": True, "is_gated_act": self.gated, "dense_act_fn": self.activation}
        return {**super().to_dict(), **implied}
