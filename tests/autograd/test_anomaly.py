"""detect_anomaly: where a NaN or an infinity is born, forward and backward, and what is none."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest

from minilm.autograd import Function, detect_anomaly, grad
from minilm.creation import ones, tensor, zeros
from minilm.errors import AnomalyError
from minilm.modes import set_grad_enabled, state
from minilm.nn import functional as F
from minilm.ops.selection import where


def leaf(*values):
    return tensor(list(values), requires_grad=True)


def line_of(function, text):
    """Where `text` stands in the source of a test: `test_anomaly.py:12`."""
    with open(__file__, encoding="utf-8") as file:
        lines = file.read().splitlines()
    first = function.__code__.co_firstlineno
    return f"test_anomaly.py:{next(i for i in range(first, len(lines) + 1) if text in lines[i - 1])}"


# --- forward -------------------------------------------------------------------------------------


def test_forward_names_operation_line_and_ranges():
    x = tensor([[0.25, 1.0, 4.0], [9.0, 0.0, 2.0]])
    with detect_anomaly(), pytest.raises(AnomalyError) as caught:
        (x * 2).log()  # born here
    first, second = str(caught.value).splitlines()
    assert first.startswith("log: infinity was born in its forward pass, called at ")
    assert line_of(test_forward_names_operation_line_and_ranges, "(x * 2).log()") in first
    assert first.endswith("(x * 2).log()  # born here")
    assert second == "  input 0: (2, 3) float32 from 0 to 18"


BORN = {
    "log": (lambda x: x.log(), "infinity", ["(3,) float32 from 0 to 4"]),
    "div": (lambda x: x / x, "NaN", ["(3,) float32 from 0 to 4", "(3,) float32 from 0 to 4"]),
    "exp": (lambda x: (x * 1000).exp(), "infinity", ["(3,) float32 from 0 to 4000"]),
    "pow": (lambda x: (x - 1) ** 0.5, "NaN", ["(3,) float32 from -1 to 3", "0.5"]),
    "sub": (lambda x: (x + math.inf) - math.inf, "NaN", ["(3,) float32, nothing finite, with 3 infinite", "inf"]),
    "cast": (lambda x: (x.double() * 1e300).float(), "infinity", ["(3,) float64 from 0 to 4e+300"]),
    "softmax": (
        lambda x: x.masked_fill(ones(3).bool(), -math.inf).softmax(-1),
        "NaN",
        ["(3,) float32, nothing finite, with 3 infinite"],
    ),
}


@pytest.mark.parametrize("operation", BORN)
@pytest.mark.parametrize("recording", [True, False])
def test_what_is_born_forward(operation, recording):
    function, what, ranges = BORN[operation]
    x = leaf(0.0, 1.0, 4.0)
    with detect_anomaly(), set_grad_enabled(recording), pytest.raises(AnomalyError) as caught:
        function(x)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{operation}: {what} was born in its forward pass")
    assert rest == [f"  input {i}: {text}" for i, text in enumerate(ranges)]


class Breaking(Function):
    """A NaN out of nothing, forward."""

    @staticmethod
    def forward(ctx, x, i):
        return x * math.nan

    @staticmethod
    def backward(ctx, dy):
        return dy, None


def test_a_users_function():
    x = leaf(1.0, -2.0)
    with detect_anomaly(), pytest.raises(AnomalyError, match="Breaking: NaN was born in its forward pass") as caught:
        Breaking.apply(x, tensor([3, 7]))
    assert str(caught.value).splitlines()[1:] == [
        "  input 0: (2,) float32 from -2 to 1",
        "  input 1: (2,) int64 from 3 to 7",
    ]


def test_ranges_count_what_is_not_finite():
    from minilm.autograd.anomaly import _range

    assert (
        _range(np.array([math.nan, 1.5, math.inf, -2.0])) == "(4,) float64 from -2 to 1.5, with 1 NaN, with 1 infinite"
    )
    assert _range(np.zeros((0, 3), np.float32)) == "(0, 3) float32, empty"
    assert _range(np.array([True, False])) == "(2,) bool from False to True"


# --- backward ------------------------------------------------------------------------------------


def test_backward_names_operation_line_and_ranges():
    x = leaf(0.0, 1.0, 4.0)
    with detect_anomaly():
        y = (x * 1).sqrt()  # recorded here
        loss = (y * 3).sum()
        with pytest.raises(AnomalyError) as caught:
            loss.backward()
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("sqrt: infinity was born in its backward pass; it was recorded at ")
    assert line_of(test_backward_names_operation_line_and_ranges, "y = (x * 1).sqrt()") in first
    assert rest == ["  gradient received 0: (3,) float32 from 3 to 3", "  saved value 0: (3,) float32 from 0 to 2"]
    assert x.grad is None


def test_backward_of_a_graph_recorded_before():
    x = leaf(0.0, 1.0)
    loss = x.sqrt().sum()
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"sqrt: infinity .* backward"):
        loss.backward()


class Wrong(Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, dy):
        return dy * math.nan


def test_backward_of_a_users_function_and_in_grad():
    x = leaf(1.0, 2.0)
    with detect_anomaly():
        for walk in (lambda y: y.sum().backward(), lambda y: grad(y.sum(), x)):
            with pytest.raises(AnomalyError, match="Wrong: NaN was born in its backward pass"):
                walk(Wrong.apply(x))
    assert x.grad is None
    Wrong.apply(x).sum().backward()
    assert np.isnan(x.grad.array).all()


def test_the_recorded_walk_is_watched_too():
    x = leaf(0.0, 4.0)
    with detect_anomaly():
        (first,) = grad((x**1.5).sum(), x, create_graph=True)
        with pytest.raises(AnomalyError, match="infinity was born in its backward pass"):
            grad(first.sum(), x)


# --- what is no anomaly --------------------------------------------------------------------------


INTENDED = {
    "a mask of minus infinity": lambda x: x.masked_fill(tensor([True, False, True]), -math.inf).softmax(-1),
    "where": lambda x: where(x > 1, x, -math.inf).softmax(-1),
    "an assignment": lambda x: _assigned(x).softmax(-1),
    "a border": lambda x: F.pad(x, (1, 1), value=-math.inf).softmax(-1),
    "causal attention": lambda x: F.scaled_dot_product_attention(*[x.reshape(1, 3, 1)] * 3, is_causal=True),
    "adding infinity": lambda x: x + math.inf,
    "what comes from an infinity": lambda x: (x + math.inf).exp(),
    "what comes from a NaN": lambda x: (x + math.nan).log(),
    "nothing at all": lambda x: zeros(0).log(),
}


def _assigned(x):
    y = x * 1
    y[0] = -math.inf
    return y


@pytest.mark.parametrize("case", INTENDED)
def test_what_is_meant_is_no_anomaly(case):
    x = leaf(0.5, 1.0, 4.0)
    with detect_anomaly():
        y = INTENDED[case](x)
        if y.requires_grad and np.isfinite(y.array).all():
            y.sum().backward()
            assert np.isfinite(x.grad.array).all()


def test_a_training_step_of_a_small_attention_model():
    x, w = ones(2, 3, 4), tensor(np.eye(4, dtype=np.float32), requires_grad=True)
    with detect_anomaly():
        h = F.scaled_dot_product_attention(x @ w, x @ w, x @ w, is_causal=True)
        F.cross_entropy(h.reshape(6, 4), tensor([0, 1, 2, 3, 0, 1])).backward()
    assert np.isfinite(w.grad.array).all()


# --- the switch ----------------------------------------------------------------------------------


def test_outside_nothing_is_searched():
    x = leaf(0.0, 1.0)
    with np.errstate(all="ignore"):
        assert x.log().tolist() == [-math.inf, 0.0]


def test_it_nests_and_ends_with_an_exception():
    assert not state.anomaly
    again = detect_anomaly()
    with again:
        with again:
            assert state.anomaly
        assert state.anomaly
    assert not state.anomaly
    with pytest.raises(AnomalyError), again:
        zeros(1).log()
    assert not state.anomaly


def test_numpys_warnings_are_silent_inside_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with detect_anomaly(), pytest.raises(AnomalyError):
            zeros(1).log()
        assert not seen
        zeros(1).log()
    assert re.search("divide by zero", str(seen[0].message))
