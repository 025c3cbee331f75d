"""What decoding an output keeps of earlier steps and of the source.

Shapes: B outputs, S tokens of the source, T of the target, H heads, D channels of a head, N = B T rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.errors import AutogradError, ShapeError
from minilm.generation import LayerCache
from minilm.ops.attention import cached_attention
from minilm.tensor import Tensor

Array = Any


class SourceCache:
    """The keys and values that one layer made of a memory: several rows, as the beams of a sentence, look at the same.

    Args:
        k, v: (sentences, H, S, D).

    Attributes:
        places: (N, S), the sentence that row n looks at, negative where that has padding.
    """

    def __init__(self, k: Tensor, v: Tensor, places: Array) -> None:
        # (sentences, S, H, D), but the keys in memory channel by channel: so they are read, once for each token.
        self.keys = np.ascontiguousarray(k.array.swapaxes(-1, -2)).transpose(0, 3, 1, 2)
        self.values = v.array.transpose(0, 2, 1, 3)
        self.places = places

    def attend(self, q: Tensor, scale: float | None) -> Tensor:
        """What the queries of T tokens of each row bring back: (N T, H D) -> (N T, H D)."""
        queries = q.array.reshape(len(q), *self.keys.shape[2:])
        T = len(queries) // len(self.places)
        places = self.places if T == 1 else self.places.repeat(T, 0)
        y = cached_attention(queries, self.keys, self.values, places, scale=scale)
        return Tensor(y.reshape(q.shape))


class DecoderCache:
    """What decoding keeps of earlier steps: in each layer the target's keys and values, and once those of the memory.

    Made by `model.new_cache(memory)`; row i of a batch belongs to sentence i, until `reorder` moves it.

    Attributes:
        layers: each layer's keys and values of the target. sources: those of the memory.

    Args:
        keys_values: those of the memory in each layer, two of (sentences, H, S, D).
        visible: boolean (sentences, 1, 1, S), where the memory holds no padding; None for everywhere.
    """

    def __init__(
        self, layers: list[LayerCache], keys_values: list[tuple[Tensor, Tensor]], visible: Tensor | None
    ) -> None:
        if any(x.requires_grad for pair in keys_values for x in pair):
            raise AutogradError("DecoderCache: it keeps no gradients; use it under no_grad()")
        count, S = (keys_values[0][0].shape[0], keys_values[0][0].shape[2]) if keys_values else (0, 0)
        shown = True if visible is None else visible.array.reshape(count, S)
        places = np.where(shown, np.arange(count)[:, None], np.full((count, S), -1))
        self.layers, self.sources = layers, [SourceCache(k, v, places) for k, v in keys_values]
        self._rows = count

    def __len__(self) -> int:
        return self._rows

    @property
    def length(self) -> int:
        """How many target positions are in it."""
        return self.layers[-1].length if self.layers else 0  # the last to be filled

    def reorder(self, indices: Any) -> None:
        """Row i becomes what row indices[i] was: the beams that go on. There may be more rows than before, or fewer.

        No keys and values are moved. Errors: ShapeError for what is no list of rows, IndexError for a row that is not
        there.
        """
        rows = np.asarray(indices.array if isinstance(indices, Tensor) else indices)
        if rows.ndim != 1 or not rows.size or rows.dtype.kind not in "iu":
            raise ShapeError(f"reorder: a list of at least one row was expected, not {rows.dtype} of {rows.shape}")
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"reorder: rows from {rows.min()} to {rows.max()}, and there are 0 ... {len(self) - 1}")
        for layer in self.layers:
            layer.reorder(rows)
        if self.sources:
            places = self.sources[0].places[rows]
            for source in self.sources:
                source.places = places
        self._rows = len(rows)
