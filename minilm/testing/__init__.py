"""Proofs for gradients: what minilm's own tests use, for operations and models of your own too.

    from minilm.testing import assert_same, compare, gradcheck, gradgradcheck

    gradcheck(lambda x, w: (x @ w).tanh(), [x, w])          # first derivatives against finite differences
    gradgradcheck(lambda x, w: (x @ w).tanh(), [x, w])      # second derivatives likewise
    assert_same(actual, expected)                           # tolerance by dtype; a failure says where
    print(compare(model, torch_model, batch))               # where a model and its PyTorch twin part, and why

For a registered operation `cases(op)` lists what its samples stand for and `inputs_for` draws arrays
for it; `minilm.testing.pytorch` finds PyTorch's counterpart, and `minilm.testing.strategies` (which needs
the package hypothesis) invents arrays and shapes.
"""

from minilm.testing.checked import GradientError
from minilm.testing.differentiable import check_gradients, differentiable
from minilm.testing.gradients import gradcheck, gradgradcheck
from minilm.testing.same import Difference, assert_same, difference, ulp_distance
from minilm.testing.samples import LAYOUTS, Case, cases, inputs_for
from minilm.testing.twins.causes import CAUSES, Cause
from minilm.testing.twins.comparison import compare
from minilm.testing.twins.report import Explanation, Report, Row

__all__ = [
    "CAUSES",
    "LAYOUTS",
    "Case",
    "Cause",
    "Difference",
    "Explanation",
    "GradientError",
    "Report",
    "Row",
    "assert_same",
    "cases",
    "check_gradients",
    "compare",
    "difference",
    "differentiable",
    "gradcheck",
    "gradgradcheck",
    "inputs_for",
    "ulp_distance",
]
