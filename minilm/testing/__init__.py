"""Proofs for gradients: what minilm's own tests use, for operations and models of your own too.

    from minilm.testing import gradcheck, gradgradcheck, assert_same

    gradcheck(lambda x, w: (x @ w).tanh(), [x, w])          # first derivatives against finite differences
    gradgradcheck(lambda x, w: (x @ w).tanh(), [x, w])      # second derivatives likewise
    assert_same(actual, expected)                           # tolerance by dtype; a failure says where

For a registered operation `cases(op)` lists what its samples stand for and `inputs_for` draws arrays
for it; `minilm.testing.pytorch` finds PyTorch's counterpart, and `minilm.testing.strategies` (which needs
the package hypothesis) invents arrays and shapes.
"""

from minilm.testing.same import assert_same, ulp_distance
from minilm.testing.gradients import GradientError, gradcheck, gradgradcheck
from minilm.testing.samples import LAYOUTS, Case, cases, inputs_for

__all__ = [
    "LAYOUTS",
    "Case",
    "GradientError",
    "assert_same",
    "cases",
    "gradcheck",
    "gradgradcheck",
    "inputs_for",
    "ulp_distance",
]
