"""Batches of sequences of different lengths without padding, as in torch.nn.utils.rnn.

    sequences a a a a, b b b, c        padded (T, B)  a b c        packed (N)  a b c a b a b a
                                                      a b .
                                                      a b .        batch_sizes (T)  3 2 2 1
                                                      a . .

First come the elements of the first time, of all sequences, then those of the second, of the sequences that have one,
and so on; the sequences stand in the order of their lengths, the longest first. RNN, LSTM and GRU take a
PackedSequence, compute what is there, and give one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minilm.creation import full
from minilm.errors import ConfigError, ShapeError
from minilm.ops.joining import cat, pad_sequence
from minilm.tensor import Tensor

Array = Any


class PackedSequence(NamedTuple):
    """Sequences of different lengths, packed.

    Attributes:
        data: (N, ...), N the sum of the lengths. batch_sizes: (T), how many sequences there are at each time.
        sorted_indices: (B), the number that each sequence, the longest first, had in the batch; None: they came so.
        unsorted_indices: (B), the inverse: where each sequence of the batch is now.
    """

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None = None
    unsorted_indices: Tensor | None = None

    def to(self, *args: Any, **options: Any) -> PackedSequence:
        """The same with `data.to(...)`."""
        return self._replace(data=self.data.to(*args, **options))

    def float(self) -> PackedSequence:
        """The same in float32."""
        return self.to("float32")

    def double(self) -> PackedSequence:
        """The same in float64."""
        return self.to("float64")


def pack_padded_sequence(
    input: Tensor,  # noqa: A002 - PyTorch's name
    lengths: Any,
    batch_first: bool = False,
    enforce_sorted: bool = True,
) -> PackedSequence:
    """Pack a padded batch (T, B, ...), or (B, T, ...) where `batch_first`.

    Args:
        lengths: (B), each from 1 to T. enforce_sorted: refuse lengths that do not fall; otherwise they are sorted.
    Errors: ShapeError, ConfigError for lengths that do not fit or do not fall.
    """
    if input.ndim < 2:
        raise ShapeError(f"pack_padded_sequence: (T, B, ...) was expected, not {input.shape}")
    x = input.transpose(0, 1) if batch_first else input
    T, B = x.shape[:2]
    counts = _counts(lengths, B, T)
    order = None
    if not enforce_sorted:
        order = np.argsort(-counts, kind="stable")
        counts = counts[order]
    elif (np.diff(counts) > 0).any():
        raise ConfigError(
            f"pack_padded_sequence: the lengths {_few(counts)} must fall; enforce_sorted=False sorts the sequences"
        )
    there = np.arange(counts[0])[:, None] < counts
    times, columns = np.nonzero(there)
    data = x[times, columns if order is None else order[columns]]
    sizes = Tensor(there.sum(1))
    if order is None:
        return PackedSequence(data, sizes)
    return PackedSequence(data, sizes, Tensor(order), Tensor(np.argsort(order)))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Tensor, Tensor]:
    """The padded batch (T, B, ...), or (B, T, ...), and the lengths (B), both in the order from before packing.

    Args:
        padding_value: of what lies behind a sequence. total_length: T, by default the longest length.
    Errors: ConfigError for a total_length below the longest.
    """
    sizes = sequence.batch_sizes.array
    longest, B = len(sizes), int(sizes[0])
    T = total_length or longest
    if longest > T:
        raise ConfigError(f"pad_packed_sequence: total_length {T} is less than the longest sequence, {longest}")
    there = np.arange(B) < sizes[:, None]
    lengths = there.sum(0)
    places = np.full((T, B), len(sequence.data))  # of padding: one row behind the data
    places[:longest][there] = np.arange(len(sequence.data))
    if sequence.unsorted_indices is not None:
        back = sequence.unsorted_indices.array
        places, lengths = places[:, back], lengths[back]
    padding = full((1, *sequence.data.shape[1:]), padding_value, dtype=sequence.data.dtype)
    padded = cat([sequence.data, padding], 0)[places.T if batch_first else places]
    return padded, Tensor(lengths)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (T_i, ...). Errors: as `pack_padded_sequence`."""
    lengths = [len(x) for x in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences (T_i, ...), in the order from before packing."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return [x[: int(length)] for x, length in zip(padded, lengths.array)]


def _counts(lengths: Any, B: int, T: int) -> Array:
    """The lengths as numbers. Errors: ConfigError unless there is one from 1 to T for each of B sequences."""
    counts = np.asarray(lengths.array if isinstance(lengths, Tensor) else [int(n) for n in lengths])
    if counts.shape != (B,) or counts.dtype.kind not in "iu" or B == 0 or counts.min() < 1 or counts.max() > T:
        raise ConfigError(
            f"pack_padded_sequence: {B} lengths from 1 to {T} were expected, not {_few(counts)}; an empty sequence "
            "cannot be packed"
        )
    return counts.astype(np.int64)


def _few(counts: Array) -> str:
    return np.array2string(counts, threshold=8, separator=", ")
