"""Where a token stands, as a vector: fixed waves. Positions that are learnt are an Embedding of their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from minilm.creation import tensor
from minilm.errors import ConfigError
from minilm.nn import functional as F
from minilm.nn.module import Module
from minilm.tensor import Tensor


def sinusoids(num_positions: int, channels: int, interleaved: bool = True) -> Any:
    """The waves of SinusoidalPositions as an array (T, C), float64."""
    angles = np.arange(num_positions)[:, None] * 10000.0 ** (-2 * np.arange((channels + 1) // 2) / channels)
    sines, cosines = np.sin(angles), np.cos(angles)[:, : channels // 2]
    if not interleaved:
        return np.concatenate([sines, cosines], 1)
    waves = np.empty((num_positions, channels))
    waves[:, 0::2], waves[:, 1::2] = sines, cosines
    return waves


class SinusoidalPositions(Module):
    """A fixed vector for each position t = 0 ... T - 1, in the manner of Embedding: numbers (...) -> (..., C).

        y[2 i] = sin(t w_i),   y[2 i + 1] = cos(t w_i),   w_i = 10000 ** (-2 i / C)

    The vector of t + k is one and the same linear map (a rotation in each pair of channels) of that of t, whatever t.

    Args:
        num_positions: T. embedding_dim: C.
        interleaved: sines and cosines take turns; else all sines come first, as Hugging Face's Marian has it.

    Attributes:
        weight: (T, C), a buffer: part of the state, and not learnt.
    Source: Vaswani et al. 2017, section 3.5. Errors: ConfigError for sizes below 1; IndexError for a number beyond T.
    """

    def __init__(
        self,
        num_positions: int,
        embedding_dim: int,
        interleaved: bool = True,
        device: Any = "cpu",
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if min(num_positions, embedding_dim) < 1:
            raise ConfigError(f"SinusoidalPositions: sizes are at least 1, not {num_positions} and {embedding_dim}")
        self.num_positions, self.embedding_dim, self.interleaved = num_positions, embedding_dim, interleaved
        waves = sinusoids(num_positions, embedding_dim, interleaved)
        self.register_buffer("weight", tensor(waves, dtype=dtype or "float32", device=device))

    def forward(self, numbers: Tensor) -> Tensor:
        """See the class."""
        return F.embedding(numbers, self.weight)

    def extra_repr(self) -> str:
        """The module's own settings, for its line in `repr`."""
        return f"{self.num_positions}, {self.embedding_dim}, interleaved={self.interleaved}"
