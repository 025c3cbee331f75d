"""NumPy's functions on Tensors: NumPy's values, our gradients, and no gradient lost without a word."""

from __future__ import annotations

import numpy as np
import pytest

from minilm.creation import tensor
from minilm.errors import AutogradError
from minilm.modes import no_grad
from minilm.ops.numpy_functions import FUNCTIONS, UFUNCS, WITHOUT_SLOPE
from minilm.tensor import Tensor
from minilm.testing import assert_same, gradcheck

rng = np.random.default_rng(7)
X = rng.standard_normal((2, 3, 5))
POSITIVE = np.exp(X)
FLAGS, ROW = X > 0, rng.standard_normal(5)
MATRIX, SQUARE, VECTOR = rng.standard_normal((5, 7)), rng.standard_normal((3, 3)), rng.standard_normal(7)

# For every function that has a counterpart: how it is called, and on what.
CALLS: dict[object, list[tuple]] = {
    np.add: [(lambda x: np.add(x, ROW), X), (lambda x: np.add(ROW, x), X), (np.add.reduce, X),
             (lambda x: np.add.reduce(x, axis=None), X), (lambda x: np.add.reduce(x, axis=(0, -1), keepdims=True), X),
             (lambda x: np.add.accumulate(x, 1), X), (lambda x: np.add(x, [1.0, 2.0, 3.0, 4.0, 5.0]), X)],
    np.subtract: [(lambda x: ROW - x, X), (lambda x: np.float64(2.0) - x, X),
                  (lambda x: np.subtract.outer(x, ROW), VECTOR)],
    np.multiply: [(lambda x: ROW * x, X), (lambda x: np.multiply.outer(ROW, x), SQUARE),
                  (lambda x: np.multiply.reduce(x), POSITIVE)],
    np.divide: [(lambda x: ROW / x, POSITIVE), (lambda x: np.true_divide(x, 3), X)],
    np.power: [(lambda x: x**2, X), (lambda x: np.power(x, ROW), POSITIVE),
               (lambda x: np.power(np.float64(1.5), x), X)],
    np.matmul: [(lambda x: X @ x, MATRIX), (lambda x: np.matmul(x, MATRIX), X), (lambda x: VECTOR @ x, MATRIX.T)],
    np.maximum: [(lambda x: np.maximum(x, ROW), X), (lambda x: np.maximum.reduce(x, axis=-1), X)],
    np.minimum: [(lambda x: np.minimum(0.1, x), X), (lambda x: np.minimum.reduce(x), X)],
    np.remainder: [(lambda x: np.remainder(x, 0.7), X)],
    np.equal: [(lambda x: np.equal(ROW, x), X)], np.not_equal: [(lambda x: np.not_equal(x, x), X)],
    np.less: [(lambda x: np.less(ROW, x), X)], np.less_equal: [(lambda x: np.less_equal(ROW, x), X)],
    np.greater: [(lambda x: np.greater(ROW, x), X)], np.greater_equal: [(lambda x: np.greater_equal(ROW, x), X)],
    np.floor_divide: [(lambda x: np.floor_divide(x, 0.3), X)],
    np.logical_and: [(lambda x: np.logical_and(FLAGS, x), FLAGS), (lambda x: np.logical_and.reduce(x, 1), FLAGS)],
    np.logical_or: [(lambda x: np.logical_or(x, FLAGS), ~FLAGS), (lambda x: np.logical_or.reduce(x, 1), FLAGS)],
    np.bitwise_and: [(lambda x: x & FLAGS, FLAGS)], np.bitwise_or: [(lambda x: FLAGS | x, ~FLAGS)],
    np.bitwise_xor: [(lambda x: FLAGS ^ x, FLAGS)],
    np.invert: [(np.invert, FLAGS)], np.logical_not: [(np.logical_not, FLAGS)],
    np.sum: [(np.sum, X), (lambda x: np.sum(x, 1), X), (lambda x: np.sum(x, axis=(0, 2), keepdims=True), X),
             (lambda x: np.sum(x, -1, np.float64), X), (lambda x: np.sum(x, out=None), X)],
    np.mean: [(np.mean, X), (lambda x: np.mean(x, axis=-1, keepdims=True), X)],
    np.var: [(np.var, X), (lambda x: np.var(x, 1), X), (lambda x: np.var(x, axis=(0, 2), ddof=1, keepdims=True), X)],
    np.std: [(np.std, X), (lambda x: np.std(x, 1, ddof=1), X)],
    np.max: [(np.max, X), (lambda x: np.max(x, axis=1, keepdims=True), X), (lambda x: np.amax(x, (0, 1)), X)],
    np.min: [(np.amin, X), (lambda x: np.min(x, axis=1), X)],
    np.prod: [(np.prod, SQUARE), (lambda x: np.prod(x, 1), X), (lambda x: np.prod(x, axis=(0, -1), keepdims=True), X)],
    np.all: [(np.all, FLAGS), (lambda x: np.all(x, axis=1), FLAGS)],
    np.any: [(np.any, FLAGS), (lambda x: np.any(x, axis=1, keepdims=True), FLAGS)],
    np.argmax: [(np.argmax, X), (lambda x: np.argmax(x, axis=1, keepdims=True), X)],
    np.argmin: [(np.argmin, X), (lambda x: np.argmin(x, 0), X)],
    np.cumsum: [(np.cumsum, X), (lambda x: np.cumsum(x, axis=1), X)],
    np.linalg.norm: [(np.linalg.norm, X), (lambda x: np.linalg.norm(x, axis=-1, keepdims=True), X),
                     (lambda x: np.linalg.norm(x, 1), VECTOR), (lambda x: np.linalg.norm(x, np.inf, 1), X)],
    np.trace: [(np.trace, SQUARE), (lambda x: np.trace(x, 1, 1, 2), X)],
    np.reshape: [(lambda x: np.reshape(x, (5, 6)), X), (lambda x: np.reshape(x, -1), X),
                 (lambda x: np.reshape(x, [3, -1]), X)],
    np.ravel: [(np.ravel, X)],
    np.transpose: [(np.transpose, X), (lambda x: np.transpose(x, (1, -1, 0)), X), (lambda x: np.permute_dims(x), X)],
    np.matrix_transpose: [(np.matrix_transpose, X)],
    np.swapaxes: [(lambda x: np.swapaxes(x, 0, -1), X)],
    np.moveaxis: [(lambda x: np.moveaxis(x, 0, -1), X), (lambda x: np.moveaxis(x, (0, 2), (-1, 0)), X)],
    np.squeeze: [(np.squeeze, X[:1]), (lambda x: np.squeeze(x, 0), X[:1, :, :1]),
                 (lambda x: np.squeeze(x, (0, -1)), X[:1, :, :1])],
    np.expand_dims: [(lambda x: np.expand_dims(x, 1), X), (lambda x: np.expand_dims(x, (0, -1)), X)],
    np.broadcast_to: [(lambda x: np.broadcast_to(x, (2, 3, 7)), VECTOR), (lambda x: np.broadcast_to(x, 7), VECTOR[:1])],
    np.tile: [(lambda x: np.tile(x, 2), SQUARE), (lambda x: np.tile(x, (2, 1, 3)), SQUARE)],
    np.flip: [(np.flip, X), (lambda x: np.flip(x, 1), X), (lambda x: np.flip(x, (0, -1)), X)],
    np.roll: [(lambda x: np.roll(x, 2), X), (lambda x: np.roll(x, (1, -2), axis=(0, 2)), X)],
    np.tril: [(np.tril, X), (lambda x: np.tril(x, k=1), X)], np.triu: [(lambda x: np.triu(x, -1), X)],
    np.diagonal: [(np.diagonal, SQUARE), (lambda x: np.diagonal(x, 1, 2, 0), X)],
    np.pad: [(lambda x: np.pad(x, 1), SQUARE), (lambda x: np.pad(x, ((1, 2), (0, 3)), constant_values=2.5), SQUARE),
             (lambda x: np.pad(x, (1, 2)), VECTOR)],
    np.copy: [(np.copy, X)],
    np.concatenate: [(lambda x: np.concatenate([x, X[:1], x]), X), (lambda x: np.concatenate((X, x), axis=-1), X),
                     (lambda x: np.concatenate([x, SQUARE], axis=None), X)],
    np.stack: [(lambda x: np.stack([X, x]), X), (lambda x: np.stack([x, X], axis=-1), X)],
    np.vstack: [(lambda x: np.vstack([x, X]), X), (lambda x: np.vstack([VECTOR, x]), VECTOR)],
    np.hstack: [(lambda x: np.hstack([x, X]), X), (lambda x: np.hstack([VECTOR, x]), VECTOR)],
    np.split: [(lambda x: np.split(x, 2), X), (lambda x: np.split(x, [1, 4], axis=-1), X),
               (lambda x: np.split(x, [-2], 1), X)],
    np.where: [(lambda x: np.where(FLAGS, x, 0.0), X), (lambda x: np.where(X, ROW, x), X),
               (lambda x: np.where(x), FLAGS),
               (lambda x: np.where(x, X, ROW), FLAGS)],
    np.nonzero: [(np.nonzero, FLAGS)],
    np.clip: [(lambda x: np.clip(x, -0.5, 0.5), X), (lambda x: np.clip(x, None, ROW), X),
              (lambda x: np.clip(x, a_min=ROW, a_max=9), X)],
    np.round: [(np.round, X), (lambda x: np.around(x, 1), X)],
    np.sort: [(np.sort, X), (lambda x: np.sort(x, axis=0), X)], np.argsort: [(lambda x: np.argsort(x, 1), X)],
    np.take: [(lambda x: np.take(x, [0, 2, 2], axis=1), X), (lambda x: np.take(x, 3), X)],
    np.take_along_axis: [(lambda x: np.take_along_axis(x, np.argsort(X, 1), 1), X)],
    np.dot: [(lambda x: np.dot(x, MATRIX), X), (lambda x: np.dot(VECTOR, x), VECTOR), (lambda x: np.dot(x, 2.0), X),
             (lambda x: np.dot(SQUARE, x), rng.standard_normal((2, 3, 5)))],
    np.inner: [(lambda x: np.inner(x, ROW), X), (lambda x: np.inner(X, x), X)],
    np.outer: [(lambda x: np.outer(SQUARE, x), VECTOR)],
    np.tensordot: [(lambda x: np.tensordot(x, X, axes=([0, 1], [0, 1])), X), (lambda x: np.tensordot(X, x, 1), MATRIX)],
    np.einsum: [(lambda x: np.einsum("abc,cd->bd", X, x), MATRIX), (lambda x: np.einsum("ii", x), SQUARE)],
    np.zeros_like: [(np.zeros_like, X)], np.ones_like: [(lambda x: np.ones_like(x, dtype=np.int64), X)],
    np.full_like: [(lambda x: np.full_like(x, 2.5), X)],
}  # fmt: skip
ALIASES = {np.amax, np.amin, np.around}  # of np.max, np.min, np.round
NOT_COMPARABLE = {np.empty_like}
POSITIVE_ONLY = {np.log, np.log2, np.log10, np.log1p, np.sqrt, np.reciprocal}

for ufunc in UFUNCS:  # those of one argument need no entry of their own
    if ufunc.nin == 1 and ufunc not in CALLS:
        CALLS[ufunc] = [(ufunc, POSITIVE if ufunc in POSITIVE_ONLY else X)]
CASES = [
    pytest.param(call, array, id=f"{function.__name__}-{i}")
    for function, calls in CALLS.items()
    for i, (call, array) in enumerate(calls)
]


def test_every_counterpart_is_compared():
    assert set(CALLS) == (set(UFUNCS) | set(FUNCTIONS)) - NOT_COMPARABLE - ALIASES


def _first(result):
    return result[0] if isinstance(result, (list, tuple)) else result


@pytest.mark.parametrize(("call", "array"), CASES)
def test_the_values_are_numpys(call, array):
    ours, theirs = call(Tensor(array)), call(array)
    assert type(ours) is (type(theirs) if isinstance(theirs, (list, tuple)) else Tensor)
    pairs = zip(ours, theirs) if isinstance(theirs, (list, tuple)) else [(ours, theirs)]
    for y, expected in pairs:
        assert isinstance(y, Tensor)
        assert_same(y.array, np.asarray(expected), name="NumPy's")


# Steps and constants: their results have no slope.
STEPS = {np.zeros_like, np.ones_like, np.full_like, np.floor_divide}
DIFFERENTIABLE = [
    pytest.param(call, array, id=f"{function.__name__}-{i}")
    for function, calls in CALLS.items()
    for i, (call, array) in enumerate(calls)
    if function not in STEPS and array.dtype.kind == "f" and np.asarray(_first(call(array))).dtype.kind == "f"
]


@pytest.mark.parametrize(("call", "array"), DIFFERENTIABLE)
def test_the_gradient_is_kept(call, array):
    assert _first(call(Tensor(array, requires_grad=True))).requires_grad
    gradcheck(call, [array], allow_independent=True)  # ceil and its like have a slope of zero


def test_integers_become_floats_where_numpy_makes_them_so():
    for f in (np.mean, np.var, np.std, np.exp2, np.log2, np.reciprocal, np.linalg.norm):
        assert f(tensor([1, 2, 4])).dtype == np.float32
    assert float(np.mean(tensor([1, 2, 4]))) == pytest.approx(7 / 3)


def test_an_array_on_the_left_gives_a_tensor_with_the_gradient():
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    array = np.array([10.0, 20.0, 30.0], np.float32)
    for y in (array * x, np.float32(10) * x, array @ x, array - x, array ** (x / x)):
        assert isinstance(y, Tensor)
        assert y.requires_grad
    (array * x).sum().backward()
    assert x.grad.tolist() == [10.0, 20.0, 30.0]


def test_values_without_slope_need_no_gradient():
    x = tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    assert np.shape(x) == (1, 3)
    assert np.ndim(x) == 2
    assert np.size(x) == 3
    assert np.allclose(x, [[1.0, 2.0, 3.0]])
    assert not np.allclose(x, x * 2)
    assert np.array_equal(x, x)
    assert isinstance(np.isclose(x, 2.0), Tensor)
    assert np.isclose(x, 2.0).tolist() == [[False, True, False]]
    assert np.count_nonzero(x) == 3
    assert np.result_type(x, np.float64) == np.float64
    assert np.shares_memory(x, x.array)
    assert "1." in np.array_repr(x)
    assert all(f not in FUNCTIONS for f in WITHOUT_SLOPE)


# --- what is refused -----------------------------------------------------------------------------

REFUSED = {
    "no counterpart": lambda x: np.fft.fft(x),
    "no such ufunc": lambda x: np.hypot(x, 1.0),
    "in a list": lambda x: np.column_stack([x, x]),
    "where=": lambda x: np.sum(x, where=np.ones(3, bool)),
    "initial=": lambda x: np.max(x, initial=3.0),
    "ufunc where=": lambda x: np.exp(x, where=np.ones(3, bool)),
    "dtype=": lambda x: np.exp(x, dtype=np.float64),
    "at": lambda x: np.add.at(np.zeros(3), [0, 1, 2], x),
    "reduceat": lambda x: np.add.reduceat(x, [0, 1]),
    "reduce of another": lambda x: np.subtract.reduce(x),
    "accumulate of another": lambda x: np.multiply.accumulate(x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_says_so(name):
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    with pytest.raises(AutogradError, match=r"no counterpart.*gradient.*t\.detach\(\)\.numpy\(\)"):
        REFUSED[name](x)
    with pytest.raises(TypeError, match=r"no counterpart.*t\.numpy\(\)"):
        REFUSED[name](x.detach())


def test_asarray_refuses_what_requires_a_gradient():
    x = tensor([1.0, 2.0], requires_grad=True)
    for f in (np.asarray, np.array, lambda t: np.asarray([t, t]), lambda t: np.array(t, copy=None)):
        with pytest.raises(AutogradError, match=r"t\.detach\(\)\.numpy\(\)"):
            f(x)
        with no_grad(), pytest.raises(AutogradError):
            f(x)
    with pytest.raises(AutogradError):
        np.sum([x, x])  # a list goes past us to asarray
    assert np.asarray(x.detach()).tolist() == [1.0, 2.0]
    assert np.shares_memory(np.asarray(x.detach()), x.array)
    assert not np.shares_memory(np.array(x.detach()), x.array)
    assert np.asarray(x.detach(), dtype=np.float64).dtype == np.float64


def test_an_array_changed_in_place_takes_numbers_but_no_gradient():
    """Decided: `array += t` writes numbers where no gradient is lost by it, and else raises with array unchanged."""
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    array = same = np.array([10.0, 20.0, 30.0], np.float32)
    with pytest.raises(AutogradError, match="cannot hold a gradient"):
        array += x
    with pytest.raises(AutogradError, match="cannot hold a gradient"):
        np.multiply(x, 2.0, out=array)
    with no_grad(), pytest.raises(AutogradError, match="cannot hold a gradient"):
        array *= x
    assert array.tolist() == [10.0, 20.0, 30.0]
    array += x.detach()
    assert array is same
    assert type(array) is np.ndarray
    assert array.tolist() == [11.0, 22.0, 33.0]
    array -= tensor([1.0, 2.0, 3.0])
    assert array.tolist() == [10.0, 20.0, 30.0]
    assert np.exp(tensor([0.0, 0.0, 0.0]), out=array) is array
    assert array.tolist() == [1.0, 1.0, 1.0]


def test_a_tensor_is_no_place_for_numpys_results():
    x = tensor([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match=r"out= cannot be a Tensor.*t\.copy_"):
        np.add(np.ones(3), 1.0, out=x)
    with pytest.raises(TypeError, match="no counterpart"):
        np.sum(np.ones((3, 3)), axis=0, out=x)
    assert x.tolist() == [1.0, 2.0, 3.0]


def test_a_tensor_changed_in_place_by_an_array_stays_a_tensor():
    x = tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    y += np.array([1.0, 2.0], np.float32)
    y.sum().backward()
    assert y.tolist() == [2.0, 4.0]
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_sum_in_another_type_gives_the_gradient_in_its_own():
    for call in (lambda x: np.sum(x, dtype=np.float64), lambda x: x.sum(dtype=np.float64)):
        x = tensor([1.0, 2.0, 3.0], requires_grad=True)
        y = call(x)
        y.backward()
        assert (x.dtype, y.dtype, x.grad.dtype) == (np.float32, np.float64, np.float32)


def test_array_on_the_left_compares():
    x = tensor([1.0, 2.0, 3.0], requires_grad=True)
    array = np.array([3.0, 2.0, 1.0], np.float32)
    for y, expected in [(array < x, [False, False, True]), (array == x, [False, True, False])]:
        assert isinstance(y, Tensor)
        assert y.tolist() == expected


def test_mistakes_are_named():
    x = tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    for f, words in [
        (lambda: np.sum(x, axis=()), r"axis=\(\)"),
        (lambda: np.squeeze(x, 1), "has not size 1"),
        (lambda: np.split(x, 2, axis=1), "2 equal parts"),
        (lambda: np.linalg.norm(x, 2), "norms of matrices"),
        (lambda: np.add(x, np.ones(2)), "add"),
        (lambda: np.add(x, "one"), "add"),
        (lambda: np.add(x, np.ones(3, complex)), "complex128"),
    ]:
        with pytest.raises((ValueError, TypeError), match=words):
            f()
