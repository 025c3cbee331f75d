"""Blocks of a token sequence, to learn each next token from those before it."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from minilm.data.dataset import Dataset
from minilm.data.draws import Purpose, generator
from minilm.data.shards import ShardedTokens
from minilm.data.tokenfile import TokenFile
from minilm.errors import DataError

Tokens = NDArray[np.integer[Any]]
Block = tuple[NDArray[np.int64], NDArray[np.int64]]


class CausalBlocks(Dataset[Block]):
    """Pairs (x, y) of T tokens each, where y is x one token later, both int64 of shape (T,).

        x = tokens[s : s + T],    y = tokens[s + 1 : s + T + 1],    s = i * stride

    With the default stride T the blocks follow one another, and every token but the first is
    predicted once (a rest shorter than T + 1 is left out). With stride 1 there is a block from each
    of the N - T possible starts: for `RandomBatchSampler`.

    `tokens` is an array of shape (N,), or a TokenFile or ShardedTokens, of which only the blocks asked
    for are read.

    Errors: DataError if N < T + 1, or for a block size or stride below 1.
    """

    def __init__(self, tokens: Tokens | TokenFile | ShardedTokens, block_size: int, stride: int | None = None) -> None:
        self.tokens = _sequence(tokens)
        self.block_size = block_size
        self.stride = block_size if stride is None else stride
        if self.block_size < 1 or self.stride < 1:
            raise DataError(
                f"CausalBlocks: block_size is {self.block_size}, stride {self.stride}; both must be at least 1"
            )
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            raise DataError(
                f"CausalBlocks: tokens must be integers in one dimension, not {self.tokens.dtype} {self.tokens.shape}"
            )
        if len(self.tokens) < block_size + 1:
            raise DataError(
                f"CausalBlocks: the corpus has {len(self.tokens)} tokens; a block of {block_size} "
                f"and the token after it need {block_size + 1}"
            )

    def __getitem__(self, index: int, /) -> Block:
        if not -len(self) <= index < len(self):
            raise IndexError(f"block {index} of {len(self)}")
        start = (index % len(self)) * self.stride
        window = self.tokens[start : start + self.block_size + 1].astype(np.int64)
        return window[:-1], window[1:]

    def __len__(self) -> int:
        return (len(self.tokens) - self.block_size - 1) // self.stride + 1

    def random_batch(self, batch_size: int, *, seed: int, step: int) -> Block:
        """x and y of shape (B, T), from B of all possible starts, drawn with replacement.

        A function of (seed, step) alone, and the batch that `RandomBatchSampler` gives for them
        over the same tokens with stride 1.
        """
        starts = generator(seed, step, Purpose.BLOCKS).integers(len(self.tokens) - self.block_size, size=batch_size)
        return self._windows(starts)

    def gather(self, numbers: NDArray[np.integer[Any]]) -> Block:
        """x and y of shape (B, T): the blocks of B numbers in 0 .. len - 1."""
        return self._windows(numbers * self.stride)

    def _windows(self, starts: NDArray[np.integer[Any]]) -> Block:
        windows = self.tokens[starts[:, None] + np.arange(self.block_size + 1)].astype(np.int64)
        return windows[:, :-1], windows[:, 1:]


@overload
def train_validation_split(
    tokens: ShardedTokens, train_fraction: float = 0.9
) -> tuple[ShardedTokens, ShardedTokens]: ...
@overload
def train_validation_split(tokens: Tokens | TokenFile, train_fraction: float = 0.9) -> tuple[Tokens, Tokens]: ...
def train_validation_split(
    tokens: Tokens | TokenFile | ShardedTokens, train_fraction: float = 0.9
) -> tuple[Tokens, Tokens] | tuple[ShardedTokens, ShardedTokens]:
    """The first int(N * train_fraction) tokens and the rest, as views: nothing is copied or read.

    Errors: DataError unless 0 < train_fraction < 1 and both parts have a token.
    """
    array = _sequence(tokens)
    cut = int(len(array) * train_fraction)
    if not 0 < cut < len(array):
        raise DataError(
            f"train_validation_split: {len(array)} tokens at {train_fraction} give {cut} to train "
            f"and {len(array) - cut} to validate; both need at least 1"
        )
    return split_at(array, cut)


def split_at(tokens: Any, cut: int) -> tuple[Any, Any]:
    """The tokens before and from `cut` on, as views: nothing is copied or read."""
    if isinstance(tokens, ShardedTokens):
        return tokens.window(0, cut), tokens.window(cut, len(tokens))
    return tokens[:cut], tokens[cut:]


def _sequence(tokens: Tokens | TokenFile | ShardedTokens) -> Tokens | ShardedTokens:
    if isinstance(tokens, ShardedTokens):
        return tokens
    return tokens.tokens if isinstance(tokens, TokenFile) else np.asanyarray(tokens)
