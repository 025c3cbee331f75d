"""RNN, LSTM and GRU beside PyTorch's, with the same weights by name."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError

KINDS = ["RNN", "LSTM", "GRU"]
OPTIONS = [
    {},
    {"num_layers": 3, "batch_first": True},
    {"bidirectional": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]
rng = np.random.default_rng(1)
X = rng.standard_normal((2, 3, 5))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_are_those_of_torch(
    beside: Any, torch: Any, kind: str, options: Any, dtype: str
) -> None:
    ours, theirs = getattr(nn, kind)(5, 7, **options), getattr(torch.nn, kind)(5, 7, **options)
    beside(ours, theirs, X.astype(dtype))
    assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_state_is_taken_and_learns(beside: Any, torch: Any, kind: str, options: Any) -> None:
    ours, theirs = getattr(nn, kind)(5, 7, **options), getattr(torch.nn, kind)(5, 7, **options)
    runs = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    B = X.shape[0] if options.get("batch_first") else X.shape[1]
    h, c = rng.standard_normal((2, runs, B, 7))
    if kind == "LSTM":

        class Told(nn.Module):
            """An LSTM with its two states as two arguments, for `beside`."""

            def __init__(self, lstm: Any) -> None:
                super().__init__()
                self.lstm = lstm

            def forward(self, x: Any, h: Any, c: Any) -> Any:
                return self.lstm(x, (h, c))

        beside(Told(ours), _told(torch, theirs), X, h, c)
    else:
        beside(ours, theirs, X, h)


def _told(torch: Any, lstm: Any) -> Any:
    class Told(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = lstm

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            return self.lstm(x, (h, c))

    return Told()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_alone_needs_no_batch(beside: Any, torch: Any, kind: str) -> None:
    for first in (False, True):
        beside(getattr(nn, kind)(5, 7, 2, batch_first=first), getattr(torch.nn, kind)(5, 7, 2, batch_first=first), X[0])


def test_relu_can_take_the_place_of_tanh(beside: Any, torch: Any) -> None:
    beside(nn.RNN(5, 7, nonlinearity="relu"), torch.nn.RNN(5, 7, nonlinearity="relu"), X)


@pytest.mark.parametrize("kind", KINDS)
def test_two_halves_with_the_state_between_equal_the_whole(kind: str) -> None:
    ml.manual_seed(1)
    layer = getattr(nn, kind)(5, 7, 2, dtype=ml.float64)
    x = ml.Tensor(rng.standard_normal((6, 3, 5)))
    whole, _ = layer(x)
    first, state = layer(x[:4])
    second, _ = layer(x[4:], state)
    np.testing.assert_allclose(ml.cat([first, second]).detach().numpy(), whole.detach().numpy(), rtol=1e-12)


def test_dropout_lies_between_layers_and_only_in_training() -> None:
    ml.manual_seed(1)
    layer = nn.GRU(5, 7, 2, dropout=0.5)
    x = ml.Tensor(X.astype("float32"))
    assert not ml.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert ml.equal(layer(x)[0], layer(x)[0])
    top = nn.GRU(5, 7, 1, dropout=0.5)
    assert ml.equal(top(x)[0], top(x)[0])


def test_first_values_lie_within_one_over_the_root_of_the_size() -> None:
    layer = nn.LSTM(20, 25)
    for parameter in layer.parameters():
        assert 0.15 < np.abs(parameter.array).max() <= 0.2
    layer.flatten_parameters()  # as PyTorch's programs call it


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_is_refused(kind: str) -> None:
    make = getattr(nn, kind)
    with pytest.raises(ShapeError, match="C = 5"):
        make(5, 7)(ml.zeros(2, 3, 4))
    with pytest.raises(ShapeError, match="length 0"):
        make(5, 7)(ml.zeros(0, 3, 5))
    wrong = ml.zeros(1, 2, 7)
    with pytest.raises(ShapeError, match="first state"):
        make(5, 7)(ml.zeros(2, 3, 5), (wrong, wrong) if kind == "LSTM" else wrong)
    with pytest.raises(ConfigError, match="sizes"):
        make(5, 0)
    with pytest.raises(ConfigError, match="dropout"):
        make(5, 7, dropout=1.5)
    with pytest.raises(ConfigError, match="nonlinearity"):
        nn.RNN(5, 7, nonlinearity="gelu")


@pytest.mark.parametrize("V", [11, 200])  # tokens that occur often, and seldom
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_made_once_for_each_token_is_what_is_made_at_each_place(kind: str, options: Any, V: int) -> None:
    ml.manual_seed(1)
    layer = getattr(nn, kind)(5, 7, dtype=ml.float64, **options)
    runs = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    table = ml.Tensor(rng.standard_normal((V, 5)), requires_grad=True)
    tokens = ml.Tensor(rng.integers(0, V, (6, 4)))
    B = 6 if options.get("batch_first") else 4
    states = tuple(ml.Tensor(rng.standard_normal((runs, B, 7))) for _ in range(2 if kind == "LSTM" else 1))
    first = states if kind == "LSTM" else states[0]
    found = []
    for run in (
        lambda: layer.of_tokens(tokens, table, first),
        lambda: layer(nn.functional.embedding(tokens, table), first),
    ):
        y, last = run()
        table.grad = None
        layer.zero_grad()
        (y * y).sum().backward()
        gradients = [table.grad, *(p.grad for p in layer.parameters())]
        last = last if kind == "LSTM" else (last,)
        found.append([t.detach().numpy().copy() for t in (y, *last, *gradients)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    rows = [len(call[0]) for call in _linear_calls(lambda: layer.of_tokens(tokens, table, first))]
    assert rows[0] == (len(np.unique(tokens.array)) if V == 11 else 24)


def _linear_calls(run: Any) -> list[Any]:
    """The inputs of each `linear` while it runs."""
    from minilm.nn import functional as F

    calls, linear = [], F.linear
    F.linear = lambda *args: calls.append(args) or linear(*args)  # type: ignore[assignment]
    try:
        run()
    finally:
        F.linear = linear  # type: ignore[assignment]
    return calls


# --- cells ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
def test_a_cell_is_that_of_torch(beside: Any, torch: Any, kind: str, bias: bool, dtype: str) -> None:
    ours, theirs = getattr(nn, kind)(5, 7, bias), getattr(torch.nn, kind)(5, 7, bias)
    beside(ours, theirs, X[0].astype(dtype))
    beside(ours, theirs, X[0, 0].astype(dtype))
    assert repr(ours) == repr(theirs)
    if kind != "LSTMCell":
        beside(ours, theirs, X[0].astype(dtype), rng.standard_normal((3, 7)).astype(dtype))


def test_steps_of_a_cell_are_a_layer() -> None:
    ml.manual_seed(1)
    layer, cell = nn.LSTM(5, 7, dtype=ml.float64), nn.LSTMCell(5, 7, dtype=ml.float64)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    state, outputs = None, []
    for x in ml.Tensor(X):
        state = cell(x, state)
        outputs.append(state[0])
    np.testing.assert_allclose(ml.stack(outputs).detach().numpy(), layer(ml.Tensor(X))[0].detach().numpy(), rtol=1e-12)
    copied = copy.deepcopy(cell)
    copied.weight_ih.detach().fill_(0)
    assert cell.weight_ih.array.any()
    assert not ml.equal(copied(ml.Tensor(X[0]))[0], cell(ml.Tensor(X[0]))[0])


def test_what_does_not_fit_a_cell_is_refused() -> None:
    with pytest.raises(ShapeError, match="C = 5"):
        nn.LSTMCell(5, 7)(ml.zeros(3, 4))
    with pytest.raises(ShapeError, match="first state"):
        nn.GRUCell(5, 7)(ml.zeros(3, 5), ml.zeros(3, 6))
    with pytest.raises(ShapeError, match="2 tensors, not of 1"):
        nn.LSTM(5, 7)(ml.zeros(2, 3, 5), (ml.zeros(1, 3, 7),))
