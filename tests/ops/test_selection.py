"""What chooses and cuts, at NaN, at kinks and at ties: slopes as in PyTorch, and none lost without a word."""

from __future__ import annotations

import math

import pytest

import minilm as ml
from minilm.errors import AutogradError

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("name", ["relu", "abs", "sign"])
def test_values_and_slopes_at_nan(name, both):
    """The slope of relu is 1 at NaN, those of |x| and sign(x) are 0; where relu is flat, not even infinity passes."""

    arriving = [2.0, INF, NAN, 3.0, INF, 5.0, 7.0] if name == "relu" else [2.0, 4.0, 0.5, 3.0, 1.0, 5.0, 7.0]

    def story(m):
        x = m.tensor([NAN, -INF, -1.0, -0.0, 0.0, 1.0, INF], dtype=m.float64, requires_grad=True)
        y = getattr(m, name)(x)
        return [y, *m.autograd.grad(y, x, m.tensor(arriving, dtype=m.float64))]

    both(story)


def test_the_slope_of_a_remainder_where_the_quotient_vanishes(both):
    """-1e-30 lies one whole 1e30 below its remainder, though their quotient rounds to 0."""

    def story(m):
        x = m.tensor([-1e-30, 1e-30, -7.0], dtype=m.float32, requires_grad=True)
        y = m.tensor([1e30, 1e30, 2.0], dtype=m.float32, requires_grad=True)
        return [*m.autograd.grad(m.remainder(x, y).sum(), [x, y])]

    both(story)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (
            lambda x, bound: x.masked_fill(x > 0, bound),
            r"masked_fill: no gradient flows to value.*where\(mask, value, x\)",
        ),
        (lambda x, bound: x.clamp(bound), r"clamp: no gradient flows to min.*maximum\(x, min\) has one"),
        (lambda x, bound: x.clamp(max=bound), r"clamp: no gradient flows to max.*minimum\(x, max\) has one"),
    ],
)
def test_a_gradient_that_would_be_lost_is_refused(attempt, words):
    x, bound = ml.randn(3, requires_grad=True), ml.tensor(0.5, requires_grad=True)
    with pytest.raises(AutogradError, match=words):
        attempt(x, bound)
    with ml.no_grad():
        attempt(x, bound)
    assert attempt(x, bound.detach()).requires_grad


def test_bounds_and_fillings_that_are_tensors(both):
    def story(m):
        x = m.tensor([[-2.0, 0.25, 3.0], [1.0, -1.0, 0.5]], dtype=m.float64, requires_grad=True)
        low = m.tensor([-1.0, 0.5, 0.0], dtype=m.float64)
        results = [x.clamp(low), x.clamp(max=low), x.masked_fill(x > 0.3, m.tensor(7.0, dtype=m.float64))]
        return [*results, *m.autograd.grad(sum((r * r).sum() for r in results), x)]

    both(story)


AT_KINKS = [-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0]


def slopes(m, function, *columns):
    """What the function gives, and its gradients for a different weight on each element."""
    tensors = [m.tensor(values, dtype=m.float64, requires_grad=True) for values in columns]
    y = function(m, *tensors)
    (y * m.arange(1.0, len(columns[0]) + 1, dtype=m.float64)).sum().backward()
    return [y, *(t.grad for t in tensors)]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x.relu(),
        lambda m, x: m.nn.functional.leaky_relu(x, 0.1),
        lambda m, x: x.abs(),
        lambda m, x: x.sign(),
        lambda m, x: x.clamp(-1.0, 0.5),
        lambda m, x: x.clamp(min=-0.5),
        lambda m, x: x.clamp(max=1.0),
    ],
    ids=["relu", "leaky_relu", "abs", "sign", "clamp", "clamp min", "clamp max"],
)
def test_slopes_at_kinks(function, both):
    both(lambda m: slopes(m, function, AT_KINKS))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_equal_elements_share_the_gradient(name, both):
    x, y = [1.0, 2.0, 2.0, -1.0], [2.0, 2.0, 1.0, -1.0]
    both(lambda m: slopes(m, lambda m, x, y: getattr(m, name)(x, y), x, y))
