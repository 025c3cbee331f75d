"""Recurrent layers: RNN, LSTM and GRU, with PyTorch's parameter names and order of gates.

A step takes what was made of the input, for all times at once, and the state before it; `_scan` walks a layer over
time. Reading one step function is reading the whole layer.
"""

from __future__ import annotations

import math
from typing import Any

from minilm.creation import empty, zeros
from minilm.errors import ConfigError, ShapeError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.parameter import Parameter
from minilm.ops.arrange import flip, unsqueeze
from minilm.ops.joining import cat, stack
from minilm.tensor import Tensor

State = tuple[Tensor, ...]  # (h,) or, of an LSTM, (h, c): each (B, H)


class RNNBase(Module):
    """What the three share: parameters, layers, directions, and the walk over time.

    Args:
        input_size, hidden_size: C and H.
        num_layers: layers on top of each other; each reads the outputs of the one below.
        bias: False leaves all biases out.
        batch_first: inputs and outputs are (B, T, ...) rather than (T, B, ...).
        dropout: applied in training to the outputs of every layer but the last.
        bidirectional: each layer walks from the end to the beginning too, and gives both outputs side by side.

    Attributes, for each layer k (with the suffix _reverse for the way back), all at first uniform in +-1 / sqrt(H):
        weight_ih_lk (G H, C or H times the directions), weight_hh_lk (G H, H), bias_ih_lk and bias_hh_lk (G H), with
        the G gates one below the other.
    """

    gates = 0
    states = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if min(input_size, hidden_size, num_layers) < 1:
            raise ConfigError(f"{name}: sizes are at least 1, not {input_size}, {hidden_size} and {num_layers} layers")
        if not 0 <= dropout <= 1:
            raise ConfigError(f"{name}: dropout must lie between 0 and 1, not {dropout}")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        rows = self.gates * hidden_size
        for layer, suffix in self._runs():
            below = input_size if layer == 0 else hidden_size * len(self._directions)
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, below), "weight_hh": (rows, hidden_size)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for kind, shape in shapes.items():
                self.register_parameter(f"{kind}_{suffix}", Parameter(empty(shape, dtype=dtype, device=device)))
        self.reset_parameters()

    @property
    def _directions(self) -> tuple[str, ...]:
        return ("", "_reverse") if self.bidirectional else ("",)

    def _runs(self) -> list[tuple[int, str]]:
        """Each walk over time: its layer, and the end of its parameters' names."""
        return [(k, f"l{k}{direction}") for k in range(self.num_layers) for direction in self._directions]

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in +-1 / sqrt(H)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing: PyTorch lays weights out for a GPU here."""

    def step(self, given: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        """The next state from the input's part of the gates (B, G H) and the state before."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def _scan(self, x: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        """One layer in one direction: x (T, B, C) -> outputs (T, B, H) and the last state."""
        backwards = suffix.endswith("_reverse")
        weight, bias = getattr(self, f"weight_hh_{suffix}"), getattr(self, f"bias_hh_{suffix}", None)
        x = flip(x, (0,)) if backwards else x
        given = F.linear(x, getattr(self, f"weight_ih_{suffix}"), getattr(self, f"bias_ih_{suffix}", None))
        outputs = []
        for gates in given.unbind(0):
            state = self.step(gates, state, weight, bias)
            outputs.append(state[0])
        y = stack(outputs)
        return flip(y, (0,)) if backwards else y, state

    def _walk(self, x: Tensor, first: State | None) -> tuple[Tensor, State]:
        """All layers, on x (T, B, C) or (B, T, C) or (T, C); states are (layers times directions, B, H)."""
        self._check(x)
        batched = x.ndim == 3
        if not batched:
            x = unsqueeze(x, 1)
            first = None if first is None else tuple(unsqueeze(s, 1) for s in first)
        elif self.batch_first:
            x = x.transpose(0, 1)
        runs, B = self._runs(), x.shape[1]
        if first is None:
            blank = zeros(len(runs), B, self.hidden_size, dtype=x.dtype, device=x.device)
            first = (blank,) * self.states
        self._check_state(first, (len(runs), B, self.hidden_size))
        last: list[State] = []
        for layer in range(self.num_layers):
            sides = []
            for direction in self._directions:
                number = len(last)
                y, state = self._scan(x, tuple(s[number] for s in first), f"l{layer}{direction}")
                sides.append(y)
                last.append(state)
            x = sides[0] if len(sides) == 1 else cat(sides, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        final = tuple(stack(list(parts)) for parts in zip(*last))
        if not batched:
            return x.squeeze(1), tuple(s.squeeze(1) for s in final)
        return x.transpose(0, 1) if self.batch_first else x, final

    def _check(self, x: Tensor) -> None:
        """Raise unless x is a sequence, or a batch of them, of vectors of the size that the weights take."""
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: a Tensor was expected, not {type(x).__name__}; there are no packed sequences")
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            order = "(B, T, C)" if self.batch_first else "(T, B, C)"
            raise ShapeError(f"{name}: {order} or (T, C) with C = {self.input_size} was expected, not {x.shape}")
        if not x.shape[1 if self.batch_first and x.ndim == 3 else 0]:
            raise ShapeError(f"{name}: a sequence of length 0 has no outputs: {x.shape}")

    def _check_state(self, state: State, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless the first state fits the layers and the batch."""
        for part in state:
            if part.shape != shape:
                raise ShapeError(f"{type(self).__name__}: the first state has shape {part.shape}, not {shape}")

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        text = f"{self.input_size}, {self.hidden_size}"
        blank = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return text + "".join(f", {k}={getattr(self, k)}" for k, usual in blank.items() if getattr(self, k) != usual)


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh): x (T, B, C), h_0 -> outputs (T, B, H), h_T (layers, B, H).

    Args: see RNNBase; nonlinearity: "tanh" or "relu". Source: Elman 1990. Errors: ConfigError, ShapeError.
    """

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ConfigError(f"RNN: nonlinearity is 'tanh' or 'relu', not {nonlinearity!r}")
        super().__init__(input_size, hidden_size, num_layers, **options)
        self.nonlinearity = nonlinearity

    def step(self, given: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        """See the class."""
        total = given + F.linear(state[0], weight, bias)
        return (F.tanh(total) if self.nonlinearity == "tanh" else F.relu(total),)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        y, (h,) = self._walk(x, None if hx is None else (hx,))
        return y, h


class GRU(RNNBase):
    """A gate r that forgets and a gate z that keeps:

        r = s(W_r x + b_r + U_r h + d_r),    z = s(W_z x + b_z + U_z h + d_z)
        n = tanh(W_n x + b_n + r (U_n h + d_n)),    h' = (1 - z) n + z h

    with the sigmoid s; the weights' rows hold r, z, n. Shapes as in RNN. Source: Cho et al. 2014, with r applied
    after the product, as in PyTorch.
    """

    gates = 3

    def step(self, given: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        """See the class."""
        (h,) = state
        given_r, given_z, given_n = given.chunk(3, -1)
        kept_r, kept_z, kept_n = F.linear(h, weight, bias).chunk(3, -1)
        r, z = F.sigmoid(given_r + kept_r), F.sigmoid(given_z + kept_z)
        n = F.tanh(given_n + r * kept_n)
        return (n + z * (h - n),)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        y, (h,) = self._walk(x, None if hx is None else (hx,))
        return y, h


class LSTM(RNNBase):
    """A cell c that gates write to and read from:

        i, f, o = s(W x + b + U h + d) each,    g = tanh(W_g x + b_g + U_g h + d_g)
        c' = f c + i g,    h' = o tanh(c')

    with the sigmoid s; the weights' rows hold i, f, g, o. x (T, B, C), (h_0, c_0) -> outputs (T, B, H), (h_T, c_T),
    each state (layers, B, H). Source: Hochreiter & Schmidhuber 1997; the gate f from Gers et al. 2000.
    """

    gates = 4
    states = 2

    def step(self, given: Tensor, state: State, weight: Tensor, bias: Tensor | None) -> State:
        """See the class."""
        h, c = state
        i, f, g, o = (given + F.linear(h, weight, bias)).chunk(4, -1)
        c = F.sigmoid(f) * c + F.sigmoid(i) * F.tanh(g)
        return F.sigmoid(o) * F.tanh(c), c

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """See the class."""
        y, (h, c) = self._walk(x, None if hx is None else tuple(hx))
        return y, (h, c)
