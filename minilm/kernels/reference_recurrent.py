"""Recurrent layers in NumPy: one layer's walk over time, forward and back.

    B sequences, the longest first, T steps; H channels of the state, G gates; W = weight (G H, H).

What comes in for all times at once, `given` = what the input makes of the gates, has N rows: B of the first time, then
those of the sequences that are still there at the second, and so on; `sizes` counts them (T). So no step computes what
is padding. `reverse` walks from the last time to the first; a sequence is then met when its last element is, and has
kept its first state until there.

    first state of the sequences that a step meets -> total = given + h W^T -> gates -> next state

The backward walks the other way. Its large product, dW, is made at the end, once for all times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from minilm.device import array_module
from minilm.kernels.special import sigmoid

Array = Any
Steps = list[tuple[slice, int]]


def walk(sizes: Sequence[int], reverse: bool) -> Steps:
    """The steps in order: the rows of `given` that belong to each, and how many they are."""
    steps, first = [], 0
    for size in sizes:
        steps.append((slice(first, first + size), size))
        first += size
    return steps[::-1] if reverse else steps


def states_before(values: Array, first: Array, steps: Steps) -> Array:
    """For each row of `values` (N, H), states after a step, the state before it; `first` (B, H) is the very first."""
    found = array_module(values).empty_like(values)
    past, known = slice(0, 0), 0  # of the step before: its rows, and how many sequences had one
    for rows, b in steps:
        n = min(b, known)
        found[rows][:n] = values[past][:n]
        found[rows][n:] = first[n:b]
        past, known = rows, b
    return found


def _parts(gates: Array, count: int) -> Iterator[Array]:
    """Views of the gates (..., G H), each (..., H)."""
    H = gates.shape[-1] // count
    return (gates[..., i * H : (i + 1) * H] for i in range(count))


def rnn_layer(
    given: Array, weight: Array, h: Array, sizes: Sequence[int], reverse: bool, relu: bool
) -> tuple[Array, Array]:
    """h = tanh(given + h W^T), or relu: given (N, H), weight (H, H), h (B, H) -> y (N, H), the last h (B, H)."""
    xp = array_module(given)
    y, h = xp.empty_like(given), h.copy()
    for rows, b in walk(sizes, reverse):
        total = given[rows] + xp.matmul(h[:b], weight.T)
        y[rows] = h[:b] = xp.maximum(total, 0) if relu else xp.tanh(total)
    return y, h


def rnn_layer_backward(
    dy: Array, dh: Array, weight: Array, y: Array, h: Array, sizes: Sequence[int], reverse: bool, relu: bool
) -> tuple[Array, Array, Array]:
    """From dy (N, H), dh (B, H) of the last state, and rnn_layer's y and first h: dgiven, dweight, dh of the first."""
    xp = array_module(dy)
    steps = walk(sizes, reverse)
    dgiven, dh = xp.empty_like(y), dh.copy()
    for rows, b in reversed(steps):
        slope = (y[rows] > 0).astype(y.dtype) if relu else 1 - y[rows] * y[rows]
        dgiven[rows] = (dy[rows] + dh[:b]) * slope
        dh[:b] = xp.matmul(dgiven[rows], weight)
    return dgiven, xp.matmul(dgiven.T, states_before(y, h, steps)), dh


def lstm_layer(
    given: Array, weight: Array, h: Array, c: Array, sizes: Sequence[int], reverse: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """total = given + h W^T holds i, f, g, o:  c = s(f) c + s(i) tanh(g),  h = s(o) tanh(c), s the sigmoid.

    given (N, 4 H), weight (4 H, H), h, c (B, H) -> y (N, H), the last h and c (B, H), and for the backward the gates
    after s and tanh (N, 4 H) and all c (N, H).
    """
    xp = array_module(given)
    gates, h, c = xp.empty_like(given), h.copy(), c.copy()
    y, cells = (xp.empty((len(given), h.shape[1]), given.dtype) for _ in range(2))
    for rows, b in walk(sizes, reverse):
        total = given[rows] + xp.matmul(h[:b], weight.T)
        i, f, g, o = _parts(gates[rows], 4)
        total_i, total_f, total_g, total_o = _parts(total, 4)
        i[...], f[...], g[...], o[...] = sigmoid(total_i), sigmoid(total_f), xp.tanh(total_g), sigmoid(total_o)
        cells[rows] = c[:b] = f * c[:b] + i * g
        y[rows] = h[:b] = o * xp.tanh(c[:b])
    return y, h, c, gates, cells


def lstm_layer_backward(
    dy: Array,
    dh: Array,
    dc: Array,
    weight: Array,
    gates: Array,
    cells: Array,
    y: Array,
    h: Array,
    c: Array,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Array, Array, Array, Array]:
    """dgiven (N, 4 H), dweight (4 H, H), and dh, dc (B, H) of the first state.

    dy (N, H); dh, dc (B, H) of the last state; gates, cells, y as lstm_layer gave them; h, c the first state.
    """
    xp = array_module(dy)
    steps = walk(sizes, reverse)
    dgiven, dh, dc, cells_before = xp.empty_like(gates), dh.copy(), dc.copy(), states_before(cells, c, steps)
    for rows, b in reversed(steps):
        i, f, g, o = _parts(gates[rows], 4)
        di, df, dg, do = _parts(dgiven[rows], 4)
        dh_t, tanh_c = dy[rows] + dh[:b], xp.tanh(cells[rows])
        dc_t = dc[:b] + dh_t * o * (1 - tanh_c * tanh_c)
        di[...] = dc_t * g * i * (1 - i)
        df[...] = dc_t * cells_before[rows] * f * (1 - f)
        dg[...] = dc_t * i * (1 - g * g)
        do[...] = dh_t * tanh_c * o * (1 - o)
        dc[:b] = dc_t * f
        dh[:b] = xp.matmul(dgiven[rows], weight)
    return dgiven, xp.matmul(dgiven.T, states_before(y, h, steps)), dh, dc


def gru_layer(
    given: Array, weight: Array, bias: Array | None, h: Array, sizes: Sequence[int], reverse: bool
) -> tuple[Array, Array, Array, Array]:
    """held = h W^T + bias;  r, z = s(given + held);  n = tanh(given_n + r held_n);  h = (1 - z) n + z h.

    given (N, 3 H), weight (3 H, H), bias (3 H), h (B, H) -> y (N, H), the last h (B, H), and for the backward r, z, n
    (N, 3 H) and held_n (N, H).
    """
    xp = array_module(given)
    gates, h = xp.empty_like(given), h.copy()
    y, kept = (xp.empty((len(given), h.shape[1]), given.dtype) for _ in range(2))
    for rows, b in walk(sizes, reverse):
        held = xp.matmul(h[:b], weight.T)
        held = held if bias is None else held + bias
        held_r, held_z, held_n = _parts(held, 3)
        given_r, given_z, given_n = _parts(given[rows], 3)
        r, z, n = _parts(gates[rows], 3)
        r[...], z[...] = sigmoid(given_r + held_r), sigmoid(given_z + held_z)
        n[...] = xp.tanh(given_n + r * held_n)
        kept[rows] = held_n
        y[rows] = h[:b] = n + z * (h[:b] - n)
    return y, h, gates, kept


def gru_layer_backward(
    dy: Array,
    dh: Array,
    weight: Array,
    gates: Array,
    kept: Array,
    y: Array,
    h: Array,
    sizes: Sequence[int],
    reverse: bool,
) -> tuple[Array, Array, Array, Array]:
    """dgiven (N, 3 H), dweight (3 H, H), dbias (3 H), and dh (B, H) of the first state; as lstm_layer_backward."""
    xp = array_module(dy)
    steps = walk(sizes, reverse)
    dgiven, dheld, dh, before = xp.empty_like(gates), xp.empty_like(gates), dh.copy(), states_before(y, h, steps)
    for rows, b in reversed(steps):
        r, z, n = _parts(gates[rows], 3)
        dr, dz, dn = _parts(dgiven[rows], 3)
        dh_t = dy[rows] + dh[:b]
        dn[...] = dh_t * (1 - z) * (1 - n * n)
        dz[...] = dh_t * (before[rows] - n) * z * (1 - z)
        dr[...] = dn * kept[rows] * r * (1 - r)
        dheld[rows] = dgiven[rows]  # but for n, of which r takes its share
        list(_parts(dheld[rows], 3))[2][...] = dn * r
        dh[:b] = dh_t * z + xp.matmul(dheld[rows], weight)
    return dgiven, xp.matmul(dheld.T, before), dheld.sum(0), dh
