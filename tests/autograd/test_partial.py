"""Gradients that the walk is given before they are there: products that it adds to what waits."""

import numpy as np
import pytest

import minilm as ml
from minilm import kernels
from minilm.autograd import detect_anomaly, grad
from minilm.errors import AnomalyError
from minilm.nn import functional as F

MAPS = {"linear": F.linear, "linear_gelu": F.linear_gelu, "linear_relu": F.linear_relu}


def numbers(*shape, seed=0, dtype="float32"):
    return ml.tensor(np.random.default_rng(seed).normal(size=shape).astype(dtype), requires_grad=True)


@pytest.mark.parametrize("through", MAPS.values(), ids=MAPS)
@pytest.mark.usefixtures("every_backend")
def test_where_a_residual_stream_parts(through):
    x, weight, bias = numbers(3, 5, 40), numbers(40, 40, seed=1), numbers(40, seed=2)
    dz = np.random.default_rng(3).normal(size=x.shape).astype("float32")
    (x + through(x, weight, bias)).backward(ml.tensor(dz))
    h = x.detach().requires_grad_()
    through(h, weight, bias).backward(ml.tensor(dz))
    np.testing.assert_array_equal(x.grad.numpy(), h.grad.numpy() + dz)  # the same sum, the same rounding


def test_three_ways_at_once_and_in_any_order():
    def run(dtype, order):
        x, weight = numbers(7, 16, dtype=dtype), numbers(16, 16, seed=1, dtype=dtype)
        ways = [lambda: F.linear(x, weight), lambda: x * 2, lambda: F.linear_relu(x, weight)]
        first, second, third = (ways[i]() for i in order)
        ((first + second) * third).sum().backward()
        return x.grad.numpy()

    for order in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        np.testing.assert_allclose(run("float32", order), run("float64", order), rtol=1e-4, atol=1e-4)


def test_the_callers_gradient_is_left_alone():
    x, weight, given = numbers(4, 6), numbers(6, 6, seed=1), ml.tensor(np.ones((4, 6), "float32"))
    (x + F.linear(x, weight)).backward(given)
    np.testing.assert_array_equal(given.numpy(), 1)
    assert not np.shares_memory(x.grad.array, given.array)


def test_a_product_that_nobody_wants_is_not_computed(monkeypatch):
    x, weight = numbers(4, 6).detach(), numbers(6, 6, seed=1)
    calls = []
    plain = kernels.matmul
    monkeypatch.setattr(kernels, "matmul", lambda *args, **options: calls.append(args) or plain(*args, **options))
    F.linear_relu(x, weight).sum().backward()
    assert len(calls) == 1  # weight's
    h = x.clone().requires_grad_()
    calls.clear()
    grad(F.linear_relu(h * 1, weight).sum(), weight)  # the way to h is not walked
    assert len(calls) == 1


def test_anomalies_are_found_where_they_are_born():
    x, weight = numbers(2, 3), ml.tensor(np.full((3, 3), 1e38, "float32"), requires_grad=True)
    with np.errstate(all="ignore"), detect_anomaly():
        z = F.linear(x, weight)
        with pytest.raises(AnomalyError, match=r"linear: .* in its backward"):
            z.backward(ml.tensor(np.full((2, 3), 1e5, "float32")))
