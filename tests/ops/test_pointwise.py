"""Arithmetic with plain numbers, which have ways of their own through the backward."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, -1, 0.5, -2.5])
def test_powers_by_a_number(exponent, both):
    def story(m):
        x = m.tensor([0.5, 1.0, 1.7, 3.0], dtype=m.float64, requires_grad=True)
        z = x**exponent
        (slope,) = m.autograd.grad((z * m.tensor([1.0, -2.0, 3.0, 0.3], dtype=m.float64)).sum(), x)
        return [z, slope]

    both(story)
