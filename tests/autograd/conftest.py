"""The same story told to minilm and to PyTorch must end alike."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from minilm import autograd, dtypes
from minilm.creation import arange, ones, tensor, zeros
from minilm.tensor import Tensor
from minilm.testing import assert_same

OURS = SimpleNamespace(
    tensor=tensor, ones=ones, zeros=zeros, arange=arange, autograd=autograd, Tensor=Tensor, Function=autograd.Function,
    float32=dtypes.float32, float64=dtypes.float64, int64=dtypes.int64, name="minilm",
    **{name: getattr(autograd, name) for name in (
        "no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "is_grad_enabled",
        "is_inference_mode_enabled",
    )},
)  # fmt: skip


def plain(value):
    """Tensors of either side as arrays, inside lists and dicts too."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
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
        assert type(ours) is type(theirs), f"{where}: {ours!r} where PyTorch gives {theirs!r}"
        assert ours == theirs, f"{where}: {ours!r} where PyTorch gives {theirs!r}"


@pytest.fixture
def both(torch):
    """`both(story)`: run `story(m)` with minilm and with PyTorch; what it returns must agree."""
    from torch.autograd import Function

    theirs = SimpleNamespace(
        **{name: getattr(torch, name) for name in vars(OURS) if hasattr(torch, name)}, Function=Function, name="torch"
    )

    def compare(story):
        agree(plain(story(OURS)), plain(story(theirs)))

    return compare


@pytest.fixture
def refused():
    """`refused(function, ...)`: whether a call ends in an error."""

    def attempt(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except (RuntimeError, ValueError, TypeError, IndexError):
            return True
        return False

    return attempt
