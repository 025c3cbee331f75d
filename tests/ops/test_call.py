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
