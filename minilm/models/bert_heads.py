"""BERT with something on top: the two tasks that it is pretrained on, and those that it is fine-tuned to.

Each model is called as in Hugging Face's library, `model(input_ids, attention_mask, token_type_ids, labels=...)`, and
returns an Output. `loss(...)` is what training uses: a mean over the targets, computed without the work that a loss
does not need. Padding is computed as there wherever scores for it are returned, and nowhere else (see
`positions.Positions`); `pack=True` leaves it out there too, and the scores are then 0.

Source: Devlin et al. 2019, sections 3.1 and 4. A label of -100 is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minilm import nn
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.models.bert import BertDense, BertModel, positions_of
from minilm.models.bert_config import BertConfig
from minilm.models.outputs import Output
from minilm.models.positions import Positions
from minilm.models.pretrained import PretrainedModel, initialise
from minilm.nn import functional as F
from minilm.nn.parameter import Parameter
from minilm.tensor import Tensor

IGNORED = -100  # a label that is none


class BertTransform(BertDense):
    """The layer before the scores of tokens: linear, activation, normalisation: (N, C) -> (N, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.LayerNorm(super().forward(x))


class BertPredictions(nn.Module):
    """The scores of the token that stands at a place: (N, C) -> (N, V)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.bias = Parameter(np.zeros(config.vocab_size, np.float32))
        self.transform = BertTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.decoder(self.transform(x))

    def loss(self, x: Tensor, labels: Any) -> Tensor:
        """The mean cross-entropy of `labels` (N), an array, that are not -100; only their scores are computed."""
        chosen = np.flatnonzero(labels != IGNORED)
        if not chosen.size:
            return nothing(x)
        x = self.transform(x[chosen])
        return F.linear_cross_entropy(x, self.decoder.weight, Tensor(labels[chosen]), linear_bias=self.decoder.bias)


class BertHead(PretrainedModel):
    """What the models share: an encoder `bert` below a head.

    Attributes:
        pooling: whether the head needs the pooled first token. wide: whether it scores each position; else it is given
            the first ones' states alone, and nothing is computed that does not lead to them.
        usual_length: how many tokens sequences have, for `flops_per_token`; 0 for all positions.
    """

    config_class = BertConfig
    pooling, wide = True, False
    usual_length = 0

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=self.pooling)

    @property
    def recompute(self) -> bool:
        """Whether the layers' activations are computed again in the backward."""
        return self.bert.recompute

    @recompute.setter
    def recompute(self, value: bool) -> None:
        self.bert.recompute = value

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        pack: bool | None = None,
        **labels: Tensor | None,
    ) -> Output:
        """Scores, and the loss where there are labels (`labels=`, or as the model names them).

        Args: as in BertModel, and
            pack: compute nothing for padding; by default where no score is returned for it.
        Errors: as in BertModel; TypeError for labels of a name that the model does not have.
        """
        unknown = set(labels) - set(self.label_names)
        if unknown:
            raise TypeError(f"{type(self).__name__}: labels are {', '.join(self.label_names)}, not {unknown.pop()}")
        states: list[Tensor] | None = [] if output_hidden_states else None
        attentions: list[Tensor] | None = [] if output_attentions else None
        only_first = not (self.wide or output_hidden_states or output_attentions)
        positions = positions_of(self.config, input_ids, attention_mask, only_first if pack is None else pack)
        x = self.bert.encode(positions, input_ids, token_type_ids, position_ids, states, attentions, only_first)
        if not (self.wide or only_first):
            x = x[positions.first]
        return Output(
            **self.results(x, positions, **{name: labels.get(name) for name in self.label_names}),
            hidden_states=None if states is None else tuple(states),
            attentions=None if attentions is None else tuple(attentions),
        )

    label_names: tuple[str, ...] = ("labels",)

    # Scores and loss by name, of the last layer's states (N, C), or (B, C), the positions, and the labels by name.
    results: Callable[..., dict[str, Any]]

    def tokens_in(self, batch: Any) -> int:
        """How many tokens of a Trainer's batch are no padding; the others are not computed."""
        return int(np.count_nonzero(batch[2]))

    def flops_per_token(self) -> int:
        """Multiplications and additions of a training step per token: 6 for each parameter in a product, and attention.

        As GPT's, with sequences of `usual_length`; what is done once a sequence, as pooling, is left out.
        """
        c, length = self.config, self.usual_length or self.config.max_position_embeddings
        C, layer = c.hidden_size, 4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size
        return 6 * c.num_hidden_layers * layer + 12 * c.num_hidden_layers * C * length

    def packed(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor | None = None
    ) -> tuple[Tensor, Positions]:
        """The last layer's states (N, C) where there is no padding, or a label, or (B, C), and the positions."""
        also = None
        if labels is not None:
            if labels.shape != input_ids.shape:
                raise ShapeError(f"BERT: labels have the shape {labels.shape}, the tokens {input_ids.shape}")
            also = labels.array != IGNORED
        positions = positions_of(self.config, input_ids, attention_mask, True, also)
        return self.bert.encode(positions, input_ids, token_type_ids, only_first=not self.wide), positions


class BertForPreTraining(BertHead):
    """BERT's two tasks at once: tokens that were masked, and whether the second sentence follows the first.

    Labels: `labels` (B, T), the tokens that were masked, -100 elsewhere; `next_sentence_label` (B), 0 where it follows.
    """

    wide = True
    label_names = ("labels", "next_sentence_label")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict(
            {"predictions": BertPredictions(config), "seq_relationship": nn.Linear(config.hidden_size, 2)}
        )
        initialise_head(self, self.cls)

    def results(
        self, x: Tensor, positions: Positions, labels: Tensor | None = None, next_sentence_label: Tensor | None = None
    ) -> dict[str, Any]:
        """See the class."""
        scores = self.cls["predictions"](x)
        relation = self.cls["seq_relationship"](self.bert.pooler(x[positions.first]))
        loss = None
        if labels is not None and next_sentence_label is not None:
            loss = cross_entropy(scores, positions.rows(labels)) + cross_entropy(relation, next_sentence_label)
        return {"loss": loss, "prediction_logits": positions.grid(scores), "seq_relationship_logits": relation}

    def loss(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        next_sentence_label: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy of the masked tokens, and that of the next sentences."""
        x, positions = self.packed(input_ids, attention_mask, token_type_ids, labels)
        masked = self.cls["predictions"].loss(x, positions.rows(labels).array)
        relation = self.cls["seq_relationship"](self.bert.pooler(x[positions.first]))
        return masked, cross_entropy(relation, next_sentence_label)

    def measures(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        next_sentence_label: Tensor,
    ) -> dict[str, tuple[int, int]]:
        """How many masked tokens, and how many next sentences, are guessed right, and of how many."""
        x, positions = self.packed(input_ids, attention_mask, token_type_ids, labels)
        wanted = positions.rows(labels).array
        chosen = np.flatnonzero(wanted != IGNORED)
        guessed = self.cls["predictions"](x[chosen]).array.argmax(-1)
        relation = self.cls["seq_relationship"](self.bert.pooler(x[positions.first])).array.argmax(-1)
        return {
            "masked_accuracy": (int((guessed == wanted[chosen]).sum()), len(chosen)),
            "next_sentence_accuracy": (int((relation == next_sentence_label.array).sum()), len(relation)),
        }

    def flops_per_token(self) -> int:
        """Those of the layers, and of the scores of tokens for the 15% that are to be guessed."""
        C = self.config.hidden_size
        return super().flops_per_token() + 6 * (C * C + C * self.config.vocab_size) * 15 // 100


class BertForMaskedLM(BertHead):
    """Which token stands where one was masked. Labels (B, T): the tokens, -100 where nothing is asked."""

    pooling, wide = False, True

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict({"predictions": BertPredictions(config)})
        initialise_head(self, self.cls)

    def results(self, x: Tensor, positions: Positions, labels: Tensor | None = None) -> dict[str, Any]:
        """See the class."""
        scores = self.cls["predictions"](x)
        loss = None if labels is None else cross_entropy(scores, positions.rows(labels))
        return {"loss": loss, "logits": positions.grid(scores)}

    def loss(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of the masked tokens."""
        x, positions = self.packed(input_ids, attention_mask, token_type_ids, labels)
        return self.cls["predictions"].loss(x, positions.rows(labels).array)


class BertForNextSentencePrediction(BertHead):
    """Whether the second sentence follows the first. Labels (B): 0 where it does, 1 where it is another one."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.cls = nn.ModuleDict({"seq_relationship": nn.Linear(config.hidden_size, 2)})
        initialise_head(self, self.cls)

    def results(self, x: Tensor, positions: Positions, labels: Tensor | None = None) -> dict[str, Any]:
        """See the class."""
        logits = self.cls["seq_relationship"](self.bert.pooler(x))
        return {"loss": None if labels is None else cross_entropy(logits, labels), "logits": logits}

    def loss(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy."""
        return self.results(*self.packed(input_ids, attention_mask, token_type_ids), labels)["loss"]


class BertForSequenceClassification(BertHead):
    """Which class a text, or a pair, is of; or a number for it. Labels: as `config.problem_type` says.

    "single_label_classification": numbers of classes (B). "multi_label_classification": for each class whether it
    applies, (B, num_labels). "regression": numbers, (B) for one label, else (B, num_labels). Without a problem_type
    one label is regression, and several are single labels where the labels are whole numbers, else multiple ones.

    Attributes:
        class_weights: (K) factors of the classes' losses, of which the mean over the labels is taken; None for 1.
    """

    class_weights: Tensor | None = None

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialise_head(self, self.classifier)

    def results(self, x: Tensor, positions: Positions, labels: Tensor | None = None) -> dict[str, Any]:
        """See the class."""
        logits = self.classifier(self.dropout(self.bert.pooler(x)))
        return {"loss": None if labels is None else self.loss_of(logits, labels), "logits": logits}

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss that suits the problem: cross-entropy, binary cross-entropy, or the squared error."""
        kind = self.config.problem_type
        if kind is None:
            whole = labels.dtype.kind in "iu"
            kind = "single_label_classification" if whole else "multi_label_classification"
            kind = "regression" if self.config.num_labels == 1 else kind
        if kind == "single_label_classification":
            return cross_entropy(logits, labels.reshape(-1), self.class_weights)
        labels = labels.to(logits.dtype)
        if self.config.num_labels == 1:
            logits, labels = logits.reshape(-1), labels.reshape(-1)
        if logits.shape != labels.shape:
            raise ShapeError(f"{type(self).__name__}: labels {labels.shape} for scores {logits.shape}")
        return (
            F.mse_loss(logits, labels) if kind == "regression" else F.binary_cross_entropy_with_logits(logits, labels)
        )

    def loss(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The mean loss."""
        return self.results(*self.packed(input_ids, attention_mask, token_type_ids), labels)["loss"]


class BertForTokenClassification(BertHead):
    """Which class each token is of. Labels (B, T): the classes, -100 where nothing is asked.

    Attributes:
        class_weights: as in BertForSequenceClassification.
    """

    class_weights: Tensor | None = None
    pooling, wide = False, True

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.p = config.classifier_dropout_prob
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        initialise_head(self, self.classifier)

    def results(self, x: Tensor, positions: Positions, labels: Tensor | None = None) -> dict[str, Any]:
        """See the class."""
        logits = self.classifier(positions.dropout(x, self.p) if self.training else x)
        loss = None if labels is None else cross_entropy(logits, positions.rows(labels), self.class_weights)
        return {"loss": loss, "logits": positions.grid(logits)}

    def loss(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of the tokens with a label."""
        return self.results(*self.packed(input_ids, attention_mask, token_type_ids, labels), labels)["loss"]


class BertForQuestionAnswering(BertHead):
    """Where in a text the answer begins and ends: scores of each position. Labels (B): the positions.

    As in Hugging Face's library padding has scores too, and takes part in the loss; so nothing is packed here.
    """

    pooling, wide = False, True
    label_names = ("start_positions", "end_positions")

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        if config.num_labels != 2:
            raise ConfigError(f"{type(self).__name__}: a beginning and an end are 2 labels, not {config.num_labels}")
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        initialise_head(self, self.qa_outputs)

    def results(
        self,
        x: Tensor,
        positions: Positions,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
    ) -> dict[str, Any]:
        """See the class. A position outside of the text counts nothing."""
        start, end = positions.grid(self.qa_outputs(x)).unbind(-1)  # each (B, T)
        loss = None
        if start_positions is not None and end_positions is not None:
            T = positions.shape[1]
            losses = [
                F.cross_entropy(logits, at.reshape(-1).clamp(0, T), ignore_index=T)
                for logits, at in ((start, start_positions), (end, end_positions))
            ]
            loss = (losses[0] + losses[1]) / 2
        return {"loss": loss, "start_logits": start, "end_logits": end}

    def loss(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor, start_and_end: Tensor) -> Tensor:
        """The mean cross-entropy of all beginnings and ends (B, 2) that are not -100."""
        positions = positions_of(self.config, input_ids, attention_mask, False)
        x = self.bert.encode(positions, input_ids, token_type_ids)
        B, T = positions.shape
        if start_and_end.shape != (B, 2):
            raise ShapeError(f"{type(self).__name__}: positions {start_and_end.shape} for {B} texts: ({B}, 2) expected")
        scores = positions.grid(self.qa_outputs(x)).transpose(1, 2).reshape(2 * B, T)  # (B, 2, T)
        return cross_entropy(scores, start_and_end.reshape(-1))


def initialise_head(model: BertHead, head: nn.Module) -> None:
    """Initial values for a head, and its decoder tied to the embeddings (Press & Wolf 2017)."""
    initialise(head, model.config)
    for part in head.modules():
        if isinstance(part, BertPredictions) and model.config.tie_word_embeddings:
            part.decoder.weight = model.bert.embeddings.word_embeddings.weight
            part.decoder.bias = part.bias  # else, as in Hugging Face's, nothing uses the latter


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """The mean over the labels (N) that are not -100; 0 where all are. Errors: DtypeError unless they are integers.

    Args:
        weights: (K), factors of the classes' losses. The mean is over the number of labels, not the sum of their
            weights, so that parts of a batch add up.
    """
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"BERT: labels are whole numbers, not {labels.dtype}")
    if not (labels.array != IGNORED).any():
        return nothing(logits)
    if weights is None:
        return F.cross_entropy(logits, labels)
    total = F.cross_entropy(logits, labels, weights, reduction="sum")
    return total / int(np.count_nonzero(labels.array != IGNORED))


def nothing(x: Tensor) -> Tensor:
    """A loss of 0 that hangs on x all the same, so that its backward finds a graph."""
    return x[:0].sum()
