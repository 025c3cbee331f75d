"""Shapes, memory layouts and values that hypothesis invents: values and gradients equal PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm import ops
from minilm.errors import ShapeError
from minilm.ops.pointwise import BINARY
from minilm.testing import assert_same, strategies

UNBOUNDED = (0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan)
quick = settings(max_examples=50)

# Every operation of two broadcasting inputs and nothing else; the shape of copy's is that of the first.
ELSEWHERE = {"copy", "binary_entropy"}  # the latter takes probabilities
POINTWISE = [op for op in ops.all() if op.signature.text == BINARY and not op.constants and op.name not in ELSEWHERE]
FINITE_ONLY = ("remainder", "floor_divide", "pow")  # at zeros and infinities their slopes are conventions


def run(m, function, arrays, cotangent_for, layouts=True):
    """The value of `function` on leaves around `arrays`, and the gradients of all of them."""
    if m is ml:
        tensors = [ml.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    else:
        tensors = [m.from_numpy(a.copy()).requires_grad_(a.dtype.kind == "f") for a in arrays]
    z = function(m, *tensors)
    leaves = [t for t in tensors if t.requires_grad]
    if not z.requires_grad:
        return [z.array if m is ml else z.numpy()]
    c = cotangent_for(tuple(z.shape))
    given_c = c if m is ml else m.from_numpy(np.asarray(c))
    found = m.autograd.grad(z, leaves, given_c, allow_unused=True, materialize_grads=True)
    return [z.array, *(g.array for g in found)] if m is ml else [z.detach().numpy(), *(g.numpy() for g in found)]


def compare(torch, function, arrays, dtype="float64", rtol=None):
    def cotangent(shape):
        return np.asarray(np.random.default_rng(3).standard_normal(shape)).astype(dtype)

    before = [a.copy() for a in arrays]
    with np.errstate(all="ignore"):
        ours, theirs = run(ml, function, arrays, cotangent), run(torch, function, arrays, cotangent)
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert_same(a, b, rtol=rtol, name="value" if not number else f"gradient {number - 1}")
    for old, array in zip(before, arrays):
        assert np.array_equal(old, array, equal_nan=True), "an input was changed"


def call(op):
    """The operation for minilm, PyTorch's counterpart for PyTorch."""

    def function(m, *tensors):
        if m is ml:
            return op.apply(*tensors)
        return op.torch(m, *tensors) if op.torch is not None else getattr(m, op.name)(*tensors)

    return function


# --- pointwise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", POINTWISE, ids=lambda op: op.name)
@quick
@given(data=st.data())
def test_two_broadcasting_inputs(op, data, torch):
    integers = op.name.startswith("bitwise")
    specials = () if op.name in FINITE_ONLY or integers else UNBOUNDED
    x, y = data.draw(strategies.broadcastable(2, specials=specials))
    if op.name == "pow":
        x = np.asarray(abs(x) + 0.125)
    if integers:
        x, y = (np.asarray(a * 8).astype("int64") for a in (x, y))
    compare(torch, call(op), [x, y])


@quick
@given(strategies.broadcastable(3, specials=UNBOUNDED))
def test_where(torch, arrays):
    condition, x, y = arrays
    compare(torch, lambda m, c, x, y: m.where(c > 0, x, y), [condition, x, y])


@quick
@given(strategies.broadcastable(2, specials=UNBOUNDED))
def test_masked_fill(torch, arrays):
    x, mask = arrays
    if np.broadcast_shapes(x.shape, mask.shape) != x.shape:
        mask = np.asarray(x)
    compare(torch, lambda m, x, mask: x.masked_fill(mask > 0, -np.inf), [x, mask])


@quick
@given(strategies.arrays(specials=UNBOUNDED), st.sampled_from([0.5, -2.0, 3, 0]), st.booleans())
def test_a_number_on_either_side(torch, x, number, left):
    for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
        name = name.replace("__", "__r", 1) if left else name
        compare(torch, lambda m, t, name=name: getattr(t, name)(number), [x])


@quick
@given(strategies.broadcastable(2, dtype="float32", specials=()))
def test_float32_stays_float32(torch, arrays):
    compare(torch, lambda m, x, y: (x * y + x / (y * y + 1.0)).tanh() - y, arrays, "float32", rtol=1e-3)


@quick
@given(strategies.broadcastable(3))
def test_a_chain_of_broadcasts(torch, arrays):
    """One tensor used several times, each time repeated differently."""
    compare(torch, lambda m, x, y, z: (x * y + y * z).sin() * x - z * x, arrays)


@quick
@given(strategies.shapes(max_axes=3, max_size=3), strategies.shapes(max_axes=3, max_size=3))
def test_shapes_that_do_not_broadcast(a, b):
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError, match=r"add: x .* and y .* do not broadcast: \d is not \d \(axis -\d\)"):
            ml.zeros(a) + ml.zeros(b)
    else:
        assert (ml.zeros(a) + ml.zeros(b)).shape == expected


# --- products of matrices ----------------------------------------------------------------------------------


@quick
@given(strategies.matmul_operands())
def test_matmul(torch, arrays):
    compare(torch, lambda m, x, y: x @ y, arrays)


@quick
@given(strategies.matmul_operands(dtype="float32"))
def test_matmul_in_float32(torch, arrays):
    compare(torch, lambda m, x, y: x @ y, arrays, "float32")


@quick
@given(strategies.matmul_operands(specials=(np.inf, np.nan, 0.0)))
def test_matmul_with_infinities(torch, arrays):
    """Infinity and NaN stay in their row and column."""
    x, y = arrays
    with np.errstate(all="ignore"):
        z = (ml.Tensor(x) @ ml.Tensor(y)).array
    with np.errstate(all="ignore"):
        expected = torch.from_numpy(x.copy()) @ torch.from_numpy(y.copy())
    assert_same(z, expected.numpy())


@quick
@given(strategies.arrays_BTC(), st.integers(0, 4), st.booleans(), st.data())
def test_linear(torch, x, O, bias, data):  # noqa: E741
    C = x.shape[-1]
    arrays = [x, data.draw(strategies.arrays((O, C))), *([data.draw(strategies.arrays((O,)))] if bias else [])]
    compare(torch, lambda m, x, *rest: m.nn.functional.linear(x, *rest), arrays)


# --- reductions -----------------------------------------------------------------------------------------------


@st.composite
def reductions(draw, specials=UNBOUNDED, **shape):
    x = draw(strategies.arrays(strategies.shapes(**shape), specials=specials))
    return x, draw(strategies.axes(x.ndim)), draw(st.booleans())


@pytest.mark.parametrize("name", ["sum", "mean", "logsumexp", "amax", "amin"])
@quick
@given(data=st.data())
def test_reductions_over_any_axes(name, data, torch):
    # PyTorch's logsumexp of -infinity alone has NaN for gradients, ours 0: tests/ops/test_reduction.py
    specials = {"sum": UNBOUNDED, "mean": UNBOUNDED, "logsumexp": (0.0, 700.0, np.inf)}.get(name, UNBOUNDED[:7])
    x, dim, keepdim = data.draw(reductions(specials, min_size=1 if name[0] == "a" else 0))
    if name in ("logsumexp", "amax", "amin") and dim is None:
        dim = tuple(range(x.ndim))
    if dim == ():
        return
    compare(torch, lambda m, x: getattr(x, name)(dim, keepdim), [x], rtol=1e-10)


@pytest.mark.parametrize("name", ["var", "std"])
@quick
@given(reductions(specials=(), min_size=2), st.integers(0, 1))
def test_spread_over_any_axes(name, torch, case, correction):
    x, dim, keepdim = case
    if x.ndim:
        compare(torch, lambda m, x: getattr(x, name)(dim, correction=correction, keepdim=keepdim), [x], rtol=1e-8)


@quick
@given(reductions(specials=(0.0,)), st.sampled_from([1, 2, 0, 3.0]))
def test_norm_over_any_axes(torch, case, p):
    x, dim, keepdim = case
    compare(torch, lambda m, x: x.norm(p, dim, keepdim), [x], rtol=1e-9)


@quick
@given(strategies.arrays(strategies.shapes(min_axes=1, max_axes=3), specials=UNBOUNDED), st.data())
def test_cumsum(torch, x, data):
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    compare(torch, lambda m, x: x.cumsum(dim), [x])


@quick
@given(strategies.arrays(strategies.shapes(min_axes=1, max_axes=3, max_size=5), specials=(0.0, 0.0, 2.0)), st.data())
def test_prod(torch, x, data):
    dim, keepdim = data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.booleans())
    compare(torch, lambda m, x: x.prod(dim, keepdim), [x], rtol=1e-10)


@quick
@given(strategies.arrays(strategies.shapes(min_axes=1, max_axes=3), specials=(0.0, 700.0, -700.0, -np.inf)), st.data())
def test_softmax_along_any_axis(torch, x, data):
    dim = data.draw(st.integers(-x.ndim, x.ndim - 1))
    for name in ("softmax", "log_softmax"):
        compare(torch, lambda m, x, name=name: getattr(x, name)(dim), [x], rtol=1e-10)
