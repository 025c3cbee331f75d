"""Sequences that lie one behind the other, and the same with padding: how a kernel for the one serves the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.device import array_module

Array = Any


def packed_by(
    attend: Any,
    q: Array,
    k: Array,
    v: Array,
    starts: Array,
    longest: int,
    causal: bool,
    scale: float,
    p: float,
    key: int,
    row: int,
    out: Array | None,
) -> tuple[Array, Array]:
    """`packed_attention` by another kernel, which is given the same with padding."""
    grid = Grid("packed_attention", starts, q.shape[-2], longest)
    y, lse = attend(*map(grid.padded, (q, k, v)), None, grid.mask(q.ndim), causal, scale, p, key, row)
    return grid.rows(y, out), grid.rows(lse[..., None])[..., 0]


def packed_backward_by(
    attend_backward: Any,
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    starts: Array,
    longest: int,
    causal: bool,
    scale: float,
    p: float,
    key: int,
    row: int,
    out: tuple[Array, Array, Array] | None,
) -> tuple[Array, Array, Array]:
    """`packed_attention_backward` by another kernel, which is given the same with padding."""
    grid = Grid("packed_attention_backward", starts, q.shape[-2], longest)
    padded = map(grid.padded, (dy, q, k, v, y))
    of_rows = grid.padded(lse[..., None])[..., 0]
    *gradients, _ = attend_backward(*padded, of_rows, None, grid.mask(q.ndim), causal, scale, p, key, row)
    dq, dk, dv = (grid.rows(x, to) for x, to in zip(gradients, out or (None, None, None)))
    return dq, dk, dv


class Grid:
    """Sequences behind each other, (..., N, C), and with padding, (B, ..., T, C)."""

    def __init__(self, kernel: str, starts: Array, count: int, longest: int) -> None:
        starts = checked_starts(kernel, starts, count, longest)
        self.seen = np.arange(longest) < np.diff(starts)[:, None]  # (B, T)

    def mask(self, ndim: int) -> Array:
        """Where the keys are, (B, 1, ..., 1, T)."""
        B, T = self.seen.shape
        return self.seen.reshape(B, *(1,) * (ndim - 1), T)

    def padded(self, x: Array) -> Array:
        """(..., N, C) -> (B, ..., T, C), zeros between."""
        grid = array_module(x).zeros((*self.seen.shape, *x.shape[:-2], x.shape[-1]), x.dtype)
        grid[self.seen] = np.moveaxis(x, -2, 0)
        return np.moveaxis(grid, 1, -2)

    def rows(self, x: Array, out: Array | None = None) -> Array:
        """(B, ..., T, C) -> (..., N, C), into `out` if it is given."""
        rows = np.moveaxis(np.moveaxis(x, -2, 1)[self.seen], 0, -2)
        if out is None:
            return array_module(x).ascontiguousarray(rows)
        out[...] = rows
        return out


def checked_starts(kernel: str, starts: Array, count: int, longest: int) -> Array:
    """`starts` as int64, side by side. Errors: ValueError for what does not cut `count` rows into sequences of T."""
    starts = np.require(starts, np.int64, ["C", "A"])  # C reads it where it lies
    if starts.ndim != 1 or not len(starts) or starts[0] != 0 or starts[-1] != count or (np.diff(starts) < 0).any():
        raise ValueError(f"{kernel}: starts go up from 0 to the number of rows, {count}; they are {starts.tolist()}")
    if (np.diff(starts) > longest).any():
        raise ValueError(f"{kernel}: a sequence of {np.diff(starts).max()} rows is longer than {longest}")
    return starts
