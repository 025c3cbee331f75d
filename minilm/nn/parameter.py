"""Parameter: a tensor that a model learns."""

from __future__ import annotations

from typing import Any

from minilm.tensor import Tensor


class Parameter(Tensor):
    """A leaf tensor that requires a gradient and, as a module's attribute, belongs to its parameters.

    Args:
        data: an array or Tensor, whose memory it shares, or numbers.
        requires_grad: False freezes it.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
