"""Reductions where they have edges: zeros in a product, one element's variance, ties, orders of norms, types."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minilm as ml
from minilm.errors import DtypeError, ShapeError

INF = math.inf


def leaf(m, values):
    return m.tensor(values, dtype=m.float64, requires_grad=True)


def walked(m, z, x):
    c = m.tensor([0.5, -2.0, 3.0, 0.25, 1.5, -1.0], dtype=m.float64)[: z.numel()].reshape(tuple(z.shape))
    return [z, *m.autograd.grad((z * c).sum(), x, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("zeros", [[], [1], [1, 3], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("dim", [None, 0])
def test_prod_with_zeros(zeros, dim, both):
    """One zero: only its own slope is left; two: none is."""
    values = [2.0, -3.0, 0.5, 4.0, 1.5]
    for place in zeros:
        values[place] = 0.0

    def story(m):
        x = leaf(m, values)
        z = x.prod() if dim is None else x.prod(dim)
        (first,) = m.autograd.grad(z, x, create_graph=True)
        return [z, first, *m.autograd.grad(first.sin().sum(), x)]

    both(story)


def test_prod_of_nothing_and_of_integers(both):
    def story(m):
        x = m.zeros(2, 0, dtype=m.float64)
        n = m.tensor([[1, 2, 3], [4, 5, 6]])
        return [x.prod(), x.prod(1), x.prod(1, keepdim=True), x.prod(0), n.prod(), n.prod(0), (n > 2).prod(1)]

    both(story)


@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_with_pytorchs_older_argument(name, both):
    """A bool in the place of dim says whether the divisor is N - 1; a correction of None is 1."""

    def story(m):
        x = leaf(m, [[1.0, 4.0, 2.0], [0.5, -3.0, 7.0]])
        spread = getattr(x, name)
        return [
            spread(True),
            spread(False),
            spread(unbiased=False),
            spread(0, correction=None),
            spread(correction=None),
        ]

    both(story)


@pytest.mark.filterwarnings("ignore:(var|std).*degrees of freedom:UserWarning", "ignore:invalid value")
@pytest.mark.parametrize("name", ["var", "std"])
def test_spread_of_few_elements(name, both):
    """One element has no unbiased variance: NaN, as in PyTorch; none has no variance at all."""

    def story(m):
        one, none = m.tensor([[1.5], [2.5]], dtype=m.float64), m.zeros(2, 0, dtype=m.float64)
        f = getattr(m, name)
        seen = [f(one, 1), f(one, 1, correction=0), f(one), f(none, 1), f(none, 1, correction=0), f(one, 0)]
        seen += [f(one, correction=2), f(one, correction=3)]
        return [*seen, getattr(one, name)(0, unbiased=False), f(one, (0, 1), keepdim=True)]

    both(story)


@pytest.mark.parametrize("name", ["var", "std"])
def test_the_gradient_of_equal_elements_is_0(name, both):
    def story(m):
        x = leaf(m, [[2.0, 2.0, 2.0], [1.0, 2.0, 4.0]])
        return walked(m, getattr(x, name)(1), x)

    both(story)


def test_var_of_large_numbers_keeps_its_digits(both):
    """The mean is taken away first: the difference of two large sums of squares would be noise."""

    def story(m):
        return [(m.tensor([1.0, 2.0, 3.0, 4.0], dtype=m.float64) + 1e9).var(), m.tensor([1e4, 1e4 + 1]).var()]

    both(story)


@pytest.mark.parametrize("name", ["max", "min"])
def test_extremes_along_an_axis(name, both):
    """Named results; the gradient goes to the place that the index names."""

    def story(m):
        x = leaf(m, [[1.0, 5.0, -5.0], [2.0, 0.5, -7.0]])
        found = getattr(x, name)(1)
        kept = getattr(m, name)(x, 0, keepdim=True)
        pair = getattr(m, name)(x[0], x[1])
        total = found.values.sum() + (kept.values * x).sum() + (pair * pair).sum() + getattr(x, name)()
        whole = [getattr(x, name)(), getattr(x[0, 0], name)(), getattr(x[0, 0], name)(0)[1]]
        return [*found, *kept, pair, found.values, found.indices, *whole, *m.autograd.grad(total, x)]

    both(story)


def test_ties(both):
    """amax shares the gradient among equals; max along an axis gives it to the one that it names."""

    def story(m):
        x = leaf(m, [[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]])
        seen = walked(m, x.amax(1), x) + walked(m, x.amin(), x) + walked(m, x.max(), x)
        return [*seen, x.argmax(1), x.argmin(), x.argmax(), x.argmax(0, keepdim=True)]

    both(story)
    x = ml.tensor([3.0, 1.0, 3.0], requires_grad=True)
    x.max(0).values.backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


def test_nan_is_extreme(both):
    def story(m):
        x = m.tensor([[1.0, float("nan"), 3.0], [1.0, 2.0, 0.0]])
        return [*x.max(1), *x.min(1), x.amax(), x.argmax(), x.argmin(1), x.sum(1), x.mean(1)]

    both(story)


@pytest.mark.parametrize("name", ["amax", "amin", "max", "min", "argmax", "argmin"])
def test_nothing_has_no_extreme(name):
    with pytest.raises(ShapeError, match=r"among no elements \(shape \(2, 0\)"):
        getattr(ml.zeros(2, 0), name)(1)
    if name[0] != "a" or "arg" in name:
        with pytest.raises(ShapeError, match="among no elements"):
            getattr(ml.zeros(0), name)()


@pytest.mark.parametrize("p", [0, 1, 2, 3, 0.5, 2.5, INF, -INF, "fro"])
@pytest.mark.parametrize("dim", [None, 1, (0, 1)])
def test_norms(p, dim, both):
    """With a 0 among the elements, where |x| has a kink."""

    def story(m):
        x = leaf(m, [[3.0, -4.0, 0.0], [1.0, -2.0, 2.5]])
        return walked(m, x.norm(p, dim), x) if p != 0.5 else [x.norm(p, dim)]

    both(story)


@pytest.mark.parametrize("p", [1, 2, 3, INF])
def test_the_norm_of_zeros_has_a_gradient_of_0(p, both):
    def story(m):
        x = leaf(m, [[0.0, 0.0], [3.0, 4.0]])
        return walked(m, x.norm(p, 1, keepdim=True), x)

    both(story)


def test_types(both):
    """Integers and bools are added as int64; `dtype` converts first."""

    def story(m):
        n, b = m.tensor([[1, 2], [3, 4]], dtype=m.int32), m.tensor([True, True, False])
        x = m.tensor([1.5, 2.5, -3.0])
        seen = [n.sum(), n.sum(0), b.sum(), n.sum(dtype=m.float64), x.sum(dtype=m.float64), n.cumsum(1), b.cumsum(0)]
        return [*seen, n.prod(), n.max(), n.amin(0), n.argmax(), b.any(), b.all(), n.any(0), x.all(), n.double().mean()]

    both(story)


def test_a_sum_in_another_type_has_a_gradient_in_the_old_one(both):
    def story(m):
        x = m.tensor([1.5, 2.5], requires_grad=True)
        y = x.sum(dtype=m.float64)
        y.backward()
        return [y, x.grad]

    both(story)


def test_mean_of_integers_is_refused():
    with pytest.raises(DtypeError, match=r"mean: the elements are int64; convert them first"):
        ml.tensor([1, 2]).mean()


@pytest.mark.parametrize("name", ["sum", "mean", "var", "amax", "argmax", "all", "prod", "cumsum", "logsumexp"])
def test_an_axis_that_is_not_there(name):
    with pytest.raises(ShapeError, match=f"{name}: there is no axis 2 among 2"):
        getattr(ml.ones(2, 3), name)(2)


def test_logsumexp(both):
    def story(m):
        x = leaf(m, [[1000.0, 1000.0], [-1000.0, -1001.0], [-INF, 0.5]])
        return walked(m, x.logsumexp(1), x)

    both(story)


def test_logsumexp_of_nothing_likely_has_gradients_of_0():
    """Where PyTorch has NaN."""
    x = ml.tensor([[-INF, -INF], [0.0, -INF]], requires_grad=True)
    z = x.logsumexp(1)
    z.sum().backward()
    assert z.tolist() == [-INF, 0.0]
    assert x.grad.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_float32_sums_keep_their_digits():
    """Pairwise, not one after the other: 10 million terms of 0.1.

    NumPy's pairwise sums are off by 1.1e-5 at most (2.2); one after the other it would be 9e-2.
    """
    x = ml.full((10_000_000,), 0.1)
    assert abs(x.sum().item() / 1e6 - 1) < 2e-5
    assert np.isclose(x.mean().item(), 0.1, rtol=2e-5)


@pytest.mark.parametrize("p", [math.inf, -math.inf])
@pytest.mark.parametrize("dim", [None, 0, -1])
def test_the_largest_of_unknown_numbers_has_no_slope(p, dim, both):
    def story(m):
        x = m.tensor([[1.0, math.nan, -3.0], [4.0, -5.0, 2.0]], dtype=m.float64, requires_grad=True)
        z = m.norm(x, p, dim)
        return [z, *m.autograd.grad(z.sum() if dim is not None else z, x)]

    both(story)
