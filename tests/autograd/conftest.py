"""Stories about gradients: m has PyTorch's `torch.autograd` names beside those of `torch`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from minilm import autograd, dtypes
from minilm.creation import arange, ones, tensor, zeros
from minilm.tensor import Tensor

OURS = SimpleNamespace(
    tensor=tensor, ones=ones, zeros=zeros, arange=arange, autograd=autograd, Tensor=Tensor, Function=autograd.Function,
    float32=dtypes.float32, float64=dtypes.float64, int64=dtypes.int64, name="minilm",
    **{name: getattr(autograd, name) for name in (
        "no_grad", "enable_grad", "inference_mode", "set_grad_enabled", "is_grad_enabled",
        "is_inference_mode_enabled",
    )},
)  # fmt: skip


@pytest.fixture
def both(torch, agreed):
    """`both(story)`: run `story(m)` with minilm and with PyTorch; what it returns must agree."""
    from torch.autograd import Function

    theirs = SimpleNamespace(
        **{name: getattr(torch, name) for name in vars(OURS) if hasattr(torch, name)}, Function=Function, name="torch"
    )

    def compare(story):
        agreed(story(OURS), story(theirs))

    return compare
