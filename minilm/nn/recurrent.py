"""Recurrent layers: RNN, LSTM and GRU, with PyTorch's parameter names and order of gates.

One product makes the input's part of the gates for all times at once; the walk over time, one layer in one direction,
is one operation (`minilm/ops/recurrent.py`), whose definition reads as the equations do.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from minilm.creation import empty, zeros
from minilm.errors import ConfigError, ShapeError
from minilm.nn import functional as F
from minilm.nn import init
from minilm.nn.module import Module
from minilm.nn.packing import PackedSequence
from minilm.nn.parameter import Parameter
from minilm.ops.arrange import unsqueeze
from minilm.ops.joining import cat, stack
from minilm.ops.recurrent import gru_layer, lstm_layer, rnn_layer
from minilm.tensor import Tensor

State = tuple[Tensor, ...]  # (h,) or, of an LSTM, (h, c): each (B, H)
Weights = tuple[Any, ...]  # weight_ih (G H, C), weight_hh (G H, H), bias_ih and bias_hh (G H) or None


class Repeated(NamedTuple):
    """Inputs of which many are equal, as those of tokens are: rows (U, C), and each place's number of its row."""

    rows: Tensor
    places: Tensor


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

    def of_tokens(self, tokens: Tensor, weight: Tensor, hx: Any = None) -> Any:
        """`self(F.embedding(tokens, weight), hx)`: whole numbers (T, B) or (B, T), and a table of vectors (V, C).

        The first layer's product with the input is made once for each token that occurs, not for each place where it
        does, if that is less than half: a batch of 2,000 characters has some 60 different ones. The outputs are the
        same, the native backend's to the bit; gradients of equal tokens are added up before the product, not behind it.
        """
        occurring, places = np.unique(tokens.array, return_inverse=True)
        if 2 * len(occurring) > tokens.numel() or tokens.ndim != 2:
            return self(F.embedding(tokens, weight), hx)
        return self(Repeated(F.embedding(Tensor(occurring), weight), Tensor(places.reshape(tokens.shape))), hx)

    @staticmethod
    def _given(x: Tensor | Repeated, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The input's part of the gates: (N, C) -> (N, G H)."""
        if isinstance(x, Repeated):
            return F.embedding(x.places, F.linear(x.rows, weight, bias))
        return F.linear(x, weight, bias)

    def layer(
        self, x: Tensor | Repeated, state: State, weights: Weights, sizes: tuple[int, ...], reverse: bool
    ) -> tuple[Tensor, State]:
        """One layer in one direction: packed x (N, C), first state -> outputs (N, H), last state.

        Args:
            weights: weight_ih, weight_hh, bias_ih and bias_hh. sizes, reverse: as in `ops.recurrent`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no layer")

    def _run(self, x: Any, first: State | None) -> tuple[Any, State]:
        """All layers, on x (T, B, C), (B, T, C), (T, C) or packed; states are (layers times directions, B, H)."""
        if isinstance(x, PackedSequence):
            return self._run_packed(x, first)
        if isinstance(x, Repeated):
            return self._run_repeated(x, first)
        self._check(x)
        batched = x.ndim == 3
        if not batched:
            x = unsqueeze(x, 1)
            first = None if first is None else tuple(unsqueeze(s, 1) for s in first)
        elif self.batch_first:
            x = x.transpose(0, 1)
        T, B = x.shape[:2]
        y, final = self._walk(x.reshape(T * B, x.shape[2]), (B,) * T, first)
        y = y.reshape(T, B, y.shape[1])
        if not batched:
            return y.squeeze(1), tuple(s.squeeze(1) for s in final)
        return y.transpose(0, 1) if self.batch_first else y, final

    def _run_repeated(self, x: Repeated, first: State | None) -> tuple[Tensor, State]:
        """The same for a batch whose places have numbers of rows."""
        places = x.places.transpose(0, 1) if self.batch_first else x.places
        T, B = places.shape
        y, final = self._walk(Repeated(x.rows, places.reshape(-1)), (B,) * T, first)
        y = y.reshape(T, B, y.shape[1])
        return y.transpose(0, 1) if self.batch_first else y, final

    def _run_packed(self, x: PackedSequence, first: State | None) -> tuple[PackedSequence, State]:
        """The same; states stand in the order that the sequences had before packing."""
        if x.data.ndim != 2 or x.data.shape[1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: packed data (N, C) with C = {self.input_size} was expected, not {x.data.shape}"
            )
        if first is not None and x.sorted_indices is not None:
            first = tuple(s[:, x.sorted_indices.array] for s in first)
        y, final = self._walk(x.data, tuple(int(b) for b in x.batch_sizes.array), first)
        if x.unsorted_indices is not None:
            final = tuple(s[:, x.unsorted_indices.array] for s in final)
        return x._replace(data=y), final

    def _walk(self, x: Any, sizes: tuple[int, ...], first: State | None) -> tuple[Tensor, State]:
        """All layers, on packed x (N, C), a Tensor or Repeated: outputs (N, H times the directions) and last states."""
        runs, B = self._runs(), sizes[0]
        if first is None:
            like = x.rows if isinstance(x, Repeated) else x
            blank = zeros(len(runs), B, self.hidden_size, dtype=like.dtype, device=like.device)
            first = (blank,) * self.states
        self._check_state(first, (len(runs), B, self.hidden_size))
        last: list[State] = []
        for layer in range(self.num_layers):
            sides = []
            for direction in self._directions:
                number, kinds = len(last), ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                weights = tuple(getattr(self, f"{kind}_l{layer}{direction}", None) for kind in kinds)
                y, state = self.layer(x, tuple(s[number] for s in first), weights, sizes, bool(direction))
                sides.append(y)
                last.append(state)
            x = sides[0] if len(sides) == 1 else cat(sides, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(stack(list(parts)) for parts in zip(*last))

    def _check(self, x: Tensor) -> None:
        """Raise unless x is a sequence, or a batch of them, of vectors of the size that the weights take."""
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise TypeError(f"{name}: a Tensor or a PackedSequence was expected, not {type(x).__name__}")
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            order = "(B, T, C)" if self.batch_first else "(T, B, C)"
            raise ShapeError(f"{name}: {order} or (T, C) with C = {self.input_size} was expected, not {x.shape}")
        if not x.shape[1 if self.batch_first and x.ndim == 3 else 0]:
            raise ShapeError(f"{name}: a sequence of length 0 has no outputs: {x.shape}")

    def _check_state(self, state: State, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless the first state fits the layers and the batch."""
        if len(state) != self.states:
            raise ShapeError(f"{type(self).__name__}: a first state of {self.states} tensors, not of {len(state)}")
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

    def layer(
        self, x: Tensor | Repeated, state: State, weights: Weights, sizes: tuple[int, ...], reverse: bool
    ) -> tuple[Tensor, State]:
        """See RNNBase."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        given = self._given(x, weight_ih, None if bias_ih is None else bias_ih + bias_hh)
        y, last = rnn_layer(given, weight_hh, state[0], sizes, reverse, self.nonlinearity == "relu")
        return y, (last,)

    def forward(self, x: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """See the class."""
        y, (h,) = self._run(x, None if hx is None else (hx,))
        return y, h


class GRU(RNNBase):
    """A gate r that forgets and a gate z that keeps:

        r = s(W_r x + b_r + U_r h + d_r),    z = s(W_z x + b_z + U_z h + d_z)
        n = tanh(W_n x + b_n + r (U_n h + d_n)),    h' = (1 - z) n + z h

    with the sigmoid s; the weights' rows hold r, z, n. Shapes as in RNN. Source: Cho et al. 2014, with r applied
    after the product, as in PyTorch.
    """

    gates = 3

    def layer(
        self, x: Tensor | Repeated, state: State, weights: Weights, sizes: tuple[int, ...], reverse: bool
    ) -> tuple[Tensor, State]:
        """See RNNBase."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        y, last = gru_layer(self._given(x, weight_ih, bias_ih), weight_hh, bias_hh, state[0], sizes, reverse)
        return y, (last,)

    def forward(self, x: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """See the class."""
        y, (h,) = self._run(x, None if hx is None else (hx,))
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

    def layer(
        self, x: Tensor | Repeated, state: State, weights: Weights, sizes: tuple[int, ...], reverse: bool
    ) -> tuple[Tensor, State]:
        """See RNNBase."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        given = self._given(x, weight_ih, None if bias_ih is None else bias_ih + bias_hh)
        y, *last = lstm_layer(given, weight_hh, *state, sizes, reverse)
        return y, tuple(last)

    def forward(self, x: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, tuple[Tensor, Tensor]]:
        """See the class."""
        y, (h, c) = self._run(x, None if hx is None else tuple(hx))
        return y, (h, c)


class _Cell(Module):
    """Base of the three cells: one step of a layer, for those who walk over time themselves."""

    layer: type[RNNBase] = RNNBase

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
        **options: Any,
    ) -> None:
        super().__init__()
        # The layer has the arithmetic and the checks; its parameters, under a cell's names, become this module's own.
        whole = self.layer(input_size, hidden_size, bias=bias, device=device, dtype=dtype, **options)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            self.register_parameter(kind, getattr(whole, f"{kind}_l0", None))
        self.__dict__["_whole"] = whole

    def reset_parameters(self) -> None:
        """Draw new initial values, uniform in +-1 / sqrt(H)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _next(self, x: Tensor, state: State | None) -> State:
        """The next state, from x (B, C) or (C) and a state (B, H) or (H) each; zeros by default."""
        whole: RNNBase = self.__dict__["_whole"]
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: (B, C) or (C) with C = {self.input_size} was expected, not {x.shape}"
            )
        shape = (*x.shape[:-1], self.hidden_size)
        if state is None:
            state = (zeros(shape, dtype=x.dtype, device=x.device),) * whole.states
        whole._check_state(state, shape)
        rows = [part if x.ndim == 2 else unsqueeze(part, 0) for part in (x, *state)]
        weights = self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh
        _, state = whole.layer(rows[0], tuple(rows[1:]), weights, (rows[0].shape[0],), False)
        return state if x.ndim == 2 else tuple(part.squeeze(0) for part in state)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """One step of RNN: x (B, C), h (B, H) -> h' (B, H). Parameters: weight_ih, weight_hh, bias_ih, bias_hh."""

    layer = RNN

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        super().__init__(input_size, hidden_size, bias, nonlinearity=nonlinearity, **options)

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        """See the class."""
        return self._next(x, None if hx is None else (hx,))[0]


class GRUCell(_Cell):
    """One step of GRU: x (B, C), h (B, H) -> h' (B, H). Parameters as in RNNCell."""

    layer = GRU

    def forward(self, x: Tensor, hx: Tensor | None = None) -> Tensor:
        """See the class."""
        return self._next(x, None if hx is None else (hx,))[0]


class LSTMCell(_Cell):
    """One step of LSTM: x (B, C), (h, c) -> (h', c'), each (B, H). Parameters as in RNNCell."""

    layer = LSTM

    def forward(self, x: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """See the class."""
        h, c = self._next(x, None if hx is None else tuple(hx))
        return h, c
