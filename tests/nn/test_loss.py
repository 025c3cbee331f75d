"""The losses as modules beside PyTorch's: every reduction, every option, every shape."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, DtypeError, ShapeError
from minilm.testing import assert_same

V = 7
REDUCTIONS = ["mean", "sum", "none"]
# Shapes of scores, and of the class numbers that belong to them.
SHAPES = [((5, V), (5,)), ((V,), ()), ((2, V, 3), (2, 3)), ((2, V, 3, 5), (2, 3, 5))]


def scores(shape: Any, dtype: str = "float64") -> Any:
    return (3 * np.random.default_rng(1).standard_normal(shape)).astype(dtype)


def classes(shape: Any) -> Any:
    return np.asarray(np.random.default_rng(2).integers(0, V, shape))


def weights(dtype: str = "float64") -> Any:
    return np.random.default_rng(3).uniform(0.5, 2, V).astype(dtype)


def shares(shape: Any, axis: int, dtype: str) -> Any:
    drawn = np.random.default_rng(4).uniform(0, 1, shape)
    return (drawn / drawn.sum(axis, keepdims=True)).astype(dtype)


def check(torch: Any, name: str, x: Any, target: Any, **options: Any) -> Any:
    """Our loss, after it and the gradients of x and of a floating target were those of PyTorch's."""
    dtype = x.dtype.name
    rtol = {"float64": 1e-11, "float32": 1e-5}[dtype]

    def built(library: Any, convert: Any) -> Any:
        chosen = {k: convert(v.copy()) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return getattr(library, name)(**chosen)

    learns = target.dtype.kind == "f"
    mine, other = ml.Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    goal, same_goal = ml.Tensor(target, requires_grad=learns), torch.tensor(target, requires_grad=learns)
    loss, expected = built(nn, ml.Tensor)(mine, goal), built(torch.nn, torch.from_numpy)(other, same_goal)
    assert_same(loss, expected, rtol=rtol, name="loss")
    above = np.random.default_rng(5).standard_normal(loss.shape).astype(dtype)
    loss.backward(ml.Tensor(above))
    expected.backward(torch.tensor(above))
    assert_same(mine.grad, other.grad, rtol=rtol, name="gradient of the scores")
    if learns:
        assert_same(goal.grad, same_goal.grad, rtol=rtol, name="gradient of the target")
    return loss


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_classes(torch: Any, reduction: str, weighted: bool, smoothing: float, dtype: str) -> None:
    options = {"reduction": reduction, "label_smoothing": smoothing}
    options |= {"weight": weights(dtype)} if weighted else {}
    for shape, targets in SHAPES:
        check(torch, "CrossEntropyLoss", scores(shape, dtype), classes(targets), **options)
        if targets:
            target = classes(targets)
            target.flat[::3] = -100
            check(torch, "CrossEntropyLoss", scores(shape, dtype), target, **options)
            check(torch, "CrossEntropyLoss", scores(shape, dtype), classes(targets), ignore_index=4, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_of_probabilities(
    torch: Any, reduction: str, weighted: bool, smoothing: float, dtype: str
) -> None:
    options = {"reduction": reduction, "label_smoothing": smoothing}
    options |= {"weight": weights(dtype)} if weighted else {}
    for shape, _ in SHAPES:
        target = shares(shape, 0 if len(shape) == 1 else 1, dtype)
        check(torch, "CrossEntropyLoss", scores(shape, dtype), target, **options)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll(torch: Any, reduction: str, weighted: bool, dtype: str) -> None:
    options = {"reduction": reduction} | ({"weight": weights(dtype)} if weighted else {})
    for (shape, targets), ignored in itertools.product(SHAPES, (-100, 4)):
        target = classes(targets)
        if targets:
            target.flat[1] = ignored
        check(torch, "NLLLoss", scores(shape, dtype), target, ignore_index=ignored, **options)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss"])
def test_where_all_targets_are_ignored(torch: Any, name: str, reduction: str, weighted: bool) -> None:
    # The mean of nothing is NaN, in PyTorch as here: better seen than a loss of 0. No gradient comes of it.
    options = {"weight": weights()} if weighted else {}
    loss = check(torch, name, scores((5, V)), np.full(5, -100), reduction=reduction, **options)
    assert np.isnan(loss.array).all() == (reduction == "mean")


def test_where_all_targets_weigh_nothing(torch: Any) -> None:
    weight = np.arange(V) * 0.5
    check(torch, "NLLLoss", scores((5, V)), np.zeros(5, dtype="int64"), weight=weight, reduction="sum")
    x, target = ml.Tensor(scores((5, V))), ml.zeros(5, dtype=ml.int64)
    assert np.isnan(nn.CrossEntropyLoss(weight=ml.Tensor(weight))(x, target).item())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mean_square(torch: Any, reduction: str, dtype: str) -> None:
    for shape in [(5,), (2, 3, 5), ()]:
        target = np.asarray(np.random.default_rng(2).standard_normal(shape)).astype(dtype)
        check(torch, "MSELoss", np.asarray(scores(shape, dtype)), target, reduction=reduction)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("weight", "positive"), [(None, None), ((3, 1), None), (None, (5,)), ((5,), (3, 5))])
def test_binary_cross_entropy(torch: Any, weight: Any, positive: Any, reduction: str, dtype: str) -> None:
    rng = np.random.default_rng(6)
    options: dict[str, Any] = {"reduction": reduction}
    for name, shape in (("weight", weight), ("pos_weight", positive)):
        if shape is not None:
            options[name] = rng.uniform(0.5, 3, shape).astype(dtype)
    x = scores((2, 3, 5), dtype)
    check(torch, "BCEWithLogitsLoss", x, rng.uniform(0, 1, x.shape).astype(dtype), **options)
    check(torch, "BCEWithLogitsLoss", 100 * x, rng.integers(0, 2, x.shape).astype(dtype), **options)


def test_scores_far_apart_neither_overflow_nor_vanish(torch: Any) -> None:
    x = np.array([[1000.0, 0.0, -1000.0], [-1e4, 1e4, 0.0]])
    loss = check(torch, "CrossEntropyLoss", x, np.array([2, 1]), reduction="none")
    assert loss.tolist() == [2000, 0]


def test_weights_are_buffers_that_travel_with_the_module(torch: Any) -> None:
    for name in ("CrossEntropyLoss", "NLLLoss", "BCEWithLogitsLoss"):
        ours = getattr(nn, name)(weight=ml.ones(V))
        theirs = getattr(torch.nn, name)(weight=torch.ones(V))
        assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
        assert not list(ours.parameters())
        assert ours.to(ml.float64).weight.dtype == ml.float64
    assert list(nn.BCEWithLogitsLoss(pos_weight=ml.ones(3)).state_dict()) == ["pos_weight"]


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss, nn.MSELoss, nn.BCEWithLogitsLoss])
def test_reductions_that_are_unknown_are_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match=f"{kind.__name__}.*'average'"):
        kind(reduction="average")


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
def test_targets_that_do_not_fit_are_one_error_with_the_numbers(kind: Any) -> None:
    x = ml.zeros(5, V)
    with pytest.raises(ShapeError, match=r"\(5,\).*\(3,\)|\(3,\).*\(5,\)"):
        kind()(x, ml.zeros(3, dtype=ml.int64))
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(2,\)|\(2,\).*\(2, 3\)"):
        kind()(ml.zeros(2, V, 3), ml.zeros(2, dtype=ml.int64))
    for wrong in (V, -1):
        with pytest.raises(IndexError, match=f"{wrong}.*{V}"):
            kind()(x, ml.tensor([0, wrong, 1, 2, 3]))
    for wrong in (3, 1):
        with pytest.raises(ShapeError, match=rf"weight.*\({wrong},\).*\(7,\)"):
            kind(weight=ml.ones(wrong))(x, ml.zeros(5, dtype=ml.int64))


def test_other_inputs_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"\(5, 7\).*\(5, 6\)"):
        nn.CrossEntropyLoss()(ml.zeros(5, 7), ml.zeros(5, 6))
    with pytest.raises(ShapeError, match=r"weight.*\(1,\).*\(7,\)"):
        nn.CrossEntropyLoss(weight=ml.ones(1))(ml.zeros(5, 7), ml.zeros(5, 7))
    with pytest.raises(ShapeError, match=r"\(5, 7\).*\(7,\)"):
        nn.BCEWithLogitsLoss()(ml.zeros(5, 7), ml.zeros(7))
    with pytest.raises(ShapeError, match=r"\(5, 7\).*\(5, 6\)"):
        nn.MSELoss()(ml.zeros(5, 7), ml.zeros(5, 6))
    with pytest.raises(DtypeError, match="float"):
        nn.NLLLoss()(ml.zeros(5, 7), ml.zeros(5))
    with pytest.raises(ConfigError, match=r"1\.5"):
        nn.CrossEntropyLoss(label_smoothing=1.5)
