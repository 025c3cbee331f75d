"""Recurrent layers by Numba: the loops over gates and states of one time; the products are NumPy's `@`.

The simple RNN is left to the reference: beside the product it is a tanh, for which NumPy has vector instructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minilm.kernels.jit_compiled import compiled, owned
from minilm.kernels.jit_memory import empty
from minilm.kernels.jit_numbers import sigmoid, tanh
from minilm.kernels.reference_recurrent import states_before, walk

Array = Any

COST = 4  # an exponential for each gate counts as so many elements


@compiled(lambda t: (t[:, ::1],) * 6)
def _lstm(first: int, end: int, given: Array, gates: Array, c: Array, h: Array, cells: Array, y: Array) -> None:
    H = y.shape[1]
    for row in range(first, end):
        g_i, g_f, g_g, g_o = given[row, :H], given[row, H : 2 * H], given[row, 2 * H : 3 * H], given[row, 3 * H :]
        i, f, g, o = gates[row, :H], gates[row, H : 2 * H], gates[row, 2 * H : 3 * H], gates[row, 3 * H :]
        state, out, kept, result = c[row], h[row], cells[row], y[row]
        for u in range(H):
            i[u], f[u] = sigmoid(g_i[u] + i[u]), sigmoid(g_f[u] + f[u])
            g[u], o[u] = tanh(g_g[u] + g[u]), sigmoid(g_o[u] + o[u])
            state[u] = kept[u] = f[u] * state[u] + i[u] * g[u]
            out[u] = result[u] = o[u] * tanh(kept[u])


@compiled(lambda t: (t[:, ::1],) * 7)
def _lstm_backward(
    first: int, end: int, dy: Array, dh: Array, dc: Array, gates: Array, cells: Array, before: Array, dgiven: Array
) -> None:
    H, one = dy.shape[1], dy.dtype.type(1)
    for row in range(first, end):
        i, f, g, o = gates[row, :H], gates[row, H : 2 * H], gates[row, 2 * H : 3 * H], gates[row, 3 * H :]
        di, df, dg, do = dgiven[row, :H], dgiven[row, H : 2 * H], dgiven[row, 2 * H : 3 * H], dgiven[row, 3 * H :]
        above, right, dcell, cell, old = dy[row], dh[row], dc[row], cells[row], before[row]
        for u in range(H):
            dh_t, tanh_c = above[u] + right[u], tanh(cell[u])
            dc_t = dcell[u] + dh_t * o[u] * (one - tanh_c * tanh_c)
            di[u] = dc_t * g[u] * i[u] * (one - i[u])
            df[u] = dc_t * old[u] * f[u] * (one - f[u])
            dg[u] = dc_t * i[u] * (one - g[u] * g[u])
            do[u] = dh_t * tanh_c * o[u] * (one - o[u])
            dcell[u] = dc_t * f[u]


@compiled(lambda t: (t[:, ::1], t[:, ::1], t[::1], t[:, ::1], t[:, ::1], t[:, ::1]))
def _gru(first: int, end: int, given: Array, gates: Array, bias: Array, kept: Array, h: Array, y: Array) -> None:
    H = y.shape[1]
    b_r, b_z, b_n = bias[:H], bias[H : 2 * H], bias[2 * H :]
    for row in range(first, end):
        g_r, g_z, g_n = given[row, :H], given[row, H : 2 * H], given[row, 2 * H :]
        r, z, n = gates[row, :H], gates[row, H : 2 * H], gates[row, 2 * H :]
        held, state, result = kept[row], h[row], y[row]
        for u in range(H):
            r[u], z[u] = sigmoid(g_r[u] + (r[u] + b_r[u])), sigmoid(g_z[u] + (z[u] + b_z[u]))
            held[u] = n[u] + b_n[u]
            n[u] = tanh(g_n[u] + r[u] * held[u])
            state[u] = result[u] = n[u] + z[u] * (state[u] - n[u])


@compiled(lambda t: (t[:, ::1],) * 7)
def _gru_backward(
    first: int, end: int, dy: Array, dh: Array, gates: Array, kept: Array, before: Array, dgiven: Array, dheld: Array
) -> None:
    H, one = dy.shape[1], dy.dtype.type(1)
    for row in range(first, end):
        r, z, n = gates[row, :H], gates[row, H : 2 * H], gates[row, 2 * H :]
        dr, dz, dn = dgiven[row, :H], dgiven[row, H : 2 * H], dgiven[row, 2 * H :]
        hr, hz, hn = dheld[row, :H], dheld[row, H : 2 * H], dheld[row, 2 * H :]
        above, right, held, old = dy[row], dh[row], kept[row], before[row]
        for u in range(H):
            dh_t = above[u] + right[u]
            dn[u] = dh_t * (one - z[u]) * (one - n[u] * n[u])
            hz[u] = dz[u] = dh_t * (old[u] - n[u]) * z[u] * (one - z[u])
            hr[u] = dr[u] = dn[u] * held[u] * r[u] * (one - r[u])
            hn[u] = dn[u] * r[u]
            right[u] = dh_t * z[u]


def lstm_layer(
    given: Array, weight: Array, h: Array, c: Array, sizes: Sequence[int], reverse: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """c = s(f) c + s(i) tanh(g), h = s(o) tanh(c); see reference_recurrent.py."""
    given, h, c = owned(given), np.array(h, order="C"), np.array(c, order="C")
    shape = len(given), h.shape[1]
    gates, y, cells = empty(given.shape, given.dtype), empty(shape, given.dtype), empty(shape, given.dtype)
    for rows, b in walk(sizes, reverse):
        np.matmul(h[:b], weight.T, out=gates[rows])
        _lstm(b, COST * gates[rows].size, given[rows], gates[rows], c[:b], h[:b], cells[rows], y[rows])
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
    """dgiven, dweight, dh and dc of the first state; see reference_recurrent.py."""
    steps = walk(sizes, reverse)
    dy, gates, cells, dh, dc = owned(dy), owned(gates), owned(cells), np.array(dh, order="C"), np.array(dc, order="C")
    before = states_before(cells, c, steps)
    dgiven = empty(gates.shape, gates.dtype)
    for rows, b in reversed(steps):
        arrays = dy[rows], dh[:b], dc[:b], gates[rows], cells[rows], before[rows], dgiven[rows]
        _lstm_backward(b, COST * dgiven[rows].size, *arrays)
        np.matmul(dgiven[rows], weight, out=dh[:b])
    return dgiven, np.matmul(dgiven.T, states_before(y, h, steps)), dh, dc


def gru_layer(
    given: Array, weight: Array, bias: Array | None, h: Array, sizes: Sequence[int], reverse: bool
) -> tuple[Array, Array, Array, Array]:
    """h = (1 - z) n + z h; see reference_recurrent.py."""
    given, h = owned(given), np.array(h, order="C")
    shape = len(given), h.shape[1]
    gates, y, kept = empty(given.shape, given.dtype), empty(shape, given.dtype), empty(shape, given.dtype)
    added = np.zeros(given.shape[1], given.dtype) if bias is None else owned(bias)
    for rows, b in walk(sizes, reverse):
        np.matmul(h[:b], weight.T, out=gates[rows])
        _gru(b, COST * gates[rows].size, given[rows], gates[rows], added, kept[rows], h[:b], y[rows])
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
    """dgiven, dweight, dbias, dh of the first state; see reference_recurrent.py."""
    steps = walk(sizes, reverse)
    dy, gates, kept, dh = owned(dy), owned(gates), owned(kept), np.array(dh, order="C")
    before = states_before(owned(y), h, steps)
    dgiven, dheld = empty(gates.shape, gates.dtype), empty(gates.shape, gates.dtype)
    for rows, b in reversed(steps):
        arrays = dy[rows], dh[:b], gates[rows], kept[rows], before[rows], dgiven[rows], dheld[rows]
        _gru_backward(b, COST * dgiven[rows].size, *arrays)
        dh[:b] += np.matmul(dheld[rows], weight)
    return dgiven, np.matmul(dheld.T, before), dheld.sum(0), dh
