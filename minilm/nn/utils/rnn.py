"""torch.nn.utils.rnn: sequences of different lengths, padded and packed (`minilm/nn/packing.py`)."""

from minilm.nn.packing import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    unpack_sequence,
)
from minilm.ops.joining import pad_sequence

__all__ = [
    "PackedSequence",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
]
