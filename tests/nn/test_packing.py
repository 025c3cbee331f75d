"""Packed sequences, and the layers that take them, beside PyTorch's; and that padding changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minilm as ml
from minilm import nn
from minilm.errors import ConfigError, ShapeError
from minilm.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
)
from minilm.testing import assert_same

C, H = 3, 5
lengths_of_batches = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def filled(lengths: list[int], more: int = 0, seed: int = 0) -> Any:
    """A padded batch (T, B, C) with numbers everywhere, behind the sequences too."""
    return np.random.default_rng(seed).standard_normal((max(lengths) + more, len(lengths), C))


@settings(max_examples=40, deadline=None)
@given(lengths=lengths_of_batches, more=st.integers(0, 2), batch_first=st.booleans(), total=st.integers(0, 3))
def test_packing_and_back_is_pytorchs(torch, lengths, more, batch_first, total):
    x = filled(lengths, more)
    x = x.transpose(1, 0, 2).copy() if batch_first else x
    ours = pack_padded_sequence(ml.Tensor(x), lengths, batch_first, enforce_sorted=False)
    rnn = torch.nn.utils.rnn
    theirs = rnn.pack_padded_sequence(torch.from_numpy(x), torch.tensor(lengths), batch_first, enforce_sorted=False)
    assert_same(ours.batch_sizes, theirs.batch_sizes)
    for part in ("sorted_indices", "unsorted_indices"):
        assert getattr(ours, part).shape == (len(lengths),)
    for a, b in zip(unpack_sequence(ours), rnn.unpack_sequence(theirs), strict=True):
        assert_same(a, b, rtol=0)
    size = max(lengths) + total
    padded, counts = pad_packed_sequence(ours, batch_first, -7.0, size)
    expected, theirs_counts = rnn.pad_packed_sequence(theirs, batch_first, -7.0, size)
    assert_same(padded, expected, rtol=0)
    assert_same(counts, theirs_counts)


def test_sequences_that_are_sorted_keep_their_order(torch):
    x = filled([4, 3, 3, 1])
    ours = pack_padded_sequence(ml.Tensor(x), [4, 3, 3, 1])
    theirs = torch.nn.utils.rnn.pack_padded_sequence(torch.from_numpy(x), [4, 3, 3, 1])
    assert ours.sorted_indices is ours.unsorted_indices is None
    assert_same(ours.data, theirs.data, rtol=0)
    sequences = [ml.Tensor(x[:n, b]) for b, n in enumerate([4, 3, 3, 1])]
    assert_same(pack_sequence(sequences).data, ours.data, rtol=0)
    assert_same(pad_packed_sequence(ours)[0], pad_sequence(sequences), rtol=0)
    assert ours.float().data.dtype == ml.float32
    assert ours.float().double().data.dtype == ml.float64
    assert isinstance(ours.to(ml.float32), PackedSequence)


def test_gradients_go_through_packing_and_back():
    x = ml.Tensor(filled([2, 4]), requires_grad=True)
    padded, _ = pad_packed_sequence(pack_padded_sequence(x, [2, 4], enforce_sorted=False))
    (padded * padded).sum().backward()
    there = np.arange(4)[:, None] < np.array([2, 4])
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.array * there[..., None])


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([2, 3], {}, r"the lengths \[2, 3\] must fall; enforce_sorted=False"),
        ([4, 0], {}, "2 lengths from 1 to 4 were expected, not"),
        ([5, 1], {}, "2 lengths from 1 to 4"),
        ([3], {}, "2 lengths from 1 to 4"),
        ([3, 2, 1], {}, "2 lengths"),
        ([4, 4], {"batch_first": True}, "4 lengths from 1 to 2"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(lengths, options, message):
    with pytest.raises(ConfigError, match=message):
        pack_padded_sequence(ml.zeros(4, 2, 3), lengths, **options)


def test_other_mistakes_are_refused():
    packed = pack_padded_sequence(ml.zeros(4, 2, C), [4, 2])
    with pytest.raises(ConfigError, match="total_length 3 is less than the longest sequence, 4"):
        pad_packed_sequence(packed, total_length=3)
    with pytest.raises(ShapeError, match=r"\(T, B, \.\.\.\)"):
        pack_padded_sequence(ml.zeros(4), [4])
    with pytest.raises(ShapeError, match=r"packed data .* C = 4"):
        nn.GRU(4, H)(packed)
    with pytest.raises(ShapeError, match="first state"):
        nn.GRU(C, H)(packed, ml.zeros(1, 3, H))
    with pytest.raises(TypeError, match="a Tensor or a PackedSequence"):
        nn.GRU(C, H)([1, 2])


# --- layers ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    lengths=lengths_of_batches,
    kind=st.sampled_from(["RNN", "LSTM", "GRU"]),
    layers=st.integers(1, 2),
    bidirectional=st.booleans(),
    first=st.booleans(),
)
def test_layers_on_packed_sequences_are_pytorchs(torch, lengths, kind, layers, bidirectional, first):
    """Outputs, last states, and the gradients of the input, the first state and the weights."""
    rng = np.random.default_rng(len(lengths))
    ours = getattr(nn, kind)(C, H, layers, bidirectional=bidirectional).to("float64")
    theirs = getattr(torch.nn, kind)(C, H, layers, bidirectional=bidirectional).double()
    theirs.load_state_dict({name: torch.from_numpy(t.array.copy()) for name, t in ours.state_dict().items()})
    x = filled(lengths)
    runs, B = layers * (1 + bidirectional), len(lengths)
    states = [rng.standard_normal((runs, B, H)) for _ in range(2 if kind == "LSTM" else 1)] if first else []

    def run(layer: Any, tensor: Any, pack: Any, unpad: Any, counts: Any) -> tuple[list[Any], list[Any]]:
        given = [tensor(a) for a in (x, *states)]
        state = None if not states else tuple(given[1:]) if kind == "LSTM" else given[1]
        y, last = layer(pack(given[0], counts, enforce_sorted=False), state)
        padded, _ = unpad(y)
        return [padded, *(last if kind == "LSTM" else (last,))], given

    def ours_tensor(a: Any) -> Any:
        return ml.Tensor(a, requires_grad=True)

    mine, given_mine = run(ours, ours_tensor, pack_padded_sequence, pad_packed_sequence, lengths)
    rnn = torch.nn.utils.rnn
    other, given_other = run(
        theirs,
        lambda a: torch.from_numpy(a.copy()).requires_grad_(),
        rnn.pack_padded_sequence,
        rnn.pad_packed_sequence,
        torch.tensor(lengths),
    )
    for a, b in zip(mine, other, strict=True):
        assert_same(a, b, rtol=1e-11)
    above = [rng.standard_normal(y.shape) for y in mine]
    ml.autograd.backward(mine, [ml.Tensor(g) for g in above])
    torch.autograd.backward(other, [torch.from_numpy(g) for g in above])
    for a, b in zip(given_mine, given_other, strict=True):
        assert_same(a.grad, b.grad, rtol=1e-10)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert_same(a.grad, b.grad, rtol=1e-10, name=name)


@settings(max_examples=20, deadline=None)
@given(lengths=lengths_of_batches, kind=st.sampled_from(["RNN", "LSTM", "GRU"]), bidirectional=st.booleans())
def test_each_sequence_alone_gives_what_it_gives_in_a_batch(lengths, kind, bidirectional):
    ml.manual_seed(1)
    layer = getattr(nn, kind)(C, H, 2, bidirectional=bidirectional, dtype=ml.float64)
    x = filled(lengths, 1)
    y, last = layer(pack_padded_sequence(ml.Tensor(x), lengths, enforce_sorted=False))
    last = last[0] if kind == "LSTM" else last
    for b, (n, part) in enumerate(zip(lengths, unpack_sequence(y), strict=True)):
        alone, ended = layer(ml.Tensor(x[:n, b]))
        assert_same(part, alone, rtol=1e-12)
        assert_same(last[:, b], ended[0] if kind == "LSTM" else ended, rtol=1e-12)
