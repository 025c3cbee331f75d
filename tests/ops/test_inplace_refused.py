"""In-place changes that are refused: one clear error, and everything is as it was."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm.errors import AutogradError, DtypeError, ShapeError


def leaf(m, values):
    return m.tensor(np.asarray(values, "float64").tolist(), dtype=m.float64, requires_grad=True)


def test_leaves_that_require_a_gradient(both, refused):
    def story(m):
        x = leaf(m, [[1, 2], [3, 4]])
        seen = [refused(x.add_, 1), refused(x.zero_), refused(x[0].mul_, 2), refused(x.fill_, 1)]
        seen += [refused(x.__setitem__, 0, 1.0), refused(x.__setitem__, np.array([1]), 1.0), refused(x.copy_, x * 2)]
        with m.no_grad():
            x.add_(1)
            x[0].mul_(2)
            x[:, 1] = 7.0
        (x * x).sum().backward()
        return [seen, x, x.is_leaf, x.requires_grad, x.grad]

    both(story)


def test_the_words_for_leaves():
    x = ml.ones(2, 2, requires_grad=True)
    with pytest.raises(AutogradError, match=r"add_: a leaf that requires a gradient.*no_grad\(\).*clone"):
        x.add_(1)
    with pytest.raises(AutogradError, match="mul_: a view of a leaf"):
        x[0].mul_(1)


@pytest.mark.parametrize("name", ["add_", "copy_", "fill_", "zero_", "uniform_", "x[index] = value"])
def test_expanded_and_read_only_memory(name):
    calls = {
        "add_": lambda t: t.add_(1.0),
        "copy_": lambda t: t.copy_(ml.ones(3)),
        "fill_": lambda t: t.fill_(1.0),
        "zero_": lambda t: t.zero_(),
        "uniform_": lambda t: t.uniform_(),
        "x[index] = value": lambda t: t.__setitem__(0, 1.0),
    }
    expanded = ml.tensor([5.0]).expand(2, 3)
    with pytest.raises(AutogradError, match=r"expanded tensor of shape \(2, 3\).*clone"):
        calls[name](expanded)
    assert expanded.tolist() == [[5.0] * 3] * 2
    array = np.full((2, 3), 5.0)
    array.flags.writeable = False
    for t in (ml.from_numpy(array), ml.from_numpy(array).transpose(0, 1)):
        with pytest.raises(AutogradError, match="read-only"):
            calls[name](t)
    assert (array == 5.0).all()


def test_an_axis_of_one_element_may_be_expanded(both):
    def story(m):
        x = m.tensor([1.0, 2.0]).reshape(2, 1).expand(1, 2, 1)
        x.mul_(3)
        return [x]

    both(story)


def test_shapes_and_types_that_do_not_fit(both, refused):
    def story(m):
        x, n = m.ones(3), m.tensor([1, 2, 3])
        b = m.tensor([True, False, True])
        seen = [
            refused(x.add_, m.ones(2, 3)),
            refused(x.copy_, m.ones(2)),
            refused(x.copy_, m.ones(2, 3)),
            refused(n.add_, 1.5),
            refused(n.div_, 2),
            refused(n.exp_),
            refused(b.add_, 1),
            refused(x.__setitem__, slice(0, 2), m.ones(3)),
            refused(x.__setitem__, 5, 1.0),
            refused(x.__setitem__, np.array([0, 5]), 1.0),
        ]
        x.add_(n)
        n.mul_(True)
        n.copy_(m.tensor([1.75, -2.75, 3.0]))
        b.copy_(n)
        x.copy_(m.tensor([1.5, 2.5, 3.5], dtype=m.float64))
        return [seen, x, n, b]

    both(story)


def test_the_words_for_shapes_and_types():
    with pytest.raises(ShapeError, match=r"add_: a result of shape \(2, 3\) does not fit into \(3,\)"):
        ml.ones(3).add_(ml.ones(2, 3))
    with pytest.raises(DtypeError, match="add_: a result of float32 cannot be written into int64"):
        ml.tensor([1]).add_(1.5)
    with pytest.raises(ShapeError, match=r"copy_: a source of shape \(2,\) does not (fit|broadcast)"):
        ml.ones(3).copy_(ml.ones(2))
    for tape in (False, True):
        x = ml.ones(4, 3, requires_grad=tape) * 1
        for index in (0, np.array([1, 2])):
            with pytest.raises(ShapeError, match=r"a value of shape \(2,\) does not fit"):
                x[index] = ml.ones(2)


def test_a_refused_change_leaves_everything_as_it_was():
    x = ml.ones(3, requires_grad=True)
    y = x.exp()
    before = y.array.copy()
    for attempt in (lambda: y.add_(ml.ones(2, 3)), lambda: y.copy_(ml.ones(2)), lambda: y.__setitem__(7, 1.0)):
        with pytest.raises((ShapeError, IndexError)):
            attempt()
    assert np.array_equal(y.array, before)
    y.sum().backward()
    assert np.array_equal(x.grad.array, before)
