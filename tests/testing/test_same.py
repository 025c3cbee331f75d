from __future__ import annotations

import numpy as np
import pytest

from minilm.tensor import Tensor
from minilm.testing import assert_same, ulp_distance

X = np.array([[1.0, -2.0, 3.0], [4.0, 5.0, 6.0]])


def test_the_same_passes():
    assert_same(X, X.copy())
    assert_same(Tensor(X), X * (1 + 1e-13))
    assert_same(np.float32([np.nan, np.inf, -np.inf, 0.0]), np.float32([np.nan, np.inf, -np.inf, -0.0]))
    assert_same(np.zeros((0, 3)), np.zeros((0, 3)))
    assert_same(2.0, np.float64(2.0))


def test_a_failure_names_the_worst_place():
    wrong = X.copy()
    wrong[1, 2] += 1e-3
    wrong[0, 0] += 1e-6
    with pytest.raises(AssertionError, match=r"^loss: 2 of 6 elements .* worst at \(1, 2\): .* 0\.001 off, 11\d+ ulp"):
        assert_same(wrong, X, name="loss")


@pytest.mark.parametrize(
    ("actual", "expected", "words"),
    [
        (X[0], X, r"shape \(3,\) where \(2, 3\)"),
        (X.astype("float32"), X, "dtype float32 where float64"),
        (np.array([1, 2]), np.array([1, 3]), "worst at"),
        (np.array([True]), np.array([False]), "worst at"),
        (np.array([np.nan]), np.array([1.0]), "uncountably"),
        (np.array([np.inf]), np.array([-np.inf]), "uncountably"),
        (np.array([1.0]), np.array([np.inf]), "uncountably"),
        (np.array([np.inf]), np.array([1.0]), "uncountably"),
        (np.float32([1.0001]), np.float32([1.0]), "839 ulp"),
        (np.float64([1 + 1e-10]), np.float64([1.0]), "worst at"),
    ],
)
def test_what_differs_is_refused(actual, expected, words):
    with pytest.raises(AssertionError, match=words):
        assert_same(actual, expected)


def test_the_dtype_sets_the_tolerance():
    near = np.float32([1.00001])
    assert_same(near, np.float32([1.0]))
    with pytest.raises(AssertionError):
        assert_same(near.astype("float64"), np.float64([1.0]))
    assert_same(near, np.float64([1.0]), dtype=False)  # the coarser of the two


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (1.0, 1.0, 0),
        (0.0, -0.0, 0),
        (1.0, np.nextafter(1.0, 2), 1),
        (5e-324, -5e-324, 2),
        (-1.0, np.nextafter(-1, 0), 1),
    ],
)
def test_ulp_distance(a, b, distance):
    assert ulp_distance(np.float64(a), np.float64(b)) == distance
