"""Every registered operation on cases that hypothesis invents: options, shapes, dtypes, layouts, special values.

A few cases of each in every run; some fifty each in `make test-deep`, which counts them.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from minilm import kernels, ops
from minilm.errors import MinilmError
from minilm.testing import gradcheck, gradgradcheck, pytorch
from minilm.testing.pytorch import assert_near, to_numpy
from minilm.testing.strategies import FLOATS, HUGE, NOT_FINITE, TINY, operation_cases

REFUSALS = (MinilmError, IndexError, ValueError, TypeError)

OPS = [op for op in ops.all() if op.samples]
DIFFERENTIABLE = [op for op in OPS if op.differentiable]
SMOOTH = [op for op in DIFFERENTIABLE if op.smooth]
ON_KERNELS = [op for op in OPS if "kernels." in inspect.getsource(op)]
# Operations on which special values prove nothing: their inputs are not what a user gives.
NOT_SPECIAL = {
    "adaptive_avg_pool1d": "a product of matrices: NaN and infinity reach every window of their row",
    "adaptive_avg_pool2d": "the same",
    "conv1d": "padding is multiplied by the weight too: 0 times infinity",
    "conv2d": "the same",
    "cosine_similarity": "beside 1e-18 its slopes are small differences of large numbers",
    "group_norm": "as batch_norm",
    "lerp": "from a weight of 0.5 on PyTorch comes from the other end: NaN where that is infinite",
    "batch_norm": "for a weight of infinity PyTorch says NaN, since it multiplies the weight into the mean",
    "multinomial": "its second input is the engine's own random numbers, from 0 to 1",
    "topk": "they come several times, and PyTorch promises no order among equals: tests/ops/test_indexing.py",
}
FLOATING = [op for op in OPS if any(word != "bool" and word[:5] != "index" for word in op.domains())]
FLOATING = [op for op in FLOATING if op.name not in NOT_SPECIAL]

# Where special values deliberately give something else than in PyTorch, or PyTorch is wrong.
MASKED = {  # what a query must not look at is never read; in PyTorch a NaN there reaches every query, as 0 NaN
    "attention",
    "packed_self_attention",
    "self_attention",
}
GELU_OF_INFINITY = {"gelu", "linear_gelu"}  # infinity; PyTorch's vector code for float32 says NaN, its float64 does not
LOST_IN_LSE = {  # beyond 1 / eps a logarithm of a sum of exponentials is its largest term, and equal scores seem 1 each
    "attention",
    "cross_entropy",
    "cross_entropy_rows",
    "linear_cross_entropy",
    "packed_self_attention",
    "self_attention",
}
SQUARES = 1e18  # the largest number whose square, and a sum of some, float32 can hold

# A fiftieth of what the profile grants one test, since there are some six hundred.
few = settings(max_examples=max(2, settings.default.max_examples // 50), suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")


def each(operations):
    return pytest.mark.parametrize("op", operations, ids=lambda op: op.name)


def draw(data, op, **options):
    """A generated case as its `Case`, its inputs and the same in C order."""
    drawn = data.draw(operation_cases(op, **options))
    return drawn.case, drawn.arrays, drawn.plain


def run(case, arrays):
    """The case's outputs and gradients; a case that is not legal is thrown away, and another one drawn."""
    try:
        return case.run(arrays)
    except REFUSALS:
        assume(False)


def amplified(case):
    """What a normalisation multiplies rounding errors by: it divides by as little as sqrt(eps)."""
    return case.sample.options.get("eps", 1e-5) ** -0.5 if case.op.name.endswith("_norm") else 1.0


def of_nothing(op, inputs):
    """Attention of nothing, whose leading axes PyTorch does not broadcast, and kernels of size 0, which we refuse."""
    return op.name in (*MASKED, "conv1d", "conv2d") and not all(x is None or x.size for x in inputs)


def in_float64(outputs):
    flowing = [y for y in outputs if y.requires_grad]
    return bool(flowing) and all(y.dtype == np.float64 and np.isfinite(y.array).all() for y in flowing)


def sees_nothing(case, inputs):
    """Whether a query of attention may look at no key: zeros of ours, PyTorch's second derivatives are NaN."""
    masks = [x for x in inputs if x is not None and x.dtype == bool] if case.op.name in MASKED else []
    return any(not mask.any(-1).all() for mask in masks)


def at_a_kink(case, inputs):
    """Whether the gradient of a piecewise linear function is another one close by."""
    gradients = case.run(inputs)[1]
    for sign in (1e-4, -1e-4):
        near = [x if x is None or x.dtype.kind != "f" else np.asarray(x + sign * (i + 1)) for i, x in enumerate(inputs)]
        for g, other in zip(gradients, case.run(near)[1]):
            if g is not None and not np.allclose(g.array, other.array, rtol=1e-2, atol=1e-2):
                return True
    return False


@few
@each(OPS)
@given(data=st.data())
def test_equals_pytorch(op, data, torch, generated):
    """Values, gradients and Hessian-vector products; an error of ours where PyTorch has one."""
    case, inputs, plain = draw(data, op)
    assume(not of_nothing(op, plain))
    try:
        theirs = pytorch.run(case, torch, plain)
    except (RuntimeError, IndexError, ValueError, TypeError):
        with pytest.raises(REFUSALS):
            case.run(inputs)
        assume(False)
    ours = case.run(inputs)
    pytorch.assert_agrees(ours, theirs, scale=amplified(case))
    if op.differentiable and in_float64(ours[0]) and not sees_nothing(case, plain):
        ours, theirs = case.hessian_vector_product(inputs), pytorch.hessian_vector_product(case, torch, plain)
        for number, (h, t) in enumerate(zip(ours, theirs)):
            assert_near(h, t, 1.0, f"Hessian-vector product, input {number}", rtol=1e-9)
    generated()


@few
@each(ON_KERNELS)
@given(data=st.data())
def test_all_backends_equal_the_reference(op, data, native, generated):
    case, inputs, _ = draw(data, op)
    with kernels.use("reference"):
        expected = run(case, inputs)
    for backend in ("native", "numba"):
        with kernels.use(backend):
            found = case.run(inputs)
        for ours, theirs in zip(found, expected):
            for number, (y, r) in enumerate(zip(ours, theirs)):
                assert (y is None) == (r is None)
                if y is not None:
                    assert_near(y, r.array, 1.0, f"{backend}, {number}")
    generated()


@few
@each(DIFFERENTIABLE)
@given(data=st.data())
def test_gradient_equals_finite_differences(op, data, generated):
    case, inputs, _ = draw(data, op, dtypes=["float64"])
    assume(in_float64(run(case, inputs)[0]))
    assume(op.smooth or not at_a_kink(case, inputs))
    gradcheck(case, case.leaves(inputs), allow_independent=True, limit=40)
    generated()


@few
@each(SMOOTH)
@given(data=st.data())
def test_second_derivative_equals_finite_differences(op, data, generated):
    case, inputs, _ = draw(data, op, dtypes=["float64"], max_size=3)
    assume(in_float64(run(case, inputs)[0]))
    gradgradcheck(case, case.leaves(inputs), allow_independent=True, limit=10)
    generated()


@few
@each(OPS)
@given(data=st.data())
def test_memory_layout_does_not_matter(op, data, generated):
    """The same values and gradients as in C order, and inputs that nobody wrote to."""
    case, inputs, plain = draw(data, op)
    expected = run(case, plain)
    for ours, theirs in zip(case.run(inputs), expected):
        for number, (y, other) in enumerate(zip(ours, theirs)):
            assert (y is None) == (other is None)
            if y is not None:
                assert_near(y, other.array, 1.0, f"{number}")
    for x, value in zip(inputs, plain):
        assert x is None or np.array_equal(x, value), "an input was changed"
    generated()


@few
@each(FLOATING)
@given(data=st.data())
def test_special_values_equal_pytorch(op, data, torch, generated):
    """Infinities, NaN, zeros, huge and tiny numbers: PyTorch's values, and its gradients where they are finite."""
    extreme = (*HUGE, *TINY) if elementwise(op) else (SQUARES, -SQUARES, 1 / SQUARES, -1 / SQUARES)
    known = [x for x in NOT_FINITE if op.name not in ("max", "min") or not math.isnan(x)]  # NaN: docs/pytorch.md
    choices = [extreme] if op.name in MASKED else [(*known, 0.0, -0.0, 1.0), extreme]
    specials = data.draw(st.sampled_from(choices))
    dtypes = ["float64"] if op.name in GELU_OF_INFINITY and specials is not extreme else FLOATS
    case, inputs, plain = draw(data, op, specials=specials, dtypes=dtypes)
    assume(not of_nothing(op, plain))
    try:
        their_outputs, their_gradients = pytorch.run(case, torch, plain)
    except (RuntimeError, IndexError, ValueError, TypeError):
        assume(False)
    outputs, gradients = case.run(inputs)
    scale = 1.0 if elementwise(op) else largest(plain) * amplified(case)
    for number, (y, t) in enumerate(zip(outputs, their_outputs)):
        assert_near(y, to_numpy(t), scale, f"output {number}", one_scale=not elementwise(op))
    for number, (g, t) in enumerate(zip(gradients, their_gradients)):
        if g is not None and t is not None and not (op.name in LOST_IN_LSE and specials is extreme):
            t = to_numpy(t)
            found = np.where(np.isfinite(t), g.array, t)
            assert_near(found, t, scale, f"gradient of input {number}", one_scale=not elementwise(op))
    generated()


def elementwise(op):
    """Whether each element of the output comes from one element of each input, so that it has an error of its own."""
    return all(pattern == ("...",) for pattern in (*op.signature.inputs, *op.signature.outputs)) and not any(
        "dim" in sample.options for sample in op.samples
    )


def largest(inputs):
    """The largest finite magnitude, and 1: rounding leaves errors of its size wherever it takes part in a sum."""
    return max(float(np.abs(x[np.isfinite(x)]).max(initial=1.0)) for x in inputs if x is not None)
