"""The checkers are checked: what is wrong by little, or wrong in a known way, is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minilm.autograd import Function
from minilm.tensor import Tensor
from minilm.testing import GradientError, gradcheck, gradgradcheck


def draw(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_right_gradients_pass(planted):
    assert gradcheck(planted(lambda x: 2 * x, lambda dy, x: 2 * dy), [draw(2, 3)])
    assert gradcheck(lambda x, w: (x @ w).tanh(), [draw(2, 3), draw(3, 5)])
    assert gradcheck(lambda x: x.exp(), [draw(3, 5, 7)])
    for settings in ({"limit": 64}, {"fast": True}, {"method": "central"}, {"method": "complex"}):
        assert gradcheck(lambda x: x.exp(), [draw(3, 5, 7)], **settings)


def test_a_slope_of_2_001_where_2_is_right_is_refused(planted):
    wrong = planted(lambda x: 2 * x, lambda dy, x: 2.001 * dy)
    with pytest.raises(GradientError) as error:
        gradcheck(wrong, [draw(2, 3)])
    text = str(error.value)
    found = error.value
    assert (found.input, found.index, found.place) == (0, "index (0, 0)", "output 0 at (0, 0)")
    assert abs(found.analytic - 2.001) < 1e-12
    assert abs(found.numeric - 2) < 1e-8
    assert "input 0 of shape (2, 3), index (0, 0)" in text
    assert "output 0 at (0, 0)" in text
    assert re.search(r"analytic 2\.001\n  numeric  (2|2\.0000000\d*|1\.99999999\d*)\n  ratio    1\.0005", text)


@pytest.mark.parametrize("settings", [{}, {"limit": 64}, {"fast": True}], ids=["whole", "sampled", "fast"])
def test_a_slope_wrong_in_the_fifth_digit_is_refused(settings, planted):
    with pytest.raises(GradientError, match="analytic"):
        gradcheck(planted(lambda x: 2 * x, lambda dy, x: 2.00002 * dy), [draw(11, 13)], **settings)


def test_the_complex_step_sees_the_ninth_digit(planted):
    """Central differences lose half of the digits; a complex step loses none."""
    wrong = planted(lambda x: np.exp(x), lambda dy, x: np.exp(x) * dy * (1 + 1e-8))
    assert gradcheck(wrong, [draw(2, 3)], method="central")
    with pytest.raises(GradientError, match="analytic"):
        gradcheck(wrong, [draw(2, 3)])


def test_a_function_without_complex_step_is_checked_by_differences():
    assert gradcheck(lambda x: x.abs(), [draw(2, 3)])  # computes in complex numbers, but is not analytic
    assert gradcheck(lambda x: x.to("float64").sigmoid().abs(), [draw(2, 3)])
    with pytest.raises(ValueError, match="does not work here: the outputs are not complex"):
        gradcheck(lambda x: x.abs(), [draw(2, 3)], method="complex")
    with pytest.raises(ValueError, match="central, complex, not 'forward'"):
        gradcheck(lambda x: x, [draw(2, 3)], method="forward")


def test_one_wrong_element_among_many_is_refused(planted):
    """Where only 64 of 1001 elements are moved alone, the random directions move all of them."""

    def backward(dy, x):
        dx = 2 * dy
        dx[5, 6, 11] *= 1.01
        return dx

    with pytest.raises(GradientError, match="random"):
        gradcheck(planted(lambda x: 2 * x, backward), [draw(7, 11, 13)], limit=64)
    with pytest.raises(GradientError, match=re.escape("index (5, 6, 11); output 0 at (5, 6, 11)")):
        gradcheck(planted(lambda x: 2 * x, backward), [draw(7, 11, 13)], shrink=False)


def test_a_dropped_term_is_refused(planted):
    wrong = planted(lambda x: x * np.sin(x), lambda dy, x: dy * x * np.cos(x))  # without sin(x)
    with pytest.raises(GradientError, match="input 0"):
        gradcheck(wrong, [draw(2, 3)])


def test_a_missing_broadcast_sum_is_refused(planted):
    wrong = planted(lambda x, b: x + b, lambda dy, x, b: (dy, dy[:1]))  # one row instead of their sum
    with pytest.raises(GradientError, match=re.escape("input 1 of shape (1, 3)")):
        gradcheck(wrong, [draw(2, 3), draw(1, 3)])


def test_a_transposed_gradient_is_refused(planted):
    square = planted(lambda x, w: x @ w, lambda dy, x, w: (dy @ w, x.T @ dy))  # w.T forgotten, shapes agree
    with pytest.raises(GradientError, match="input 0"):
        gradcheck(square, [draw(2, 3), draw(3, 3)])


def test_a_softmax_backward_of_zeros_is_refused(planted):
    """The gradient of softmax's plain sum is zero: only another cotangent sees this."""
    zeros = planted(softmax, lambda dy, x: np.zeros_like(x))
    with pytest.raises(GradientError, match="analytic 0\n"):
        gradcheck(zeros, [draw(2, 3)])
    with pytest.raises(GradientError, match="random cotangent"):
        gradcheck(zeros, [draw(13, 11)], fast=True)


def test_a_wrong_second_input_is_refused(planted):
    with pytest.raises(GradientError, match="input 1"):
        gradcheck(planted(lambda x, y: x * y, lambda dy, x, y: (dy * y, dy * y)), [draw(2), 1 + draw(2)])


def test_a_kink_under_the_point_is_refused():
    with pytest.raises(GradientError, match="ratio"):
        gradcheck(lambda x: x.relu(), [np.zeros(3)])


def test_nothing_to_check_is_an_error():
    with pytest.raises(GradientError, match="no input"):
        gradcheck(lambda x: x, [np.arange(3)])
    with pytest.raises(GradientError, match="no input"):
        gradcheck(lambda x: x, [Tensor(draw(3))])
    with pytest.raises(GradientError, match="no floating output"):
        gradcheck(lambda x: x > 0, [draw(3)])
    with pytest.raises(GradientError, match="float32"):
        gradcheck(lambda x: x.to("float32"), [draw(3)])


def test_inputs_are_copied_and_constants_stay():
    x, index = draw(2, 3), np.array([1, 0])
    before = x.copy()
    seen = []

    def function(t, i):
        seen.append(i.array)
        return t * t

    gradcheck(function, [x, index])
    assert np.array_equal(x, before)
    assert seen[0].dtype == np.int64
    seen.clear()
    gradcheck(function, [x, Tensor(index)])
    assert all(i.dtype == np.int64 for i in seen)


# --- second derivatives ----------------------------------------------------------------------------------


def test_right_second_derivatives_pass():
    assert gradgradcheck(lambda x, w: (x @ w).tanh(), [draw(2, 3), draw(3, 5)])


def test_a_backward_on_detached_copies_is_refused():
    """Its first gradient is right, and the second lacks a term, without any sound."""

    class Detached(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.x = x.detach()
            return x * x

        @staticmethod
        def backward(ctx, dy):
            return dy * (ctx.x * 2)

    assert gradcheck(Detached.apply, [draw(3)])
    with pytest.raises(GradientError, match="input 0"):
        gradgradcheck(Detached.apply, [draw(3)])


def test_a_second_derivative_that_is_slightly_off_is_refused():
    class Off(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return dy * Slope.apply(x)

    class Slope(Function):  # 3 x^2, whose own derivative is planted: 6.003 x instead of 6 x
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * 3

        @staticmethod
        def backward(ctx, dy):
            (x,) = ctx.saved_tensors
            return dy * x * 6.003

    assert gradcheck(Off.apply, [draw(3)])
    with pytest.raises(GradientError, match="analytic"):
        gradgradcheck(Off.apply, [draw(3)])
