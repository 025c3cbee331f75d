"""The shape of a BERT, as Hugging Face's config.json says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minilm.errors import ConfigError
from minilm.models.activations import ACTIVATIONS
from minilm.models.pretrained_config import PretrainedConfig

PROBLEMS = ("regression", "single_label_classification", "multi_label_classification")


@dataclass
class BertConfig(PretrainedConfig):
    """The shape of a BERT, under Hugging Face's names. The defaults are bert-base-uncased's.

    Attributes:
        vocab_size: V. hidden_size: C, a multiple of num_attention_heads (H). num_hidden_layers: L.
        intermediate_size: the channels inside of a layer's feed-forward part, usually 4 C.
        hidden_act: "gelu" (exact), "gelu_new" (its tanh approximation), "relu" or "silu".
        hidden_dropout_prob, attention_probs_dropout_prob: the shares that dropout leaves out in training.
        max_position_embeddings: how many positions the model knows. type_vocab_size: how many kinds of segments.
        initializer_range: the standard deviation of the initial weights.
        pad_token_id: the token whose embedding is 0 at first and learns nothing; None for no such token.
        classifier_dropout: that before a classifier; None for hidden_dropout_prob.
        num_labels: how many classes a classifier tells apart; 0 for as many as id2label names, or 2.
        id2label, label2id: the classes' names, and back.
        problem_type: a classifier's loss, one of PROBLEMS; None to see it from the labels.
        tie_word_embeddings: whether the scores of tokens are made by the matrix of their embeddings.
    Errors: ConfigError for an impossible shape, and for a key that asks for what this model is not.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    classifier_dropout: float | None = None
    num_labels: int = 0
    id2label: dict | None = None
    label2id: dict | None = None
    problem_type: str | None = None
    tie_word_embeddings: bool = True

    model_type: ClassVar[str] = "bert"
    refused: ClassVar[dict[str, tuple[Any, ...]]] = {
        "position_embedding_type": ("absolute", None),
        "is_decoder": (False, None),
        "is_encoder_decoder": (False, None),
        "add_cross_attention": (False, None),
        "pruned_heads": ({}, None),
        "quantization_config": (None,),
    }

    def check(self) -> None:
        """Raise ConfigError for an impossible shape; fill in the labels' names."""
        for name in (
            "vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings",
            "type_vocab_size",
        ):  # fmt: skip
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("num_hidden_layers", self.num_hidden_layers >= 0, "at least 0")
        heads = self.num_attention_heads
        self.require("hidden_size", self.hidden_size % heads == 0, f"a multiple of num_attention_heads ({heads})")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            self.require(name, 0 <= (getattr(self, name) or 0.0) < 1, "at least 0 and below 1")
        self.require("layer_norm_eps", self.layer_norm_eps > 0, "above 0")
        self.require("initializer_range", self.initializer_range >= 0, "at least 0")
        self.require("hidden_act", self.hidden_act in ACTIVATIONS, f"one of {', '.join(ACTIVATIONS)}")
        self.require("problem_type", self.problem_type in (None, *PROBLEMS), f"null or one of {', '.join(PROBLEMS)}")
        padding = self.pad_token_id
        self.require(
            "pad_token_id", padding is None or 0 <= padding < self.vocab_size, f"from 0 to {self.vocab_size - 1}"
        )
        super().check()
        self._name_labels()

    def _name_labels(self) -> None:
        """Make num_labels, id2label and label2id say the same."""
        if self.id2label is None and self.label2id:
            self.id2label = {number: name for name, number in self.label2id.items()}
        if self.id2label is not None:
            try:
                self.id2label = {int(number): str(name) for number, name in sorted(self.id2label.items(), key=_number)}
            except (TypeError, ValueError):
                raise ConfigError(f"id2label must give numbers names, not {self.id2label!r}") from None
            if list(self.id2label) != list(range(len(self.id2label))):
                raise ConfigError(f"id2label must number its names from 0 on, not {list(self.id2label)}")
            if self.num_labels not in (0, len(self.id2label)):
                raise ConfigError(f"num_labels is {self.num_labels}, and id2label names {len(self.id2label)}")
            self.num_labels = len(self.id2label)
        self.num_labels = self.num_labels or 2
        self.require("num_labels", self.num_labels >= 1, "at least 1")
        if self.id2label is None:
            self.id2label = {number: f"LABEL_{number}" for number in range(self.num_labels)}
        self.label2id = {name: number for number, name in self.id2label.items()}

    @property
    def classifier_dropout_prob(self) -> float:
        """The dropout before a classifier."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it: the keys above, and the others beside them."""
        values = super().to_dict()
        values.pop("num_labels")
        values["id2label"] = {str(number): name for number, name in (self.id2label or {}).items()}
        return values


def _number(pair: tuple[Any, Any]) -> int:
    return int(pair[0])
