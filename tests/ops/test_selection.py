"""Selections at their edges: the kinks, where the registry's samples have no value, and equal elements."""

from __future__ import annotations

import pytest

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
