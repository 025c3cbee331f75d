"""Elements by position: every index that hypothesis invents against PyTorch and NumPy, gather, scatter, order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm.errors import AutogradError, DtypeError, MinilmError, ShapeError
from minilm.testing import assert_same, strategies

SHAPE = (4, 3, 5)


def leaf(array):
    return ml.Tensor(np.array(array), requires_grad=True)


def indexed(draw, kind):
    """An array with an index for it."""
    x = draw(strategies.arrays(strategies.shapes(max_axes=4), laid_out=False))
    return x, draw(getattr(strategies, kind)(x.shape))


def with_index(kind):
    return st.composite(indexed)(kind)


def for_torch(torch, index):
    if isinstance(index, tuple):
        return tuple(for_torch(torch, part) for part in index)
    return torch.from_numpy(index) if isinstance(index, np.ndarray) else index


def cotangent(shape):
    return np.random.default_rng(7).standard_normal(shape)


# --- x[index] -------------------------------------------------------------------------------------------


@given(with_index("basic_indices"))
def test_basic_indices_equal_numpy(case):
    """Integers, slices (also backwards), None and `...`: a view, and the gradient put back at its place."""
    array, index = case
    x = leaf(array)
    y = x[index]
    assert_same(y, array[index])
    assert y._base is x or not y.numel(), "a basic index gives a view"
    c = cotangent(y.shape)
    y.backward(c)
    expected = np.zeros(array.shape)
    expected[index] = c
    assert_same(x.grad, expected)


@settings(max_examples=300)
@given(with_index("indices"))
def test_any_index_equals_pytorch(torch, case):
    """Also arrays and masks; positions that occur twice add up in the gradient."""
    array, index = case
    x, t = leaf(array), torch.from_numpy(array.copy()).requires_grad_()
    y, z = x[index], t[for_torch(torch, index)]
    assert_same(y, z.detach().numpy())
    c = cotangent(y.shape)
    (dx,) = ml.autograd.grad(y, x, c)
    (dt,) = torch.autograd.grad(z, t, torch.from_numpy(np.asarray(c)))
    assert_same(dx, dt.numpy())


@settings(max_examples=200)
@given(with_index("indices"), st.booleans(), st.booleans())
def test_any_assignment_equals_pytorch(torch, case, recorded, number):
    """x[index] = value, on the tape and off it, of whole values and of a single number."""
    array, index = case
    shape = array.shape
    x = ml.Tensor(np.arange(float(array.size)).reshape(shape))
    target = x[index].array
    if np.unique(target).size != target.size:
        return  # a position twice: PyTorch does not say which value stays
    values = np.asarray(cotangent(() if number else target.shape))
    x, w = leaf(array), leaf(values)
    t, u = torch.from_numpy(array.copy()).requires_grad_(), torch.from_numpy(values.copy()).requires_grad_()
    if not recorded:
        a, b = ml.Tensor(array.copy()), torch.from_numpy(array.copy())
        a[index] = ml.Tensor(values)
        b[for_torch(torch, index)] = torch.from_numpy(values)
        assert_same(a, b.numpy())
        return
    a, b = x * 1, t * 1
    a[index] = w
    b[for_torch(torch, index)] = u
    assert_same(a, b.detach().numpy())
    c = np.asarray(cotangent(shape))
    ours = ml.autograd.grad(a, [x, w], c, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(b, [t, u], torch.from_numpy(c), allow_unused=True, materialize_grads=True)
    for g, h in zip(ours, theirs):
        assert_same(g, h.numpy())


def test_dots_without_an_axis_do_not_part_arrays(both):
    """PyTorch leaves the arrays' axis in its place; NumPy would move it to the front."""

    def story(m):
        x = m.arange(60, dtype=m.float64).reshape(SHAPE)
        y, mask = x * 1, m.tensor([True, False, True])
        places = m.tensor([1, 3])
        y[:, mask, ..., places] = -1.0
        y[None, m.tensor([0, 1]), ..., mask, :] = m.arange(10, dtype=m.float64).reshape(1, 2, 5)
        return [x[:, mask, ..., places], x[None, m.tensor([0, 1]), ..., mask, :], x[None, 0, ..., mask, places], y]

    both(story)
    assert ml.zeros(*SHAPE)[:, [0, 2], ..., [1, 3]].shape == (4, 2)


def test_an_integer_beside_a_distant_array_leaves_its_axis_in_place(both):
    """PyTorch takes the integer first; NumPy would move the array's axis to the front."""

    def story(m):
        x = m.arange(60, dtype=m.float64).reshape(SHAPE)
        y = x * 1
        y[1, :, m.tensor([1, 2, 4])] = -1.0
        return [x[1, :, m.tensor([1, 2, 4])], x[m.tensor([0, 2]), :, 3], x[:, None, 0, ..., m.tensor([0, 0])], y]

    both(story)
    assert ml.zeros(*SHAPE)[1, :, np.array([1, 2, 4, 0])].shape == (3, 4)
    assert np.zeros(SHAPE)[1, :, np.array([1, 2, 4, 0])].shape == (4, 3)


def test_what_else_may_stand_in_an_index(both):
    """Tensors without axes, lists, lists of bools, Python's bools, ranges of a tensor."""

    def story(m):
        x = m.arange(12).reshape(4, 3)
        seen = [x[m.tensor(2)], x[[0, -1]], x[[True, False, True, False]], x[[0, 1], [2, 2]], x[True], x[False]]
        seen += [x[m.tensor([], dtype=m.int64)], x[:, m.tensor([[0], [2]])], x[m.tensor(True)], x[m.tensor(-1), 1]]
        seen += [x[m.tensor([1, 2], dtype=m.int32)], x[x > 4], x[()], list(x), len(x), [int(n) for n in x[1]]]
        return seen

    both(story)


def test_numpy_integers_and_arrays_are_indices_too():
    x = ml.arange(12).reshape(4, 3)
    assert x[np.int64(2), np.int32(1)].item() == 7
    assert x[np.array(2)].tolist() == [6, 7, 8]
    assert x[np.array([True, False, False, True])].shape == (2, 3)


def test_positions_that_are_not_there():
    x = ml.zeros(*SHAPE)
    for index in (4, -5, (0, 3), (slice(None), slice(None), slice(None), 0), np.array([0, 4]), (0, np.array([-4]))):
        with pytest.raises(IndexError):
            x[index]
        with pytest.raises(IndexError):
            x[index] = 1.0
    for mask in (np.ones(5, bool), np.ones((4, 4), bool)):
        with pytest.raises(IndexError):
            x[mask]
    with pytest.raises(IndexError, match="integers or bools, not float32"):
        x[ml.ones(2)]
    with pytest.raises(IndexError):
        x["first"]
    with pytest.raises(IndexError):
        ml.tensor(1.0)[0:1]
    with pytest.raises(TypeError, match="without axes"):
        list(ml.tensor(1.0))


def test_second_derivatives_through_an_index_with_repeats(both):
    def story(m):
        x = m.tensor([0.3, 0.5, -0.7], dtype=m.float64, requires_grad=True)
        y = x[m.tensor([0, 2, 0])] * x[1:2]
        (first,) = m.autograd.grad(y.sin().sum(), x, create_graph=True)
        return [first, *m.autograd.grad((first * first).sum(), x)]

    both(story)


# --- along one axis ---------------------------------------------------------------------------------------


@st.composite
def along(draw):
    """x, an index that reaches nowhere beyond it, values for the index, and the axis."""
    x = draw(strategies.arrays(strategies.shapes(min_axes=1, max_axes=3, min_size=1), laid_out=False))
    dim = draw(st.integers(-x.ndim, x.ndim - 1))
    shape = [draw(st.integers(0, n)) for n in x.shape]
    shape[dim] = draw(st.integers(0, 5))
    index = np.random.default_rng(draw(st.integers(0, 99))).integers(0, x.shape[dim], shape)
    return x, index, draw(strategies.arrays(tuple(shape), laid_out=False)), dim


@pytest.mark.parametrize("name", ["gather", "scatter_add", "scatter"])
@given(along())
def test_gather_and_scatter_equal_pytorch(torch, name, case):
    array, index, values, dim = case
    if name == "scatter" and len({tuple(p) for p in places(index, dim)}) < index.size:
        return  # a position twice: PyTorch does not say which value stays
    x, v, t, u = leaf(array), leaf(values), torch.from_numpy(array.copy()), torch.from_numpy(values.copy())
    t.requires_grad_(), u.requires_grad_()
    if name == "gather":
        y, z = x.gather(dim, ml.Tensor(index)), t.gather(dim, torch.from_numpy(index))
    else:
        y = getattr(x, name)(dim, ml.Tensor(index), v)
        z = getattr(t, name)(dim, torch.from_numpy(index), u)
    # what a sum may lose depends on its terms: 1e-30 + 1 - 1 is 1e-30 or 0, as one adds
    terms = float(np.abs(array).max(initial=0) + np.abs(values).sum())
    assert_same(y, z.detach().numpy(), atol=1e-15 * terms if math.isfinite(terms) else None)
    c = np.asarray(cotangent(y.shape))
    ours = ml.autograd.grad(y, [x, v], c, allow_unused=True, materialize_grads=True)
    theirs = torch.autograd.grad(z, [t, u], torch.from_numpy(c), allow_unused=True, materialize_grads=True)
    for g, h in zip(ours, theirs):
        assert_same(g, h.numpy())


def places(index, dim):
    for position in np.ndindex(index.shape):
        place = list(position)
        place[dim] = int(index[position])
        yield place


@given(along())
def test_take_along_dim_equals_numpy(case):
    array, index, _, dim = case
    index = index[tuple(slice(None) if a == dim % array.ndim else slice(0, 1) for a in range(array.ndim))]
    if 0 in index.shape:
        return
    y = ml.Tensor(array).take_along_dim(ml.Tensor(index), dim)
    assert_same(y, np.take_along_axis(array, index, dim))


def test_index_select_and_index_add(both):
    def story(m):
        x = m.arange(12, dtype=m.float64).reshape(4, 3).requires_grad_()
        rows = m.tensor([3, 0, 3])
        y = m.index_select(x, 0, rows)
        z = x.index_add(dim=0, index=rows, source=y * 2)
        return [y, z, *m.autograd.grad((z * z).sum(), x)]

    both(story)


def test_what_gather_and_scatter_refuse():
    x, index = ml.zeros(2, 3), ml.tensor([[0, 1]])
    for attempt, error, words in [
        (lambda: x.gather(1, ml.tensor([[0, 3]])), IndexError, r"gather: index 0 ... 3 leaves 0 ... 2 of axis 1"),
        (lambda: x.gather(1, ml.tensor([[-1, 0]])), IndexError, r"gather: index -1"),
        (lambda: x.gather(1, ml.tensor([0])), ShapeError, r"gather: the index \(1,\) must have as many axes"),
        (lambda: x.gather(1, ml.zeros(1, 1)), DtypeError, "gather: the index must be integers, not float32"),
        (lambda: x.gather(2, index), ShapeError, "gather: there is no axis 2 among 2"),
        (lambda: x.gather(1, ml.zeros(3, 1, dtype=ml.int64)), ShapeError, r"\(3, 1\) reaches beyond x \(2, 3\)"),
        (lambda: x.scatter_add(1, index, ml.ones(1, 1)), ShapeError, r"index \(1, 2\) reaches beyond src \(1, 1\)"),
        (lambda: x.index_select(0, ml.tensor([2])), IndexError, "2"),
        (lambda: x.index_select(0, ml.ones(1)), DtypeError, "index_select: the index must be integers"),
        (lambda: x.masked_select(index), DtypeError, "masked_select: the mask must be boolean"),
    ]:
        with pytest.raises(error, match=words):
            attempt()
    with pytest.raises((AutogradError, DtypeError)):
        x.gather(1, ml.zeros(1, 1, requires_grad=True))


def test_0d_tensors_along_their_only_axis(both):
    def story(m):
        x, src = leaf_of(m, 3.0), leaf_of(m, 5.0)
        index = m.tensor(0)
        results = [x.gather(0, index), x.scatter(0, index, src), x.scatter_add(0, index, src)]
        return [*results, *m.autograd.grad(results[2].sin(), [x, src])]

    both(story)


def test_x_broadcasts_to_its_index_too(both):
    def story(m):
        x = leaf_of(m, [[1.0, 2.0, 3.0]])
        y = m.take_along_dim(x, m.tensor([[2, 0], [1, 1]]), 1)
        return [y, *m.autograd.grad((y * m.tensor([[1.0, 2.0], [3.0, 5.0]], dtype=m.float64)).sum(), x)]

    both(story)


def test_index_add_with_a_factor(both):
    def story(m):
        x, source = leaf_of(m, [[1.0, 2.0], [3.0, 4.0]]), leaf_of(m, [[5.0, 6.0]])
        y = m.index_add(x, 0, m.tensor([1]), source, alpha=-2)
        return [y, *m.autograd.grad(y.square().sum(), [x, source])]

    both(story)


def leaf_of(m, values):
    return m.tensor(values, dtype=m.float64, requires_grad=True)


# --- order --------------------------------------------------------------------------------------------------


@given(
    strategies.arrays(strategies.shapes(max_axes=3), specials=(0.0, 1.0, np.inf, -np.inf), laid_out=False), st.data()
)
def test_sort_and_topk_equal_pytorch(torch, array, data):
    """Ties too: rounded to halves, so that there are many; equals keep their order."""
    array = np.asarray(np.round(array * 2) / 2)
    dim = data.draw(st.integers(-array.ndim, array.ndim - 1)) if array.ndim else -1
    x, t = leaf(array), torch.from_numpy(array.copy()).requires_grad_()
    descending = data.draw(st.booleans())
    y, z = x.sort(dim, descending), torch.sort(t, dim=dim, descending=descending, stable=True)
    assert_same(y.values, z.values.detach().numpy())
    assert_same(y.indices, z.indices.numpy())
    assert_same(x.argsort(dim, descending), z.indices.numpy())
    c = np.asarray(cotangent(array.shape))
    (dx,), (dt,) = ml.autograd.grad(y.values, x, c), torch.autograd.grad(z.values, t, torch.from_numpy(c))
    assert_same(dx, dt.numpy())
    k = data.draw(st.integers(0, array.shape[dim])) if array.ndim else 1
    top, best = x.topk(k, dim, descending), torch.topk(t, k, dim, largest=descending)
    assert_same(top.values, best.values.detach().numpy())
    if array.ndim:  # which of several equals is PyTorch's secret; ours are those that sort puts first
        assert_same(top.values, np.take_along_axis(array, top.indices.array, dim))
        assert_same(top.indices, y.indices.array[(slice(None),) * (dim % array.ndim) + (slice(0, k),)])


def test_ties_share_nothing_the_first_gets_the_gradient():
    x = leaf([2.0, 3.0, 3.0, 1.0])
    values, indices = x.topk(1)
    values.sum().backward()
    assert indices.tolist() == [1]
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 0.0]


def test_where_nan_is_sorted(both):
    def story(m):
        x = m.tensor([1.0, float("nan"), -1.0, float("nan"), float("inf")])
        return [*x.sort(), *x.sort(dim=0, descending=True, stable=True), x.topk(3)[0], x.topk(2, largest=False)[0]]

    both(story)


def test_topk_refuses_more_than_there_are():
    with pytest.raises(ShapeError, match=r"topk: 4 elements were asked for, axis -1 of \(2, 3\) has fewer"):
        ml.zeros(2, 3).topk(4)
    with pytest.raises(ShapeError, match="topk: -1 elements"):
        ml.zeros(3).topk(-1)
    with pytest.raises(ShapeError, match="sort: there is no axis 1 among 1"):
        ml.zeros(3).sort(1)


# --- one_hot ------------------------------------------------------------------------------------------------


def test_one_hot(both):
    def story(m):
        one_hot = m.nn.functional.one_hot
        x = m.tensor([[0, 2], [1, 0]])
        return [one_hot(x), one_hot(x, 5), one_hot(m.tensor(2)), one_hot(m.zeros(0, 2, dtype=m.int64), 3)]

    both(story)


@pytest.mark.parametrize(
    ("values", "classes", "words"),
    [
        ([0, 3], 3, r"one_hot: index 0 ... 3 leaves 0 ... 2"),
        ([-1, 1], 3, r"one_hot: index -1 ... 1 leaves 0 ... 2"),
        ([-1, 1], -1, r"one_hot: index -1 ... 1 leaves 0 ... 1"),
        ([], -1, "one_hot: .*no indices"),
        ([1.0], 3, "one_hot: indices must be integers, not float32"),
        ([1], 0, "one_hot"),
    ],
)
def test_one_hot_refuses(values, classes, words):
    x = ml.tensor(values) if values else ml.zeros(0, dtype=ml.int64)
    with pytest.raises(MinilmError, match=words):
        ml.nn.functional.one_hot(x, classes)
