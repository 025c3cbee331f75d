"""The same story told to minilm and to PyTorch must end alike."""

from __future__ import annotations

import numpy as np
import pytest

import minilm as ml
from minilm.tensor import Tensor
from minilm.testing import assert_same

REFUSALS = (RuntimeError, ValueError, TypeError, IndexError)


def plain(value):
    """Tensors of either side as arrays, inside lists and tuples too."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Tensor):
        return value.array.copy()
    return value.detach().numpy().copy() if hasattr(value, "detach") else value


def agree(ours, theirs, where="result"):
    if isinstance(theirs, list):
        assert isinstance(ours, list), f"{where}: {ours!r} where PyTorch gives {theirs!r}"
        assert len(ours) == len(theirs), f"{where}: {len(ours)} results, PyTorch {len(theirs)}"
        for i, (a, b) in enumerate(zip(ours, theirs)):
            agree(a, b, f"{where}[{i}]")
    elif isinstance(theirs, np.ndarray):
        assert ours is not None, f"{where}: None where PyTorch gives {theirs}"
        assert_same(ours, theirs, name=where)
    else:
        assert ours == theirs, f"{where}: {ours!r} where PyTorch gives {theirs!r}"


@pytest.fixture
def both(torch):
    """`both(story, ...)`: run `story(m, ...)` with m = minilm and m = torch; what it returns must agree."""

    def compare(story, *args):
        agree(plain(story(ml, *args)), plain(story(torch, *args)))

    return compare


@pytest.fixture
def refused():
    """`refused(function, ...)`: whether a call ends in an error."""

    def attempt(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except REFUSALS:
            return True
        return False

    return attempt
