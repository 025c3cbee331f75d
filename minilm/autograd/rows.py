"""The gradient of a table of which only a few rows were used: those rows, not a table full of zeros."""

from __future__ import annotations

from typing import Any

from minilm import kernels

Array = Any


class RowGradient:
    """A gradient (V, C) that is 0 but for `rows[i]` (N, C) at row `index[i]` (N), rows of one number being added up.

    An embedding of 50,000 words is 154 MB in GPT-2, of which a batch uses some hundred rows. Its backward returns this
    where the walk is not recorded, and the walk adds it into the table's gradient, which, where the table also makes
    the scores, is there already.
    """

    __slots__ = ("index", "rows", "shape")

    def __init__(self, rows: Array, index: Array, shape: tuple[int, ...]) -> None:
        self.rows, self.index, self.shape = rows, index, shape

    @property
    def array(self) -> Array:
        """The numbers in it, for those who look for NaN."""
        return self.rows

    def dense(self) -> Array:
        """The whole gradient, a new array."""
        return kernels.scatter_rows(self.rows, self.index, self.shape[0])

    def add_to(self, table: Array) -> None:
        """Add it into `table` (V, C), in place."""
        kernels.scatter_rows(self.rows, self.index, self.shape[0], table)
