"""A gradient of which only a part is there, the rest being zeros."""

from __future__ import annotations

from typing import Any

Array = Any


class PartialGradient:
    """What a backward may return, outside a recorded walk, for an input that it touched in few places.

    The walk adds it into the gradient that is there, and makes the whole array only where there is none.

    Attributes:
        array: the numbers that are there, for those who look for NaN.
        shape: of the whole.
    """

    array: Array
    shape: tuple[int, ...]

    def dense(self) -> Array:
        """The whole gradient, a new array."""
        raise NotImplementedError

    def add_to(self, gradient: Array) -> None:
        """Add it into a whole gradient, in place."""
        raise NotImplementedError
