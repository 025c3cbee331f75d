"""A computed order: a permutation for every n, another for every seed and epoch, the same for the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minilm.data import Permutation
from minilm.errors import DataError


@pytest.mark.parametrize("first", range(1, 300, 50))
def test_every_number_comes_once(first):
    for n in range(first, first + 50):
        assert sorted(Permutation(n, seed=n)) == list(range(n))


@given(n=st.integers(1, 40_000), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**64 - 1))
def test_every_number_comes_once_whatever_the_seed(n, seed, epoch):
    order = Permutation(n, seed, epoch)[np.arange(n)]
    np.testing.assert_array_equal(np.sort(order), np.arange(n))


@given(n=st.integers(1, 2**62), data=st.data())
def test_large_ones_stay_inside_and_give_no_number_twice(n, data):
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True))
    order = Permutation(n, 7)
    values = order[np.array(indices)]
    assert len(set(values.tolist())) == len(indices)
    assert values.min() >= 0
    assert values.max() < n
    assert [order[i] for i in indices] == values.tolist()


def test_an_index_a_negative_one_and_an_array_of_any_shape():
    order = Permutation(1000, 3)
    listed = list(order)
    assert len(order) == 1000
    assert order[-1] == listed[999]
    assert type(order[5]) is int
    np.testing.assert_array_equal(order[np.array([[0, -1000], [7, 8]])], [[listed[0]] * 2, listed[7:9]])
    for wrong in (1000, -1001, np.array([0, 1000])):
        with pytest.raises(IndexError, match=r"is not in -1000 \.\. 999"):
            order[wrong]
    with pytest.raises(IndexError, match="float64"):
        order[0.5]


def test_seeds_and_epochs_have_orders_of_their_own():
    first = list(Permutation(500, 1))
    assert first == list(Permutation(500, 1, 0))
    assert first != list(Permutation(500, 2))
    assert first != list(Permutation(500, 1, 1))


def test_it_looks_like_chance():
    """Over 4000 seeds each of 5 numbers stands at each of 5 places a fifth of the time: chi-square, 16 degrees."""
    counts = np.zeros((5, 5))
    for seed in range(4000):
        counts[np.arange(5), Permutation(5, seed)[np.arange(5)]] += 1
    assert ((counts - 800) ** 2 / 800).sum() < 45.9  # passed by chance once in ten thousand
    order = Permutation(100_003, 1)[np.arange(100_003)]
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_003))[0, 1]) < 0.02


@pytest.mark.parametrize("n", [0, -1, 2**62 + 1])
def test_sizes_that_are_none(n):
    with pytest.raises(DataError, match=f"n is {n}"):
        Permutation(n)
