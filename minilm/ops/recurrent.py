"""Recurrent layers, each as one operation over all times: RNN, LSTM and GRU in one direction.

B sequences, the longest first, T steps; H channels of the state. The input's part of the gates comes in for all times
at once, `given` (N, G H), as one product makes it. Its rows are those of the first time (B), then of the sequences that
are still there at the second, and so on: PyTorch's packed sequences, of which a padded batch of equal lengths is the
case N = T B.

Args of all three:
    sizes: how many sequences are there at each time (T), never more than before; the first is B.
    reverse: walk from the last time to the first.

Results: the outputs h of all times (N, H), in the order of `given`, and each sequence's last state (B, H).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from minilm import kernels
from minilm.errors import ShapeError
from minilm.ops.joining import cat, chunk
from minilm.ops.matmul import linear
from minilm.ops.pointwise import sigmoid, tanh
from minilm.ops.registry import Fused, sample
from minilm.ops.selection import relu as positive_part

Array = Any
SIZES = (3, 3, 2, 1, 1)  # of the samples: five times, N = 10


def _check(name: str, given: Array, h: Array, gates: int, sizes: Sequence[int]) -> None:
    """Raise ShapeError unless the gates have G parts, and `sizes` fit the rows and the sequences."""
    H, B = h.shape[1], h.shape[0]
    if given.shape[1] != gates * H:
        raise ShapeError(f"{name}: given {given.shape} has {gates} gates of the {H} channels of h {h.shape}")
    falling = all(later <= size for size, later in pairwise(sizes))
    if sum(sizes) != given.shape[0] or not falling or (sizes and (sizes[0] != B or sizes[-1] < 0)):
        raise ShapeError(
            f"{name}: sizes {_short(sizes)} were expected to fall from the {B} sequences of h {h.shape}, and to add up "
            f"to the {given.shape[0]} rows of given"
        )


def _short(sizes: Sequence[int]) -> str:
    return str(list(sizes)) if len(sizes) <= 8 else f"[{', '.join(map(str, sizes[:6]))}, ..., {sizes[-1]}]"


def _walk(step: Any, given: Any, states: tuple[Any, ...], sizes: Sequence[int], reverse: bool, cat=cat) -> Any:
    """y, and the last states, by `step(given, states) -> states` on the rows of each time."""
    first, rows = 0, []
    for size in sizes:
        rows.append(slice(first, first + size))
        first += size
    outputs = []
    for part in reversed(rows) if reverse else rows:
        b = part.stop - part.start
        here = step(given[part], tuple(s[:b] for s in states))
        states = tuple(new if b == len(old) else cat([new, old[b:]], 0) for new, old in zip(here, states))
        outputs.append(here[0])
    y = cat(outputs[::-1] if reverse else outputs, 0) if outputs else given[:, : states[0].shape[1]]
    return y, *states


class RnnLayer(Fused, shapes="(N, G), (G, H), (B, H) -> (N, H), (B, H)", dtypes="float", method=False):
    """h = tanh(given + h W^T), or relu; arguments and results are those of the module.

    Source: Elman 1990.
    """

    samples = [
        sample((10, 2), (2, 2), (3, 2), sizes=SIZES),
        sample((10, 2), (2, 2), (3, 2), sizes=SIZES, reverse=True),
        sample((6, 5), (5, 5), (2, 5), sizes=(2, 2, 2), relu=True),
        sample((1, 3), (3, 3), (1, 3), sizes=(1,)),
        sample((0, 3), (3, 3), (2, 3), sizes=()),
    ]

    def definition(given, weight, h, sizes, reverse=False, relu=False):
        def step(given, states):
            total = given + linear(states[0], weight)
            return (positive_part(total) if relu else tanh(total),)

        return _walk(step, given, (h,), sizes, reverse)

    def forward(ctx, given, weight, h, sizes, reverse=False, relu=False):
        _check("rnn_layer", given, h, 1, sizes)
        y, last = kernels.rnn_layer(given, weight, h, sizes, reverse, relu)
        ctx.save(given, weight, h, y)
        ctx.options = sizes, reverse, relu
        return y, last

    def backward(ctx, dy, dlast):
        _, weight, h, y = ctx.saved
        return kernels.rnn_layer_backward(dy, dlast, weight, y, h, *ctx.options)  # dgiven, dweight, dh

    def torch(torch, given, weight, h, sizes, reverse=False, relu=False):
        def step(given, states):
            total = given + states[0] @ weight.T
            return (torch.relu(total) if relu else torch.tanh(total),)

        return _walk(step, given, (h,), sizes, reverse, torch.cat)


class LstmLayer(
    Fused,
    shapes="(N, G), (G, H), (B, H), (B, H) -> (N, H), (B, H), (B, H)",
    dtypes="float",
    method=False,
):
    """A cell c that gates write to and read from; arguments and results are those of the module, and the last c.

        i, f, g, o = given + h W^T,    c = s(f) c + s(i) tanh(g),    h = s(o) tanh(c)

    with the sigmoid s; the columns of `given`, and the rows of the weight, hold i, f, g, o.

    Source: Hochreiter & Schmidhuber 1997; the gate f from Gers et al. 2000.
    """

    samples = [
        sample((10, 8), (8, 2), (3, 2), (3, 2), sizes=SIZES),
        sample((10, 8), (8, 2), (3, 2), (3, 2), sizes=SIZES, reverse=True),
        sample((6, 20), (20, 5), (2, 5), (2, 5), sizes=(2, 2, 2)),
        sample((1, 12), (12, 3), (1, 3), (1, 3), sizes=(1,)),
        sample((0, 12), (12, 3), (2, 3), (2, 3), sizes=()),
    ]

    def definition(given, weight, h, c, sizes, reverse=False):
        def step(given, states):
            i, f, g, o = chunk(given + linear(states[0], weight), 4, -1)
            c = sigmoid(f) * states[1] + sigmoid(i) * tanh(g)
            return sigmoid(o) * tanh(c), c

        return _walk(step, given, (h, c), sizes, reverse)

    def forward(ctx, given, weight, h, c, sizes, reverse=False):
        _check("lstm_layer", given, h, 4, sizes)
        y, last_h, last_c, gates, cells = kernels.lstm_layer(given, weight, h, c, sizes, reverse)
        ctx.save(given, weight, h, c, y, gates, cells)
        ctx.options = sizes, reverse
        return y, last_h, last_c

    def backward(ctx, dy, dlast_h, dlast_c):
        _, weight, h, c, y, gates, cells = ctx.saved
        # dgiven, dweight, dh, dc
        return kernels.lstm_layer_backward(dy, dlast_h, dlast_c, weight, gates, cells, y, h, c, *ctx.options)

    def torch(torch, given, weight, h, c, sizes, reverse=False):
        def step(given, states):
            i, f, g, o = torch.chunk(given + states[0] @ weight.T, 4, -1)
            c = torch.sigmoid(f) * states[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c

        return _walk(step, given, (h, c), sizes, reverse, torch.cat)


class GruLayer(Fused, shapes="(N, G), (G, H), (G), (B, H) -> (N, H), (B, H)", dtypes="float", method=False):
    """A gate r that forgets and a gate z that keeps; arguments and results are those of the module.

        held = h W^T + bias,    r, z = s(given + held) each,    n = tanh(given + r held),    h = (1 - z) n + z h

    with the sigmoid s; the columns of `given`, and the rows of the weight, hold r, z, n.

    Source: Cho et al. 2014, with r applied after the product, as in PyTorch.
    """

    samples = [
        sample((10, 6), (6, 2), (6,), (3, 2), sizes=SIZES),
        sample((10, 6), (6, 2), None, (3, 2), sizes=SIZES, reverse=True),
        sample((6, 15), (15, 5), (15,), (2, 5), sizes=(2, 2, 2)),
        sample((1, 9), (9, 3), (9,), (1, 3), sizes=(1,)),
        sample((0, 9), (9, 3), (9,), (2, 3), sizes=()),
    ]

    def definition(given, weight, bias, h, sizes, reverse=False):
        def step(given, states):
            h = states[0]
            given_r, given_z, given_n = chunk(given, 3, -1)
            held_r, held_z, held_n = chunk(linear(h, weight, bias), 3, -1)
            r, z = sigmoid(given_r + held_r), sigmoid(given_z + held_z)
            n = tanh(given_n + r * held_n)
            return (n + z * (h - n),)

        return _walk(step, given, (h,), sizes, reverse)

    def forward(ctx, given, weight, bias, h, sizes, reverse=False):
        _check("gru_layer", given, h, 3, sizes)
        y, last, gates, kept = kernels.gru_layer(given, weight, bias, h, sizes, reverse)
        ctx.save(given, weight, bias, h, y, gates, kept)
        ctx.options = sizes, reverse
        return y, last

    def backward(ctx, dy, dlast):
        _, weight, _, h, y, gates, kept = ctx.saved
        # dgiven, dweight, dbias, dh
        return kernels.gru_layer_backward(dy, dlast, weight, gates, kept, y, h, *ctx.options)

    def torch(torch, given, weight, bias, h, sizes, reverse=False):
        def step(given, states):
            h = states[0]
            given_r, given_z, given_n = torch.chunk(given, 3, -1)
            held_r, held_z, held_n = torch.chunk(torch.nn.functional.linear(h, weight, bias), 3, -1)
            r, z = torch.sigmoid(given_r + held_r), torch.sigmoid(given_z + held_z)
            n = torch.tanh(given_n + r * held_n)
            return (n + z * (h - n),)

        return _walk(step, given, (h,), sizes, reverse, torch.cat)


rnn_layer = RnnLayer.apply
lstm_layer = LstmLayer.apply
gru_layer = GruLayer.apply
