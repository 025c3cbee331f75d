"""A norm with a residual: the sum and its norm, in one pass."""

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.autograd import grad
from minilm.errors import ShapeError

RNG = np.random.default_rng(3)


def drawn(*shape, dtype="float32"):
    return ml.tensor(RNG.normal(size=shape).astype(dtype), requires_grad=True)


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("shape", "axes"), [((4, 5, 16), 16), ((3, 16), 16), ((4, 3, 8), (3, 8))], ids=str)
def test_it_is_the_sum_and_the_norm_of_the_sum_bit_by_bit(kind, shape, axes):
    norm = kind(axes)
    for p in norm.parameters():
        p.data = drawn(*p.shape).detach()
    x, residual, weight = drawn(*shape), drawn(*shape), drawn(*shape).detach()

    def run(fused):
        total, y = norm(x, residual) if fused else (x + residual, norm(x + residual))
        wanted = [x, residual, *norm.parameters()]
        return [total.detach(), y.detach(), *grad((total * weight).sum() + (y * y * weight).sum(), wanted)]

    for ours, composed in zip(run(True), run(False)):
        np.testing.assert_array_equal(ours.numpy(), composed.numpy())


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("used", [0, 1], ids=["only the sum", "only the norm"])
def test_one_of_the_two_may_go_unused(kind, used):
    norm = kind(8, dtype=ml.float64)
    x, residual = drawn(3, 8, dtype="float64"), drawn(3, 8, dtype="float64")
    found = grad(norm(x, residual=residual)[used].square().sum(), [x, residual])
    total = x + residual
    wanted = grad((norm(total) if used else total).square().sum(), [x, residual])
    for ours, composed in zip(found, wanted):
        np.testing.assert_allclose(ours.numpy(), composed.numpy(), rtol=1e-12, atol=1e-12)
    (first,) = grad(norm(x, residual=residual)[used].square().sum(), [x], create_graph=True)
    (again,) = grad((norm(total) if used else total).square().sum(), [x], create_graph=True)
    seconds = [grad((t * t).sum(), [residual])[0].numpy() for t in (first, again)]
    np.testing.assert_allclose(*seconds, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_a_residual_of_another_shape_is_refused(kind):
    with pytest.raises(ShapeError, match=r"x \(3, 8\) and residual \(1, 8\) must have one shape"):
        kind(8)(drawn(3, 8), residual=drawn(1, 8))
