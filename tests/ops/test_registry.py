"""Every registered operation, every sample: values, gradients, second derivatives, layouts, edges.

Nothing here names an operation except where one is excused, with the reason beside it.
"""

from __future__ import annotations

import numpy as np
import pytest

from minilm import kernels, ops
from minilm.autograd import grad
from minilm.errors import MinilmError
from minilm.ops.registry import Fused, Sample
from minilm.testing import LAYOUTS, Case, assert_same, cases, gradcheck, gradgradcheck, pytorch
from minilm.testing.pytorch import counterpart

# Operations without a sample, and where they are tested instead.
NO_SAMPLES = {
    "view_write": "its option is a way from a base to its view: tests/ops/test_inplace.py",
}
# Operations that PyTorch has under no name.
NO_TORCH: dict[str, str] = {}

OPS = list(ops.all())
CASES = [case for op in OPS for case in cases(op)]
DIFFERENTIABLE = [case for case in CASES if case.op.differentiable]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_differentiable = pytest.mark.parametrize("case", DIFFERENTIABLE, ids=lambda case: case.id)
both_types = pytest.mark.parametrize("dtype", ["float64", "float32"])


# --- ours and PyTorch's ----------------------------------------------------------------------------


def known_to(torch, case: Case) -> None:
    if counterpart(case.op, torch) is None:
        assert case.op.name in NO_TORCH, (
            f"{case.op.name}: give it a function torch(torch, ...), or a reason in NO_TORCH"
        )
        pytest.skip(f"not in PyTorch: {NO_TORCH[case.op.name]}")


# --- the register itself -----------------------------------------------------------------------------


def test_every_operation_has_samples_or_an_excuse():
    without = {op.name for op in OPS if not op.samples}
    assert without == set(NO_SAMPLES)


def test_the_excuses_name_operations_that_exist():
    names = {op.name for op in OPS}
    assert set(NO_SAMPLES) | set(NO_TORCH) <= names


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_operation_says_what_it_computes(op):
    assert op.__doc__, f"{op.name} has no docstring"


# --- values and gradients ------------------------------------------------------------------------------


@both_types
@every_case
def test_equals_pytorch(case, dtype, torch):
    known_to(torch, case)
    inputs = case.inputs(dtype)
    pytorch.assert_agrees(case.run(inputs), pytorch.run(case, torch, inputs))


@every_differentiable
def test_gradient_equals_finite_differences(case):
    inputs = case.inputs()
    if any(y.dtype != np.float64 for y in case(*case.leaves(inputs)) if y.requires_grad):
        pytest.skip("the result is not float64, so differences are too coarse")
    gradcheck(case, case.leaves(inputs), limit=40, allow_independent=True)


@every_differentiable
def test_inputs_are_unchanged_and_gradients_are_their_own(case):
    """No input is written to; each gradient has its input's shape and type and no memory of a saved value."""
    for dtype in ("float64", "float32"):
        inputs = case.inputs(dtype)
        before = [None if x is None else x.copy() for x in inputs]
        tensors = case.leaves(inputs)
        outputs = case(*tensors)
        flowing = [y for y in outputs if y.requires_grad]
        node = flowing[0].node if flowing else None
        saved = [value for value in node._saved if isinstance(value, np.ndarray)] if node is not None else []
        values = [y.array.copy() for y in outputs]
        wanted = [t for t in tensors if t is not None and t.requires_grad]
        found = grad(flowing, wanted, case.cotangents(flowing), allow_unused=True) if flowing else ()
        for x, old in zip(inputs, before):
            assert x is None or np.array_equal(x, old, equal_nan=x.dtype.kind == "f"), "an input was changed"
        for y, value in zip(outputs, values):
            assert np.array_equal(y.array, value, equal_nan=True), "backward changed an output"
        for tensor, gradient in zip(wanted, found):
            if gradient is None:
                continue
            assert (gradient.shape, gradient.dtype) == (tensor.shape, tensor.dtype)
            for value in saved:
                assert not np.shares_memory(gradient.array, value), "a gradient shares memory with a saved value"


@every_differentiable
def test_a_second_walk_gives_the_same_gradients(case):
    """What a backward keeps for itself, or gives away, must not show when the graph is walked again."""
    tensors = case.leaves(case.inputs())
    flowing = [y for y in case(*tensors) if y.requires_grad]
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    for cotangents in (case.cotangents(flowing), [np.ones(y.shape, y.dtype) for y in flowing]) if flowing else ():
        walks = [grad(flowing, wanted, cotangents, retain_graph=True, allow_unused=True) for _ in range(2)]
        for first, second in zip(*walks):
            assert (first is None) == (second is None)
            if first is not None:
                assert_same(second, first, rtol=0, name="the second walk's gradient")


@every_differentiable
def test_a_recorded_walk_gives_the_same_gradients(case):
    """Also in shape: in products with anything of the right shape, a sum over rows that is missing does not show."""
    tensors = case.leaves(case.inputs())
    flowing = [y for y in case(*tensors) if y.requires_grad]
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    if not flowing:
        return
    given = case.cotangents(flowing)
    plain = grad(flowing, wanted, given, retain_graph=True, allow_unused=True, materialize_grads=True)
    recorded = grad(flowing, wanted, given, create_graph=True, allow_unused=True, materialize_grads=True)
    for number, (p, r) in enumerate(zip(plain, recorded)):
        assert_same(r, p, name=f"gradient of input {number}")


@every_case
def test_a_result_that_is_no_view_has_memory_of_its_own(case):
    inputs = case.inputs()
    if case.op.view:
        return
    for y in case(*case.leaves(inputs)):
        for x in inputs:
            assert x is None or y._base is not None or not np.shares_memory(x, y.array), "an unannounced view"


# --- second derivatives -----------------------------------------------------------------------------------


def finite(outputs) -> bool:
    return all(np.isfinite(y.array).all() for y in outputs if y.requires_grad)


@every_differentiable
def test_second_derivative_equals_pytorch(case, torch):
    known_to(torch, case)
    inputs = case.inputs()
    outputs = case(*case.leaves(inputs))
    if not finite(outputs) or not any(y.requires_grad for y in outputs):
        return
    ours, theirs = case.hessian_vector_product(inputs), pytorch.hessian_vector_product(case, torch, inputs)
    for number, (h, t) in enumerate(zip(ours, theirs)):
        rtol = 1e-9 if all(y.dtype == np.float64 for y in outputs if y.requires_grad) else 1e-5
        assert_same(h, t, rtol=rtol, name=f"Hessian-vector product, input {number}")


@pytest.mark.parametrize("case", [c for c in DIFFERENTIABLE if c.op.smooth], ids=lambda case: case.id)
def test_second_derivative_equals_finite_differences(case):
    inputs = case.inputs()
    outputs = case(*case.leaves(inputs))
    flowing = [y for y in outputs if y.requires_grad]
    if not flowing or not finite(outputs) or any(y.dtype != np.float64 for y in flowing):
        return
    gradgradcheck(case, case.leaves(inputs), limit=10, allow_independent=True)


# --- fused operations against their definitions -----------------------------------------------------------


@both_types
@pytest.mark.parametrize("case", [c for c in CASES if issubclass(c.op, Fused)], ids=lambda case: case.id)
def test_kernels_equal_the_definition(case, dtype):
    inputs = case.inputs(dtype)
    outputs, gradients = case.run(inputs)
    tensors = case.leaves(inputs)
    result = case.op.definition(*tensors, **case.sample.options)
    defined = list(result) if isinstance(result, tuple) else [result]
    for y, d in zip(outputs, defined):
        assert_same(y, d)
    flowing = [d for d in defined if d.requires_grad]
    if not flowing:
        return
    wanted = [t for t in tensors if t is not None and t.requires_grad]
    found = iter(grad(flowing, wanted, case.cotangents(flowing), allow_unused=True, materialize_grads=True))
    for number, (t, g) in enumerate(zip(tensors, gradients)):
        if t is not None and t.requires_grad:
            expected = next(found)
            assert_same(np.zeros_like(expected.array) if g is None else g, expected, name=f"gradient {number}")


# --- the backends ----------------------------------------------------------------------------------------------


def names_kernels(op) -> bool:
    """Whether a function of the class itself reads `kernels` (asking for its source takes a hundred times as long)."""
    return any("kernels" in f.__func__.__code__.co_names for f in vars(op).values() if isinstance(f, staticmethod))


ON_KERNELS = [case for case in CASES if names_kernels(case.op)]


@pytest.mark.parametrize("backend", ["native", "numba"])
@both_types
@pytest.mark.parametrize("case", ON_KERNELS, ids=lambda case: case.id)
def test_backends_equal_the_reference(case, dtype, backend, request):
    if backend == "native":
        request.getfixturevalue("native")
    inputs = case.inputs(dtype)
    with kernels.use("reference"):
        expected = case.run(inputs)
    with kernels.use(backend):
        found = case.run(inputs)
    for ours, theirs in zip(found, expected):
        for number, (y, r) in enumerate(zip(ours, theirs)):
            assert (y is None) == (r is None)
            if y is not None:
                assert_same(y, r, name=f"{number}")


# --- how the inputs lie in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@every_case
def test_memory_layout_does_not_matter(case, layout):
    inputs = case.inputs()
    laid = [None if x is None else LAYOUTS[layout](x) for x in inputs]
    outputs, gradients = case.run(inputs)
    other_outputs, other_gradients = case.run(laid)
    for y, other in zip(outputs, other_outputs):
        assert_same(other, y)
    for g, other in zip(gradients, other_gradients):
        if g is not None or other is not None:
            assert_same(other, g)


# --- empty, 0-d and size-1 inputs ---------------------------------------------------------------------------

EDGES = [(), (0,), (0, 3), (2, 0), (1,), (1, 1)]


def edge_cases():
    """Operations whose inputs take any shape, on the smallest ones, with each sample's options."""
    for op in OPS:
        if any(pattern != ("...",) for pattern in op.signature.inputs):
            continue
        chosen = [s for s in op.samples if s.shapes is None]
        for sample in chosen[:4]:
            for shape in EDGES:
                count = 2 if op.signature.variadic else len(op.signature.inputs)
                yield Case(op, Sample(sample.options, domain=sample.domain), (shape,) * count)


@pytest.mark.parametrize("case", list(edge_cases()), ids=lambda case: case.id)
@pytest.mark.filterwarnings("ignore:(var|std|invalid value|divide by zero)")
def test_edges_equal_pytorch(case, torch):
    """The same values and gradients, or an error of ours where PyTorch has one."""
    known_to(torch, case)
    inputs = case.inputs()
    try:
        theirs = pytorch.run(case, torch, inputs)
    except (RuntimeError, IndexError, ValueError, TypeError):
        with pytest.raises((MinilmError, IndexError, ValueError, TypeError)):
            case.run(inputs)
        return
    pytorch.assert_agrees(case.run(inputs), theirs)
