"""Losses at their edges: ignored rows, wrong classes, logits too large for exp."""

from __future__ import annotations

import math

import numpy as np
import pytest

import minilm as ml
from minilm.errors import AutogradError, DtypeError, ShapeError
from minilm.testing import assert_same
from minilm.testing.samples import seeded

F = ml.nn.functional
N, V = 5, 7


def scores(m, shape=(N, V), factor=1.0):
    return m.tensor((seeded("scores").standard_normal(shape) * factor).tolist(), dtype=m.float64, requires_grad=True)


# --- cross entropy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_ignored_rows_count_nothing(reduction, smoothing, weighted, both):
    def story(m):
        x = scores(m)
        weight = m.tensor([0.5, 2.0, 1.0, 0.25, 3.0, 1.5, 1.0], dtype=m.float64) if weighted else None
        target = m.tensor([2, -100, 0, -100, 6])
        loss = m.nn.functional.cross_entropy(x, target, weight, reduction=reduction, label_smoothing=smoothing)
        (dx,) = m.autograd.grad(loss.sum(), x)
        return [loss, dx]

    both(story)


def test_an_ignored_row_may_hold_anything():
    """Its gradient is exactly 0, however large its scores."""
    values = seeded("scores").standard_normal((3, V))
    values[1] = [1e30, -1e30, 0, 1, 2, 3, 1e300]
    x = ml.Tensor(values, requires_grad=True)
    target = ml.tensor([2, -100, 0])
    loss = F.cross_entropy(x, target)
    loss.backward()
    assert not x.grad.array[1].any()
    assert_same(loss, F.cross_entropy(ml.Tensor(values[[0, 2]]), ml.tensor([2, 0])))
    assert F.cross_entropy(x, target, reduction="none").array[1] == 0


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
def test_all_ignored(name, both):
    """A mean over nothing is NaN, a sum 0."""

    def story(m):
        loss = getattr(m.nn.functional, name)
        x, target = scores(m), m.tensor([-100] * N)
        seen = [loss(x, target, reduction=r) for r in ("mean", "sum", "none")]
        return [*seen, *m.autograd.grad(seen[1], x)]

    both(story)


def test_another_ignore_index(both):
    def story(m):
        x, target = scores(m), m.tensor([2, 0, 6, 0, 1])
        losses = [m.nn.functional.cross_entropy(x, target, ignore_index=i) for i in (0, 6, -1)]
        return [*losses, *m.autograd.grad(losses[0], x)]

    both(story)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("wrong", [V, -1, 1000])
def test_a_class_that_is_not_there(name, wrong):
    target = ml.tensor([0, 1, wrong, 3, -100])
    with pytest.raises(IndexError, match=rf"{name}: the class {wrong} is not among the 7 classes 0 ... 6"):
        getattr(F, name)(scores(ml), target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("factor", [1e3, 1e30, 1e-30])
def test_huge_and_tiny_logits(dtype, factor, torch):
    values = (seeded("scores").standard_normal((N, V)) * factor).astype(dtype)
    x, t = ml.Tensor(values, requires_grad=True), torch.from_numpy(values.copy()).requires_grad_()
    target = np.array([2, 0, 6, 0, 1])
    loss, expected = (
        F.cross_entropy(x, ml.Tensor(target)),
        torch.nn.functional.cross_entropy(t, torch.from_numpy(target)),
    )
    assert_same(loss, expected.detach().numpy(), rtol=1e-5)
    assert np.isfinite(loss.item())
    loss.backward()
    expected.backward()
    assert_same(x.grad, t.grad.numpy(), rtol=1e-5)


def test_equal_logits_lose_the_logarithm_of_the_classes():
    for level in (0.0, 1e4, -1e4):
        loss = F.cross_entropy(ml.full((3, V), level, dtype=ml.float64), ml.tensor([0, 3, 6]))
        assert math.isclose(loss.item(), math.log(V), rel_tol=1e-12 * max(1.0, abs(level)))


def test_a_masked_class(both):
    """-infinity among the logits: never chosen, no gradient; as the target, an infinite loss."""

    def story(m):
        x = m.tensor([[0.5, -math.inf, 1.0], [0.5, -math.inf, 1.0]], dtype=m.float64, requires_grad=True)
        loss = m.nn.functional.cross_entropy(x[:1], m.tensor([2]))
        lost = m.nn.functional.cross_entropy(x[1:], m.tensor([1]))
        return [loss, lost, *m.autograd.grad(loss, x)]

    both(story)


def test_classes_along_axis_1(both):
    def story(m):
        x = scores(m, (2, V, 3))
        target = m.tensor([[0, 1, -100], [6, 5, 4]])
        loss = m.nn.functional.cross_entropy(x, target, label_smoothing=0.1)
        return [loss, m.nn.functional.nll_loss(x.log_softmax(1), target), *m.autograd.grad(loss, x)]

    both(story)


def test_integers_of_any_width(both):
    def story(m):
        x = scores(m)
        return [m.nn.functional.cross_entropy(x, m.tensor([0, 1, 2, 3, 4], dtype=t)) for t in (m.int64, m.uint8)]

    both(story)


def test_what_cross_entropy_refuses():
    x = scores(ml)
    target = ml.tensor([0, 1, 2, 3, 4])
    for arguments, options, error, words in [
        ((x, target[:3]), {}, ShapeError, r"targets of shape \(5,\) are expected, not \(3,\)"),
        ((x, target > 2), {}, DtypeError, "the targets must be integers, not bool"),
        ((x, target.double()), {}, ShapeError, r"probabilities must have the scores' shape \(5, 7\), not \(5,\)"),
        ((x, target), {"reduction": "average"}, ValueError, "'mean', 'sum' or 'none', not 'average'"),
        ((x, target, ml.ones(3, dtype=ml.float64)), {}, ShapeError, "7"),
        ((x, target, ml.ones(V, requires_grad=True)), {}, AutogradError, "no gradient flows to weight"),
        ((ml.tensor(1.0), ml.tensor(0)), {}, ShapeError, "no axis of classes"),
    ]:
        with pytest.raises(error, match=words):
            F.cross_entropy(*arguments, **options)


# --- the others ------------------------------------------------------------------------------------------------


def test_logits_so_large_that_a_sigmoid_is_1(both):
    def story(m):
        x = m.tensor([1000.0, -1000.0, 40.0, -40.0, 0.0], dtype=m.float64, requires_grad=True)
        loss = m.nn.functional.binary_cross_entropy_with_logits
        seen = [loss(x, m.tensor([1.0, 0.0, 0.0, 1.0, 0.5], dtype=m.float64), reduction=r) for r in ("none", "sum")]
        wrong = loss(x, m.tensor([0.0, 1.0, 1.0, 0.0, 1.0], dtype=m.float64), reduction="none")
        return [*seen, wrong, *m.autograd.grad(seen[1], x, retain_graph=True), *m.autograd.grad(wrong.sum(), x)]

    both(story)


@pytest.mark.parametrize("weighted", [False, True])
def test_binary_cross_entropy_weights(weighted, both):
    def story(m):
        x, target = scores(m), m.tensor(seeded("t").random((N, V)).tolist(), dtype=m.float64)
        positive = m.tensor([1.0, 2.0, 0.5, 3.0, 1.0, 0.1, 7.0], dtype=m.float64) if weighted else None
        weight = m.tensor([[0.5], [1.0], [2.0], [0.0], [1.0]], dtype=m.float64) if weighted else None
        loss = m.nn.functional.binary_cross_entropy_with_logits(x, target, weight, pos_weight=positive)
        return [loss, *m.autograd.grad(loss, x)]

    both(story)


def test_mse_of_types_and_nothing(both):
    def story(m):
        x = m.tensor([1.0, 2.0], requires_grad=True)
        loss = m.nn.functional.mse_loss(x, m.tensor([0.5, 4.0]), reduction="sum")
        return [loss, *m.autograd.grad(loss, x), m.nn.functional.mse_loss(x[:0], x[:0], reduction="sum")]

    both(story)


def test_what_the_others_refuse():
    x = scores(ml)
    with pytest.raises(ShapeError, match=r"x \(5, 7\) and target \(5,\) differ in shape"):
        F.binary_cross_entropy_with_logits(x, ml.ones(5))
    with pytest.raises(ShapeError, match="do not broadcast"):
        F.mse_loss(x, ml.ones(4, 7))
    for name in ("mse_loss", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=f"{name}: reduction is"):
            getattr(F, name)(x, x, reduction="all")


def test_what_makes_no_sense_is_refused_in_words():
    x, t = ml.randn(3, 4), ml.tensor([0, 1, 2])
    for smoothing in (-0.1, 1.1):
        with pytest.raises(ValueError, match="label_smoothing must lie between 0 and 1"):
            F.cross_entropy(x, t, label_smoothing=smoothing)
    with pytest.raises(DtypeError, match="target must be a tensor or an array, not list"):
        F.cross_entropy(x, [0, 1, 2])
    with pytest.raises(DtypeError, match="weight must be a tensor or an array, not list"):
        F.nll_loss(x, t, [1, 2, 3, 4])
    with pytest.raises(ShapeError, match=r"scores of shape \(3, 0\) have no classes"):
        F.cross_entropy(ml.zeros(3, 0), t)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_of_certain_probabilities(dtype, both):
    """No logarithm is below -100, and no slope infinite."""

    def story(m):
        x = m.tensor([0.0, 0.0, 1.0, 1.0, 0.25, 0.5], dtype=getattr(m, dtype), requires_grad=True)
        target = m.tensor([0.0, 1.0, 0.0, 0.75, 1.0, 0.25], dtype=getattr(m, dtype))
        loss = m.nn.functional.binary_cross_entropy(x, target, reduction="none")
        return [loss, *m.autograd.grad(loss.sum(), x)]

    both(story)
