"""What gradcheck says of a wrong gradient: the likely cause, and the smallest input that shows it."""

from __future__ import annotations

import re

import numpy as np
import pytest

import minilm as ml
from minilm.tensor import Tensor
from minilm.testing import GradientError, gradcheck, gradgradcheck


def draw(*shape, seed=1):
    return np.random.default_rng(seed).standard_normal(shape)


def failure(function, *inputs, **settings):
    with pytest.raises(GradientError) as error:
        gradcheck(function, inputs, **settings)
    return error.value


# name: forward, wrong backward, shapes of the inputs, what must be said
PLANTED = {
    "sign": (np.sin, lambda dy, x: -dy * np.cos(x), [(2, 3)], "sign is wrong"),
    "factor": (np.sin, lambda dy, x: 2 * dy * np.cos(x), [(2, 3)], "times 2$"),
    "any factor": (np.sin, lambda dy, x: 1.7 * dy * np.cos(x), [(2, 3)], r"times 1\.7$"),
    "mean for sum": (
        lambda x: x.mean(-1),
        lambda dy, x: dy[:, None] * np.ones_like(x),
        [(2, 5)],
        r"times 5 \(axis 1 of input 0\): a mean where a sum",
    ),
    "scale": (
        lambda q, k: q @ k.T / np.sqrt(5),
        lambda dy, q, k: (dy @ k, dy.T @ q / np.sqrt(5)),
        [(2, 5), (3, 5)],
        r"times sqrt\(5 \(axis 1 of input 0\)\)",
    ),
    "broadcast": (lambda x, b: x + b, lambda dy, x, b: (dy, dy[:1]), [(2, 3), (1, 3)], "sum over the axes along which"),
    "transposed": (
        lambda x, w: x @ w,
        lambda dy, x, w: (dy @ w.T, (x.T @ dy).T),
        [(2, 3), (3, 3)],
        r"transposed: with its axes in the order \(1, 0\)",
    ),
    "transposed output": (lambda x: x * 3, lambda dy, x: dy.T * 3, [(3, 3)], "transposed"),
    "swapped": (lambda x, y: x * y, lambda dy, x, y: (dy * x, dy * y), [(2, 3), (2, 3)], "gradient of input 1"),
    "flipped": (lambda x: x**3, lambda dy, x: (dy * 3 * x**2)[::-1], [(5,)], "turned round along axis 0"),
    "transposed Jacobian": (lambda x: np.cumsum(x), lambda dy, x: np.cumsum(dy), [(5,)], "Jacobian is transposed"),
    "shifted": (lambda x: x**3, lambda dy, x: np.roll(dy * 3 * x**2, 1), [(5,)], "shifted by 1 along axis 0"),
    "detached": (lambda x, y: x * y, lambda dy, x, y: (dy * y, None), [(2, 3), (2, 3)], "no gradient arrives"),
    "mask": (
        lambda x: x**2,
        lambda dy, x: 2 * x * dy * (np.arange(x.size) % 3 > 0),
        [(7,)],
        "4 of 7 slopes are right and the others zero",
    ),
    "not finite": (lambda x: x**2, lambda dy, x: dy * x / (0 * x), [(3,)], "not finite"),
}


@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value)")
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_mistake_is_named(name, planted):
    forward, backward, shapes, words = PLANTED[name]
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    assert re.search(words, failure(planted(forward, backward), *inputs).cause), name


def test_a_detached_path_is_named():
    def function(x, y):
        return (x * y.detach() + 1).log1p()

    x, y = Tensor(np.abs(draw(2, 3)), requires_grad=True), Tensor(np.abs(draw(2, 3)), requires_grad=True)
    error = failure(function, x, y)
    assert error.input == 1
    assert "detached" in error.cause


def test_an_unknown_mistake_is_not_explained_away(planted):
    wrong = planted(lambda x: x * np.sin(x), lambda dy, x: dy * x * np.cos(x))  # without sin(x)
    assert failure(wrong, draw(2, 3)).cause == ""


def test_a_kink_is_called_one():
    error = failure(lambda x: x.relu(), np.zeros(3))
    assert "kink" in error.cause
    assert "0 before and 1 behind" in error.cause
    assert error.smallest is None


def test_single_precision_inside_is_seen():
    assert "float32" in failure(lambda x: (x.to("float32") * 2).to("float64"), draw(2, 3)).cause


def test_a_gradient_of_another_shape_says_what_it_suggests(planted):
    wide = planted(lambda x, b: x + b, lambda dy, x, b: (dy, dy))
    with pytest.raises((GradientError, ml.MinilmError), match=r"\(2, 3\)"):
        gradcheck(wide, [draw(2, 3), draw(1, 3)])


# --- the smallest failing input ---------------------------------------------------------------------------


def test_the_smallest_failing_input_is_small(planted):
    wrong = planted(lambda x, w: x @ w, lambda dy, x, w: (dy @ w.T * (1 + 1e-3), x.T @ dy))
    error = failure(wrong, draw(5, 7), draw(7, 3))
    assert [x.shape for x in error.smallest] == [(1, 1), (1, 1)]
    assert [x.item() for x in error.smallest] == [1.0, 1.0]
    assert "0: float64 [[1.]]" in str(error)


def test_it_keeps_what_the_failure_needs(planted):
    """The fault shows from the third element on: two are not enough."""

    def backward(dy, x):
        dx = 2 * x * dy
        dx[2:] *= 1.5
        return dx

    error = failure(planted(lambda x: x**2, backward), draw(11))
    assert error.smallest[0].shape == (3,)


def test_it_is_not_led_astray_to_a_kink(planted):
    """At 0, which is simpler, relu fails for another reason."""
    wrong = planted(lambda x: np.maximum(x, 0), lambda dy, x: 2 * dy * (x > 0))
    error = failure(wrong, draw(3, 2))
    assert "times 2" in error.cause
    assert error.smallest[0].shape == (1, 1)
    assert error.smallest[0].item() > 0


def test_shrinking_can_be_left_out(planted):
    assert failure(planted(np.sin, lambda dy, x: dy), draw(3), shrink=False).smallest is None


# --- what makes a check meaningless is said ----------------------------------------------------------------


def test_a_function_that_changes_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match=r"another value each time, .* apart.*dropout"):
        gradcheck(lambda x: x * float(rng.random()), [draw(3)])
    with pytest.raises(GradientError, match="another value each time"):
        gradcheck(lambda x: ml.nn.functional.dropout(x, 0.5), [draw(7, 7)])


def test_a_gradient_that_changes_is_refused(planted):
    rng = np.random.default_rng(0)
    with pytest.raises(GradientError, match="gradient of input 0 is another each time"):
        gradcheck(planted(np.sin, lambda dy, x: dy * np.cos(x) + 1e-30 + rng.random() * 1e-12), [draw(3)])


def test_an_output_that_does_not_depend_on_the_input_is_refused():
    with pytest.raises(GradientError, match="no output depends on input 1: no gradient arrives"):
        gradcheck(lambda x, y: x * 2, [draw(3), draw(3)])
    with pytest.raises(GradientError, match="no output depends on input 0: its gradient and its slopes are all zero"):
        gradcheck(lambda x: x.floor(), [draw(3) + 0.1])
    assert gradcheck(lambda x: x.floor(), [draw(3) + 0.1], allow_independent=True)


def test_integers_are_refused():
    with pytest.raises(GradientError, match="integers have none: pass floating arrays"):
        gradcheck(lambda x: x * 2, [np.arange(3)])
    with pytest.raises(GradientError, match="input 1 is an array of integers"):
        gradcheck(lambda x, y: x * y, [draw(3), np.arange(3)])
    assert gradcheck(lambda x, y: x * y, [draw(3), Tensor(np.arange(3))])
    assert gradcheck(lambda x, i: x[i], [draw(3), np.array([2, 0, 2])])  # an index, not a number


def test_float32_is_refused():
    with pytest.raises(GradientError, match="slopes need float64, and an output is float32"):
        gradcheck(lambda x: x.to("float32"), [draw(3)])
    assert gradcheck(lambda x: x.sin(), [draw(3).astype("float32")])  # the input is widened


def test_a_jacobian_beyond_all_bounds_is_refused():
    with pytest.raises(GradientError, match="fast=True"):
        gradcheck(lambda x: x * 2, [draw(100, 100)])
    assert gradcheck(lambda x: x * 2, [draw(100, 100)], fast=True)


def test_second_derivatives_refuse_the_same():
    with pytest.raises(GradientError, match="another value each time"):
        gradgradcheck(lambda x: ml.nn.functional.dropout(x, 0.5), [draw(7, 7)])
    with pytest.raises(GradientError, match="float32"):
        gradgradcheck(lambda x: x.to("float32"), [draw(3)])
