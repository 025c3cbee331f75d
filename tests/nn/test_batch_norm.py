"""BatchNorm beside PyTorch's: the batch's statistics, the running ones, and the two modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ShapeError
from minilm.testing import assert_same

rng = np.random.default_rng(1)
INPUTS = [("1d", (5, 3)), ("1d", (2, 3, 5)), ("2d", (2, 3, 5, 7))]
OPTIONS = [{}, {"eps": 0.1, "momentum": 0.4}, {"affine": False}, {"track_running_stats": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("kind", "shape"), INPUTS)
def test_both_modes_are_those_of_torch(beside: Any, torch: Any, kind: str, shape: Any, options: Any) -> None:
    ours = getattr(nn, f"BatchNorm{kind}")(3, **options)
    theirs = getattr(torch.nn, f"BatchNorm{kind}")(3, **options)
    x = 3 * rng.standard_normal(shape) + 2
    beside(ours, theirs, x)  # which gives both the same random running statistics first
    _same_state(ours, theirs)
    for module in (ours, theirs):
        for name in ("running_mean", "running_var"):
            if getattr(module, name) is not None:
                getattr(module, name).abs_()  # a variance is not negative
        module.eval()
    assert_same(ours(ml.Tensor(x)), theirs(torch.from_numpy(x)))


def _same_state(ours: Any, theirs: Any) -> None:
    for name, buffer in theirs.named_buffers():
        assert_same(dict(ours.named_buffers())[name], buffer, name=name)


def test_running_statistics_follow_the_batches(torch: Any) -> None:
    for momentum in (0.1, None):
        ours, theirs = nn.BatchNorm2d(3, momentum=momentum), torch.nn.BatchNorm2d(3, momentum=momentum)
        for _ in range(3):
            x = rng.standard_normal((2, 3, 5, 7)).astype("float32")
            ours(ml.Tensor(x))
            theirs(torch.from_numpy(x))
        _same_state(ours, theirs)
    ours.reset_running_stats()
    assert ours.running_var.tolist() == [1.0] * 3
    assert ours.num_batches_tracked.item() == 0


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(ShapeError, match="more than one value"):
        nn.BatchNorm1d(3)(ml.zeros(1, 3))
    with pytest.raises(ShapeError, match="axes"):
        nn.BatchNorm2d(3)(ml.zeros(2, 3))
    with pytest.raises(ShapeError, match="4 channels"):
        nn.BatchNorm1d(3)(ml.zeros(2, 4))
