"""Convolutions and pooling as modules, beside PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError
from minilm.nn import functional as F
from minilm.testing import assert_same

rng = np.random.default_rng(1)
IMAGE = rng.standard_normal((2, 4, 7, 5))
SEQUENCE = rng.standard_normal((2, 4, 11))

OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same"},
    {"padding": "valid", "dilation": 2},
    {"groups": 2, "bias": False},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_convolutions_are_those_of_torch(beside: Any, torch: Any, options: Any, dtype: str) -> None:
    for ours, theirs, x in ((nn.Conv1d, torch.nn.Conv1d, SEQUENCE), (nn.Conv2d, torch.nn.Conv2d, IMAGE)):
        mine, other = ours(4, 6, 3, **options), theirs(4, 6, 3, **options)
        beside(mine, other, x.astype(dtype))
        beside(mine, other, x[0].astype(dtype))
        assert repr(mine) == repr(other)


def test_a_kernel_of_two_sizes_is_told_apart(beside: Any, torch: Any) -> None:
    options = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)}
    beside(nn.Conv2d(4, 6, **options), torch.nn.Conv2d(4, 6, **options), IMAGE)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_same_padding_of_an_even_kernel_has_one_more_behind(beside: Any, torch: Any) -> None:
    beside(nn.Conv2d(4, 3, (2, 4), padding="same"), torch.nn.Conv2d(4, 3, (2, 4), padding="same"), IMAGE)


def test_first_values_lie_in_the_range_of_torch() -> None:
    weight = nn.Conv2d(3, 1000, 2).weight.array
    bound = 1 / np.sqrt(12)
    assert 0.99 * bound < np.abs(weight).max() <= bound


@pytest.mark.parametrize("kind", ["MaxPool", "AvgPool"])
@pytest.mark.parametrize("options", [{}, {"stride": 1}, {"stride": 2, "padding": 1}], ids=str)
def test_pooling_is_that_of_torch(beside: Any, torch: Any, kind: str, options: Any) -> None:
    for axes, x in ((1, SEQUENCE), (2, IMAGE)):
        name = f"{kind}{axes}d"
        ours, theirs = getattr(nn, name)(3, **options), getattr(torch.nn, name)(3, **options)
        beside(ours, theirs, x)
        beside(ours, theirs, x[0])


def test_of_equal_numbers_the_first_gets_the_gradient(beside: Any, torch: Any) -> None:
    x = np.maximum(rng.integers(-2, 2, (2, 3, 6, 8)), 0).astype(float)  # many windows of nothing but zeros
    beside(nn.MaxPool2d(2), torch.nn.MaxPool2d(2), x)
    beside(nn.MaxPool2d(3, 2, 1), torch.nn.MaxPool2d(3, 2, 1), x)


@pytest.mark.parametrize("size", [1, 3, (2, 5), (None, 4)], ids=str)
def test_adaptive_pooling_is_that_of_torch(beside: Any, torch: Any, size: Any) -> None:
    beside(nn.AdaptiveAvgPool2d(size), torch.nn.AdaptiveAvgPool2d(size), IMAGE)
    if isinstance(size, int):
        beside(nn.AdaptiveAvgPool1d(size), torch.nn.AdaptiveAvgPool1d(size), SEQUENCE)


def test_a_pooled_printout_is_that_of_torch(torch: Any) -> None:
    for name, arguments in {"MaxPool2d": (3, 2), "AvgPool2d": (3,), "AdaptiveAvgPool2d": (1,)}.items():
        assert repr(getattr(nn, name)(*arguments)) == repr(getattr(torch.nn, name)(*arguments))


def test_folding_undoes_unfolding_where_windows_do_not_overlap() -> None:
    x = ml.Tensor(rng.standard_normal((2, 3, 6, 8)))
    assert_same(F.fold(F.unfold(x, 2, stride=2), (6, 8), 2, stride=2), x)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: F.conv2d(ml.zeros(2, 3, 7, 5), ml.zeros(4, 2, 3, 3)), "3 channels"),
        (lambda: F.conv2d(ml.zeros(2, 3, 7, 5), ml.zeros(4, 3, 3)), "weight of 4"),
        (lambda: F.conv2d(ml.zeros(2, 3, 2, 5), ml.zeros(4, 3, 3, 3)), "no window"),
        (lambda: F.conv2d(ml.zeros(2, 3, 7, 5), ml.zeros(4, 3, 3, 3), stride=0), "stride"),
        (lambda: F.conv2d(ml.zeros(2, 3, 7, 5), ml.zeros(4, 3, 3, 3), stride=2, padding="same"), "stride of 1"),
        (lambda: F.conv2d(ml.zeros(2, 3, 7, 5), ml.zeros(4, 3, 3, 3), padding="full"), "'full'"),
        (lambda: F.max_pool2d(ml.zeros(2, 3, 7, 5), 2, padding=2), "more than half"),
        (lambda: F.avg_pool2d(ml.zeros(7, 5), 2), "image"),
        (lambda: F.fold(ml.zeros(2, 12, 9), (7, 5), 2), "24 windows"),
        (lambda: F.adaptive_avg_pool2d(ml.zeros(2, 3, 7, 5), 0), "0 means"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 groups"):
        nn.Conv2d(3, 4, 3, groups=2)
