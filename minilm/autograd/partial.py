"""A gradient that is not yet there as one array."""

from __future__ import annotations

from typing import Any

Array = Any


class PartialGradient:
    """What a backward may return, outside a recorded walk: most of it zeros, or a product still to be computed.

    The walk adds it to the gradient that is there, and makes the whole array only where there is none.

    Attributes:
        array: the numbers that it is made of, for those who look for NaN; of the gradient's type.
        shape: of the whole.
    """

    array: Array
    shape: tuple[int, ...]

    def dense(self) -> Array:
        """The whole gradient, a new array."""
        raise NotImplementedError

    def plus(self, gradient: Array, own: bool) -> Array:
        """The sum with a whole gradient: in that very array if it is the walk's `own`, or in a new one."""
        raise NotImplementedError
