"""How an operation is called."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm.autograd import grad
from minilm.errors import ShapeError
from minilm.tensor import Tensor


@pytest.mark.parametrize("name", ["exp", "tanh", "sqrt"])
def test_a_saved_0d_result_is_no_constant_to_second_derivatives(name):
    """NumPy turns 0-d results into scalars; the saved one must still be known as the result."""
    values = []
    for shape in [(), (1,)]:
        x = Tensor(np.full(shape, 0.7), requires_grad=True)
        (first,) = grad(getattr(x, name)(), x, create_graph=True)
        (second,) = grad(first, x)
        values.append(second.item())
    assert values[0] == values[1] != 0


def test_a_0d_result_is_guarded_against_overwriting():
    x = Tensor(np.array(0.7), requires_grad=True)
    y = x.exp()
    y.add_(1.0)
    with pytest.raises(RuntimeError, match="exp needs its result"):
        y.backward()


def test_errors_speak_of_operations_as_users_call_them():
    with pytest.raises(ShapeError, match=r"^matmul: x \(3, 4\) and y \(5, 6\) do not fit: .*4 is not 5"):
        ml.zeros(3, 4) @ ml.zeros(5, 6)
    with pytest.raises(TypeError, match=r"^softmax missing 1 required positional argument: 'dim'"):
        ml.softmax(ml.zeros(3))
    assert (ml.ones(2, 2, requires_grad=True) @ ml.ones(2, 2)).grad_fn.name == "matmul"


def test_where_of_two_numbers_has_the_default_type():
    mask = ml.tensor([True, False])
    assert ml.where(mask, 0.0, -np.inf).dtype == ml.float32
    assert ml.where(mask, 1, 2.5).dtype == ml.float32
    assert ml.where(mask, 1, 2).dtype == ml.int64
    assert ml.where(mask, 0.0, ml.zeros(2, dtype=ml.float64)).dtype == ml.float64


@pytest.mark.parametrize("divisor", [0, ml.tensor([1, 0])], ids=["number", "tensor"])
def test_integers_are_not_divided_by_zero(divisor):
    for divide in (lambda x, y: x // y, lambda x, y: x % y):
        with pytest.raises(ZeroDivisionError, match="an integer divided by 0"):
            divide(ml.tensor([3, 4]), divisor)
    with np.errstate(all="ignore"):
        assert (ml.tensor([3.0]) // 0).item() == np.inf


NUMPYS = [
    lambda m, x: x.sum(axis=1, keepdims=True),
    lambda m, x: x.mean(axis=-1, keepdims=True),
    lambda m, x: m.std(x, axis=0),
    lambda m, x: x.max(axis=1, keepdims=True).values,
    lambda m, x: m.argmax(x, axis=1),
    lambda m, x: m.softmax(x, axis=0),
    lambda m, x: m.cat([x, x], axis=1),
    lambda m, x: m.stack([x, x], axis=-1),
    lambda m, x: x.cumsum(axis=1),
]


@pytest.mark.parametrize("call", NUMPYS)
def test_numpys_names_of_options_are_taken_as_in_torch(both, call):
    values = np.random.default_rng(1).standard_normal((3, 5))
    both(lambda m: call(m, m.tensor(values)))


def test_one_option_under_two_names_is_refused():
    for call in (lambda x: x.sum(dim=0, axis=1), lambda x: x.mean(dim=0, axis=1), lambda x: ml.cat([x], dim=0, axis=0)):
        with pytest.raises(TypeError, match="two names"):
            call(ml.ones(2, 3))
