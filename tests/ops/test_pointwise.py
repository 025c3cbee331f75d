"""Arithmetic with plain numbers, which have ways of their own through the backward."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -2.5])
def test_powers_by_a_number(exponent, both):
    def story(m):
        x = m.tensor([0.5, 1.0, 1.7, 3.0], dtype=m.float64, requires_grad=True)
        z = x**exponent
        (slope,) = m.autograd.grad((z * m.tensor([1.0, -2.0, 3.0, 0.3], dtype=m.float64)).sum(), x)
        return [z, slope]

    both(story)


def test_the_slope_of_a_power_in_its_exponent_where_the_base_is_zero(torch):
    """0^y is 0 for y > 0; at y = 0 the slope is taken as 0 too; below, both are infinite."""
    slopes = []
    for library in (ml, torch):
        y = library.tensor([2.0, 0.0, -1.0], requires_grad=True)
        with np.errstate(all="ignore"):
            (library.zeros(3) ** y).backward(library.ones(3))
        slopes.append(y.grad.tolist())
    assert slopes[0] == slopes[1] == [0, 0, -np.inf]
