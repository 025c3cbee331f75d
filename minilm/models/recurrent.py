"""The recurrent language model: a state that has read all tokens so far predicts the next one.

    tokens (B, T) -> embeddings (T, B, E) -> L recurrent layers (T, B, H) -> scores of the next token (B, T, V)

Sources: Mikolov et al. 2010 (the simple network), Zaremba et al. 2014 (LSTM, and where dropout may stand: never on
the way from one time to the next), Press & Wolf 2017 (one matrix for embeddings and scores), Williams & Peng 1990
(gradients that go back over T tokens only, while the state goes on).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minilm import nn
from minilm.errors import DtypeError, ShapeError
from minilm.models.config import Config
from minilm.nn import functional as F
from minilm.tensor import Tensor

State = tuple[Tensor, ...]  # (h,) or, of an LSTM, (h, c): each (L, B, H)

LAYERS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


@dataclass
class RecurrentConfig(Config):
    """The shape of a recurrent language model.

    Attributes:
        kind: "rnn" (tanh), "lstm" or "gru".
        vocab_size: V, how many different tokens there are.
        block_size: T, the tokens of an example in training: so far back go gradients. The state has no such limit.
        n_layer: L. n_embd: E, channels of an embedding. n_hidden: H, channels of the state.
        dropout: the share of activations dropped in training, of embeddings, between layers and before the scores.
        tied: whether the scores are made with the embeddings' matrix, for which E must be H.
    """

    kind: str = "lstm"
    vocab_size: int = 10000
    block_size: int = 64
    n_layer: int = 2
    n_embd: int = 512
    n_hidden: int = 512
    dropout: float = 0.0
    tied: bool = False

    def check(self) -> None:
        """Raise ConfigError for an impossible shape."""
        self.require("kind", self.kind in LAYERS, f"one of {', '.join(LAYERS)}")
        for name in ("vocab_size", "block_size", "n_layer", "n_embd", "n_hidden"):
            self.require(name, getattr(self, name) >= 1, "at least 1")
        self.require("dropout", 0 <= self.dropout < 1, "at least 0 and below 1")
        if self.tied:
            self.require("n_hidden", self.n_hidden == self.n_embd, f"n_embd ({self.n_embd}) where matrices are tied")


class StateCache:
    """What a recurrent model has read, as its state: with it a new token costs one step."""

    def __init__(self) -> None:
        self.state: State | None = None

    def clear(self) -> None:
        """Forget everything."""
        self.state = None


class RecurrentLM(nn.Module):
    """The language model: tokens (B, T) -> logits (B, T, V), the scores of each next token.

    Parameters: wte.weight (V, E); rnn.weight_ih_l0 and so on, with PyTorch's names and order of gates; lm_head.weight
    (V, H), which is wte.weight where they are tied.

    Attributes:
        carried: the states that `loss` leaves behind for the batch that goes on, (1 or 2, L, streams, H); see there.
    """

    unbounded = True  # it may read any number of tokens

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.carried: Tensor | None = None
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        between = config.dropout if config.n_layer > 1 else 0.0
        self.rnn = LAYERS[config.kind](config.n_embd, config.n_hidden, config.n_layer, dropout=between)
        self.lm_head = nn.Linear(config.n_hidden, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.wte.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initial values: uniform in +-0.1 for embeddings and scores, in +-1 / sqrt(H) for the layers; an LSTM's gate f
        begins open, with a bias of 1 (Jozefowicz et al. 2015, section 5).
        """
        for weight in (self.wte.weight, self.lm_head.weight):
            nn.init.uniform_(weight, -0.1, 0.1)
        self.rnn.reset_parameters()
        if self.config.kind == "lstm":
            H = self.config.n_hidden
            for layer in range(self.config.n_layer):
                getattr(self.rnn, f"bias_ih_l{layer}").array[H : 2 * H] = 1
                getattr(self.rnn, f"bias_hh_l{layer}").array[H : 2 * H] = 0

    def hidden(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """What the scores are made of, for each time, and the last state: (B, T), state -> (T, B, H), state.

        Args:
            state: what was read before, (h,) or of an LSTM (h, c), each (L, B, H); zeros by default.
        Errors: ShapeError, DtypeError for what are no tokens (B, T).
        """
        if not isinstance(tokens, Tensor):
            raise DtypeError(
                f"RecurrentLM: tokens are a Tensor of integers, not {type(tokens).__name__}; use minilm.tensor()"
            )
        if tokens.ndim != 2 or not tokens.shape[1]:
            raise ShapeError(f"RecurrentLM: tokens (B, T) with T at least 1 were expected, not {tokens.shape}")
        tokens, lstm = tokens.transpose(0, 1), self.config.kind == "lstm"
        first = state if lstm or state is None else state[0]
        if self.training and self.config.dropout:  # each place drops channels of its own
            y, last = self.rnn(self.drop(self.wte(tokens)), first)  # (T, B, E) -> (T, B, H)
        else:
            y, last = self.rnn.of_tokens(tokens, self.wte.weight, first)
        return self.drop(y), last if lstm else (last,)

    def forward(self, tokens: Tensor, cache: StateCache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens` (B, T).

        Args:
            cache: the state after earlier tokens, which `tokens` continue; it becomes that after these. It keeps no
                gradients. To have the state with its gradients, see `scores`.
        Errors: ShapeError, DtypeError.
        """
        logits, state = self.scores(tokens, None if cache is None else cache.state)
        if cache is not None:
            cache.state = tuple(part.detach() for part in state)
        return logits

    def scores(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, T, V), and the last state, in the graph; arguments and errors as of `hidden`."""
        x, last = self.hidden(tokens, state)
        return self.lm_head(x.transpose(0, 1)), last

    def loss(self, tokens: Tensor, *places_and_targets: Tensor) -> Tensor:
        """The mean cross-entropy, in nats, of `targets` (B, T), each the token after that in `tokens` (B, T).

        `loss(tokens, targets)` begins with zeros. `loss(tokens, places, targets)`, of `train.batches.Streams`, begins
        where the batch before it ended: places (B, 2) has for each row the number of its stream, and how many tokens of
        it came before (none: zeros). In training the last state is kept in `carried`, without its history: gradients
        go back over T tokens, and what was read has no such limit (truncated back-propagation through time).
        """
        *places, targets = places_and_targets
        if not places:
            return self.loss_and_state(tokens, targets)[0]
        streams, before = places[0].array[:, 0], places[0].array[:, 1]
        loss, state = self.loss_and_state(tokens, targets, self._carried_to(streams, before))
        if self.training:
            self._carry(streams, state)
        return loss

    def loss_and_state(self, tokens: Tensor, targets: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The mean loss, and the state after the tokens, in the graph."""
        x, last = self.hidden(tokens, state)
        rows = x.reshape(-1, x.shape[-1])
        return F.linear_cross_entropy(rows, self.lm_head.weight, targets.transpose(0, 1).reshape(-1)), last

    def _carried_to(self, streams: Any, before: Any) -> State | None:
        """The states of these streams; zeros for those that begin."""
        if self.carried is None or not before.any():
            return None
        kept = self.carried.array
        if streams.max() >= kept.shape[2]:
            raise ShapeError(f"RecurrentLM: stream {streams.max()} goes on, and the states of {kept.shape[2]} are here")
        return tuple(Tensor(part) for part in np.where((before > 0)[None, None, :, None], kept[:, :, streams], 0))

    def _carry(self, streams: Any, state: State) -> None:
        last = np.stack([part.array for part in state])
        # A state that is no number would never become one again, although the step itself may be skipped.
        last = np.where(np.isfinite(last).all((0, 1, 3), keepdims=True), last, 0)
        kept = np.zeros((*last.shape[:2], 0, last.shape[3]), last.dtype) if self.carried is None else self.carried.array
        if (missing := int(streams.max()) + 1 - kept.shape[2]) > 0:
            kept = np.pad(kept, ((0, 0), (0, 0), (0, missing), (0, 0)))
        kept[:, :, streams] = last
        self.carried = Tensor(kept)

    def new_cache(self, batch_size: int) -> StateCache:
        """An empty cache; the state finds its size by itself."""
        return StateCache()

    def generate(self, tokens: Any, max_new_tokens: int, **settings: Any) -> Tensor:
        """`tokens` (B, T) or (T,) continued: see `minilm.generation.generate`."""
        from minilm.generation import generate

        return generate(self, tokens, max_new_tokens, **settings)

    def flops_per_token(self) -> int:
        """Multiplications and additions of a training step per token: 6 for each parameter in a product."""
        matrices = [p for p in self.rnn.parameters() if p.ndim == 2]
        return 6 * (sum(p.numel() for p in matrices) + self.lm_head.weight.numel())
