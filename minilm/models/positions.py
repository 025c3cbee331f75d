"""The positions of a batch: which of them a model computes, and which attention may look at."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from minilm.errors import ShapeError
from minilm.ops.indexing import index_scatter
from minilm.ops.random import dropout_rows
from minilm.tensor import Tensor


class Positions:
    """The positions of a batch (B, T): which of them are computed, and which may be looked at.

    All that a layer does but attention it does to each token alone. So the layers work on rows (N, C), one for each
    position that is computed: all N = B T of them, or, packed, those only that hold no padding. Sentences of many
    lengths leave half of a batch and more to padding.

    Args:
        shape: (B, T).
        attention_mask: (B, T), 0 where there is padding; None for no padding.
        pack: compute no padding, but for each first position, which is pooled whatever it holds.
        also: (B, T), true where a position is computed all the same.

    Attributes:
        visible: boolean (B, 1, 1, T), which keys attention may look at; None for all.
        places: (N), which of the B T positions are computed; None for all.
    """

    def __init__(
        self, shape: tuple[int, int], attention_mask: Tensor | None, pack: bool = False, also: Any = None
    ) -> None:
        self.shape = shape
        self.visible: Tensor | None = None
        self.places: Any = None
        if attention_mask is None:
            return
        if attention_mask.shape != shape:
            raise ShapeError(f"attention_mask has shape {attention_mask.shape}, the tokens have {shape}")
        seen = attention_mask.array != 0
        if seen.all():
            return
        self.visible = Tensor(seen.reshape(shape[0], 1, 1, shape[1]))
        if pack:
            computed = seen.copy() if also is None else seen | also
            computed[:, 0] = True
            self.places = None if computed.all() else np.flatnonzero(computed)

    def rows(self, x: Tensor) -> Tensor:
        """The positions that are computed, of all: (B, T, ...) -> (N, ...)."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.places is None else flat[self.places]

    def grid(self, rows: Tensor) -> Tensor:
        """All positions, of those that are computed; the others are 0: (N, C) -> (B, T, C)."""
        B, T = self.shape
        if self.places is not None:
            rows = index_scatter(rows, self.places, (B * T, *rows.shape[1:]))
        return rows.reshape(B, T, *rows.shape[1:])

    def dropout(self, rows: Tensor, p: float) -> Tensor:
        """Dropout of rows (N, C), the same ones whether or not others are computed."""
        return dropout_rows(rows, p, self.shape, self.places)

    @property
    def times(self) -> Any:
        """Where in its sentence each row stands, (N): 0 ... T - 1."""
        B, T = self.shape
        return np.tile(np.arange(T), B) if self.places is None else self.places % T

    @property
    def first(self) -> Any:
        """Which rows are the sentences' first positions, (B)."""
        begins = self.only_first().places
        return begins if self.places is None else np.searchsorted(self.places, begins)

    def only_first(self) -> Positions:
        """The same batch, of which the first positions alone are computed."""
        chosen = copy.copy(self)
        chosen.places = np.arange(self.shape[0]) * self.shape[1]
        return chosen
