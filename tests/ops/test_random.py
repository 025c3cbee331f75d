"""Randomness: distributions by moments and chi-square with fixed seeds, generators, what they reproduce."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minilm as ml
from minilm.errors import AutogradError, DtypeError, ShapeError

F = ml.nn.functional


def chi_square(counts, shares):
    """How many standard deviations Pearson's statistic lies from its mean; with all shares right, within 4."""
    counts, expected = np.asarray(counts, float), np.asarray(shares, float) * np.sum(counts)
    freedom = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return abs(statistic - freedom) / math.sqrt(2 * freedom)


def close(found, expected, deviation, count):
    """Whether a mean over `count` draws lies within 4 of its standard errors."""
    return abs(found - expected) < 4 * deviation / math.sqrt(count)


# --- dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_share_and_scale(p):
    x = ml.ones(400, 500, requires_grad=True)
    y = F.dropout(x, p, generator=ml.Generator(5))
    kept = y.array != 0
    assert close(kept.mean(), 1 - p, math.sqrt(p * (1 - p)), kept.size)
    assert np.allclose(y.array[kept], 1 / (1 - p))
    assert close(y.mean().item(), 1, math.sqrt(p / (1 - p)), kept.size), "the mean stays"
    for axis in (0, 1):
        assert abs(kept.mean(axis) - (1 - p)).max() < 6 * math.sqrt(p * (1 - p) / 400), "no row or column is special"
    y.backward(ml.full(y.shape, 3.0))
    assert np.array_equal(x.grad.array, y.array * 3), "the gradient passes where the value passed"


def test_dropout_that_does_nothing_or_everything():
    x = ml.ones(3, 5)
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).array.any()
    for p in (-0.1, 1.1, float("nan")):
        for training in (True, False):
            with pytest.raises(ValueError, match="a probability, from 0 to 1"):
                F.dropout(x, p, training)


def test_dropout_draws_before_and_replays():
    """A second derivative meets the same numbers; another call meets others."""
    x = ml.rand(64, generator=ml.Generator(0), requires_grad=True)
    ml.manual_seed(3)
    y = F.dropout(x, 0.5)
    (first,) = ml.autograd.grad((y * y * y).sum(), x, create_graph=True)
    (second,) = ml.autograd.grad(first.sum(), x)
    assert np.array_equal(second.array != 0, y.array != 0)
    assert not np.array_equal(F.dropout(x, 0.5).array, y.array)
    ml.manual_seed(3)
    assert np.array_equal(F.dropout(x, 0.5).array, y.array)


# --- multinomial and bernoulli -----------------------------------------------------------------------------------


def test_multinomial_with_replacement_follows_the_weights():
    weights = ml.tensor([[3.0, 0.0, 1.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0, 0.0]])
    drawn = ml.multinomial(weights, 20_000, replacement=True, generator=ml.Generator(1))
    assert drawn.shape == (2, 20_000)
    assert drawn.dtype == ml.int64
    for row, w in zip(drawn.array, weights.array):
        counts = np.bincount(row, minlength=5)
        assert not counts[w == 0].any()
        assert chi_square(counts[w > 0], w[w > 0] / w.sum()) < 4


def test_multinomial_without_replacement():
    """Each draw is a set; the first follows the weights, the second what the first left."""
    w = np.array([0.5, 0.25, 0.125, 0.125, 0.0])
    many = ml.Tensor(np.tile(w, (20_000, 1)))
    drawn = ml.multinomial(many, 3, generator=ml.Generator(2)).array
    assert drawn.shape == (20_000, 3)
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert (drawn < 4).all(), "a weight of 0 is never drawn"
    assert chi_square(np.bincount(drawn[:, 0], minlength=4), w[:4]) < 4
    pairs = np.bincount(drawn[:, 0] * 4 + drawn[:, 1], minlength=16)
    shares = np.array([[w[i] * w[j] / (1 - w[i]) if i != j else 0 for j in range(4)] for i in range(4)]).ravel()
    assert chi_square(pairs[shares > 0], shares[shares > 0]) < 4


def test_multinomial_of_unnormalised_and_tiny_weights():
    weights = ml.tensor([1e-30, 3e-30])
    drawn = ml.multinomial(weights, 10_000, replacement=True, generator=ml.Generator(3))
    assert close(drawn.array.mean(), 0.75, math.sqrt(0.1875), 10_000)
    assert ml.multinomial(ml.tensor([0.0, 0.0, 5.0]), 4, replacement=True).tolist() == [2, 2, 2, 2]
    assert sorted(ml.multinomial(ml.rand(7) + 0.1, 7).tolist()) == list(range(7))


def test_what_multinomial_refuses():
    for weights, count, replacement, error, words in [
        ([1.0, -1.0], 1, True, ValueError, "must be finite, not negative, and not all zero"),
        ([1.0, float("nan")], 1, True, ValueError, "must be finite"),
        ([1.0, float("inf")], 1, True, ValueError, "must be finite"),
        ([0.0, 0.0], 1, True, ValueError, "not all zero"),
        ([[1.0, 1.0], [0.0, 0.0]], 1, True, ValueError, "not all zero"),
        ([1.0, 0.0, 2.0], 3, False, ValueError, "3 draws without replacement from 2 positive weights"),
        ([1.0], 0, True, ShapeError, "0 draws"),
        ([1, 2], 1, True, DtypeError, "must be floating, not int64"),
        ([[[1.0]]], 1, True, ShapeError, r"\(1, 1, 1\)"),
    ]:
        with pytest.raises(error, match=words):
            ml.multinomial(ml.tensor(weights), count, replacement)


def test_bernoulli():
    p = ml.tensor([0.0, 0.2, 0.7, 1.0]).expand(20_000, 4)
    drawn = ml.bernoulli(p, generator=ml.Generator(4)).array
    assert drawn.dtype == np.float32
    assert set(np.unique(drawn)) == {0.0, 1.0}
    for found, expected in zip(drawn.mean(0), [0.0, 0.2, 0.7, 1.0]):
        assert close(found, expected, math.sqrt(expected * (1 - expected)) + 1e-9, 20_000)
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            ml.bernoulli(ml.tensor([wrong]))


# --- uniform, normal, integers, permutations -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rand_is_uniform(dtype):
    x = ml.rand(100_001, dtype=dtype, generator=ml.Generator(6)).array.astype("float64")
    assert x.min() >= 0
    assert x.max() < 1
    for power in (1, 2, 3, 4):
        spread = math.sqrt(1 / (2 * power + 1) - 1 / (power + 1) ** 2)
        assert close((x**power).mean(), 1 / (power + 1), spread, x.size)
    assert chi_square(np.histogram(x, 100, (0, 1))[0], np.full(100, 0.01)) < 4
    assert close((x[1:] * x[:-1]).mean(), 0.25, math.sqrt(1 / 9 - 1 / 16), x.size - 1), "neighbours are independent"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_randn_is_normal(dtype):
    x = ml.randn(100_001, dtype=dtype, generator=ml.Generator(7)).array.astype("float64")
    for power, expected, spread in [(1, 0, 1), (2, 1, math.sqrt(2)), (3, 0, math.sqrt(15)), (4, 3, math.sqrt(96))]:
        assert close((x**power).mean(), expected, spread, x.size)
    edges = np.linspace(-2.5, 2.5, 21)
    below = np.array([0.5 * (1 + math.erf(e / math.sqrt(2))) for e in edges])
    shares = np.diff(np.concatenate([[0], below, [1]]))
    counts = np.histogram(x, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
    assert chi_square(counts, shares) < 4
    assert np.isfinite(x).all()
    half = x.size // 2
    assert close((x[:half] * x[-half:]).mean(), 0, 1, half), "the two of each pair are independent"


@pytest.mark.parametrize(("low", "high"), [(0, 7), (-3, 2), (10, 11), (0, 2**31), (-(2**40), 2**40), (0, 2**62)])
def test_randint_bounds_and_uniformity(low, high):
    x = ml.randint(low, high, (50_000,), generator=ml.Generator(8)).array
    assert x.dtype == np.int64
    assert x.min() >= low
    assert x.max() < high
    bins = min(high - low, 50)
    if bins > 1:
        place = np.floor((x.astype("float64") - low) / (high - low) * bins).astype(int)
        assert chi_square(np.bincount(place, minlength=bins), np.full(bins, 1 / bins)) < 4


def test_randint_forms_and_refusals():
    assert ml.randint(3, (2, 5)).shape == (2, 5)
    assert ml.randint(5, 10, (3,), dtype=ml.int32).dtype == ml.int32
    assert ml.randint(0, 5, ()).shape == ()
    for arguments in [(5, 5, (2,)), (5, 3, (2,)), (0, (2,)), (3,)]:
        with pytest.raises(ValueError, match="there is nothing to draw"):
            ml.randint(*arguments)


def test_randperm():
    for n in (0, 1, 5, 1000):
        x = ml.randperm(n)
        assert x.dtype == ml.int64
        assert sorted(x.tolist()) == list(range(n))
    generator = ml.Generator(9)
    counts = np.bincount([int("".join(map(str, ml.randperm(3, generator).tolist())), 3) for _ in range(6000)])
    assert chi_square(counts[counts > 0], np.full(6, 1 / 6)) < 4, "all six orders are as likely"
    with pytest.raises(ShapeError, match="cannot be negative: -1"):
        ml.randperm(-1)


def test_filling_in_place():
    x = ml.zeros(20_000)
    assert x.uniform_(-2.0, 6.0, generator=ml.Generator(10)) is x
    assert close(x.array.mean(), 2.0, 8 / math.sqrt(12), 20_000)
    assert x.array.min() >= -2
    assert x.array.max() < 6
    x.normal_(3.0, 0.5, generator=ml.Generator(11))
    assert close(x.array.mean(), 3.0, 0.5, 20_000)
    assert abs(x.array.std() - 0.5) < 0.02
    with pytest.raises(DtypeError, match="uniform_: the tensor must be floating, not int64"):
        ml.tensor([1]).uniform_()
    with pytest.raises(AutogradError, match="normal_: a leaf"):
        ml.zeros(2, requires_grad=True).normal_()


def test_a_filled_part_passes_no_gradient():
    x = ml.ones(4, requires_grad=True)
    y = x * 2
    y[:2].uniform_()
    y.sum().backward()
    assert x.grad.tolist() == [0.0, 0.0, 2.0, 2.0]


# --- seeds and states -------------------------------------------------------------------------------------------------

DRAWS = {
    "rand": lambda g: ml.rand(5, generator=g),
    "rand64": lambda g: ml.rand(5, dtype="float64", generator=g),
    "randn": lambda g: ml.randn(5, generator=g),
    "randint": lambda g: ml.randint(0, 1000, (5,), generator=g),
    "randperm": lambda g: ml.randperm(20, generator=g),
    "bernoulli": lambda g: ml.bernoulli(ml.full((40,), 0.5), generator=g),
    "multinomial": lambda g: ml.multinomial(ml.ones(50), 20, generator=g),
    "dropout": lambda g: F.dropout(ml.ones(40), 0.5, generator=g),
    "uniform_": lambda g: ml.zeros(5).uniform_(generator=g),
    "normal_": lambda g: ml.zeros(5).normal_(generator=g),
    "rand_like": lambda g: ml.rand_like(ml.zeros(5), generator=g),
    "randn_like": lambda g: ml.randn_like(ml.zeros(5), generator=g),
}


@pytest.mark.parametrize("name", list(DRAWS))
def test_seeds_reproduce(name):
    draw = DRAWS[name]
    ml.manual_seed(42)
    first, second = draw(None).tolist(), draw(None).tolist()
    assert first != second, "a second draw is another one"
    ml.manual_seed(42)
    assert draw(None).tolist() == first
    ml.manual_seed(43)
    assert draw(None).tolist() != first
    generator = ml.Generator(42)
    assert draw(generator).tolist() == first
    assert draw(generator).tolist() == second


@pytest.mark.parametrize("name", list(DRAWS))
def test_a_generator_of_ones_own_leaves_the_default_alone(name):
    ml.manual_seed(1)
    before = ml.random.get_rng_state()
    DRAWS[name](ml.Generator(5))
    assert ml.random.get_rng_state() == before
    DRAWS[name](None)
    assert ml.random.get_rng_state() != before


def test_states_continue():
    generator = ml.Generator(3)
    ml.rand(7, generator=generator)
    state = generator.get_state()
    expected = ml.randn(9, generator=generator).tolist()
    assert ml.randn(9, generator=ml.Generator(0).set_state(state)).tolist() == expected
    ml.random.set_rng_state(state)
    assert ml.randn(9).tolist() == expected
    assert ml.initial_seed() == 3


def test_seeds():
    generator = ml.Generator()
    drawn = {generator.seed() for _ in range(5)}
    assert len(drawn) == 5
    assert generator.initial_seed() in drawn
    assert ml.manual_seed(2**64 - 1).initial_seed() == 2**64 - 1
    for wrong in (-1, 2**64):
        with pytest.raises(ValueError, match="from 0 to 2\\*\\*64 - 1"):
            ml.manual_seed(wrong)
    ml.manual_seed(0)


def test_what_is_not_floating_is_refused():
    for function in (ml.rand, ml.randn):
        with pytest.raises(DtypeError, match="int64 is not"):
            function(3, dtype=ml.int64)
