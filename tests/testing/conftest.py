"""What the tests of the checkers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minilm.autograd import Function
from minilm.tensor import wrap


@pytest.fixture
def planted() -> Callable[..., Any]:
    """`planted(forward, backward)`: a function with that forward and, right or wrong, that backward, both on arrays."""

    def plant(forward: Callable[..., Any], backward: Callable[..., Any]) -> Callable[..., Any]:
        class Planted(Function):
            @staticmethod
            def forward(ctx: Any, *tensors: Any) -> Any:
                ctx.inputs = [t.array for t in tensors]
                return wrap(np.asarray(forward(*ctx.inputs)))

            @staticmethod
            def backward(ctx: Any, dy: Any) -> Any:
                found = backward(dy.array, *ctx.inputs)
                found = found if isinstance(found, tuple) else (found,)
                return tuple(None if g is None else wrap(np.array(g)) for g in found)

        return Planted.apply

    return plant
