"""Embedding: rows of a table, picked by number."""

from __future__ import annotations

from typing import Any

from minilm import kernels
from minilm.autograd.partial import PartialGradient
from minilm.device import array_module
from minilm.errors import DtypeError
from minilm.modes import state
from minilm.ops.arrange import unsqueeze
from minilm.ops.indexing import index_scatter
from minilm.ops.registry import Primitive, sample
from minilm.ops.selection import ne, where

Array = Any


class RowGradient(PartialGradient):
    """A gradient (V, C) that is 0 but for `rows[i]` (N, C) at row `index[i]` (N), rows of one number being added up.

    GPT-2's table is 154 MB, of which a batch uses some hundred rows; and where it also makes the scores, a gradient
    is there already when the embedding's backward comes.
    """

    def __init__(self, rows: Array, index: Array, shape: tuple[int, ...]) -> None:
        self.array, self.index, self.shape = rows, index, shape

    def dense(self) -> Array:
        """The whole table's gradient."""
        return kernels.scatter_rows(self.array, self.index, self.shape[0])

    def plus(self, gradient: Array, own: bool) -> Array:
        """gradient[index[i]] += rows[i]"""
        total = gradient if own else gradient.copy()
        kernels.scatter_rows(self.array, self.index, self.shape[0], total)
        return total


class Embedding(Primitive, shapes="(...), (V, C) -> (..., C)", dtypes="keep", constants=("indices",), method=False):
    """z = weight[indices]: each number becomes its row of the table.

    dweight: each row the sum of the dz of all places that picked it; 0 for the row `padding_idx`.

    Source: Bengio, Ducharme, Vincent & Jauvin 2003, the matrix C of section 2.
    Errors: DtypeError unless the indices are integers; IndexError for one outside 0 ... V - 1.
    """

    domain = ("index:5", "normal")
    samples = [
        sample((2, 3), (5, 7)),
        sample((), (5, 7)),
        # no index meets the padding here, where the gradient is by intention not the function's
        sample((11,), (7, 3), padding_idx=5),
    ]

    def forward(ctx, indices, weight, padding_idx=None):
        if indices.dtype.kind not in "iu":
            raise DtypeError(f"embedding: the indices must be integers, not {indices.dtype}")
        V = weight.shape[0]
        if indices.size and not (indices.min() >= 0 and indices.max() < V):
            raise IndexError(
                f"embedding: the indices run from {indices.min()} to {indices.max()}, the table has rows 0 ... {V - 1}"
            )
        ctx.indices, ctx.shape = indices, weight.shape
        ctx.padding = None if padding_idx is None else padding_idx % V
        return array_module(weight).take(weight, indices, 0)

    def backward(ctx, dz):
        if ctx.padding is not None:
            dz = where(unsqueeze(ne(ctx.indices, ctx.padding), -1), dz, 0.0)
        if state.create_graph:
            return None, index_scatter(dz, ctx.indices, ctx.shape)
        return None, RowGradient(dz.reshape(ctx.indices.size, ctx.shape[1]), ctx.indices.reshape(-1), ctx.shape)

    def torch(torch, indices, weight, padding_idx=None):
        return torch.nn.functional.embedding(indices, weight, padding_idx)


embedding = Embedding.apply
