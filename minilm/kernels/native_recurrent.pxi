# Part of native.pyx: recurrent layers.

cdef class Layer:
    """What a walk over time is given: checked, side by side, and as C sees it."""

    cdef minilm_recurrent c
    cdef list arrays  # kept alive

    def __cinit__(self, str kernel, int cell, x, weight, h, sizes, bint reverse, int gates):
        """x: `given` or `dy`, whose type all arrays have; its rows and those of h must be as `sizes` says."""
        self.arrays = []
        self.c.cell, self.c.reverse = <minilm_cell>cell, reverse
        counts = np.asarray(sizes, np.int64)
        if h.ndim != 2 or weight.ndim != 2 or counts.ndim != 1:
            raise ValueError(f"{kernel}: weight {weight.shape} and h {h.shape} must be matrices")
        B, H = h.shape
        if x.ndim != 2 or weight.shape != (gates * H, H):
            raise ValueError(f"{kernel}: weight {weight.shape} and h {h.shape} do not fit: ({gates} H, H) was expected")
        falling = not len(counts) or (counts[0] == B and counts[len(counts) - 1] >= 0 and (np.diff(counts) <= 0).all())
        if not falling or counts.sum() != x.shape[0]:
            raise ValueError(f"{kernel}: sizes must fall from {B}, the rows of h, and add up to {x.shape[0]}")
        self.c.times, self.c.batch, self.c.hidden = len(counts), B, H
        self.c.sizes = <const int64_t *>self.kept(flat(counts))
        self.c.first = <const int64_t *>self.kept(flat(np.cumsum(counts) - counts))
        self.c.weight = self.input(kernel, "weight", weight, weight.shape, x)

    cdef void *kept(self, Elements x):
        self.arrays.append(x)
        return x.start

    cdef void *input(self, str kernel, str name, array, shape, x):
        """An array that is read, its elements side by side."""
        check_types(kernel, x, array, f"the elements and {name}")
        if array.shape != shape:
            raise ValueError(f"{kernel}: {name} is {array.shape}, not {shape}")
        return self.kept(flat(array))

    cdef void *output(self, array):
        return self.kept(Elements(array, True))

    cdef run(self, const minilm_reals *table, bint backward):
        cdef int result
        with nogil:
            result = table.recurrent_backward(&self.c) if backward else table.recurrent(&self.c)
        enough_memory(result)


cdef forward(str kernel, int cell, int gates, given, weight, bias, h, c, sizes, bint reverse):
    """y, the last h and c, the gates and the cells, of which a cell has only some."""
    cdef Layer layer = Layer(kernel, cell, given, weight, h, sizes, reverse, gates)
    N, (B, H), dtype = given.shape[0], h.shape, plain_type(given)
    layer.c.given = layer.input(kernel, "given", given, (N, gates * H), given)
    if bias is not None:
        layer.c.bias = layer.input(kernel, "bias", bias, (gates * H,), given)
    check_types(kernel, given, h, "given and h")
    y, last_h, last_c, activations, cells = empty((N, H), dtype), empty((B, H), dtype), None, None, None
    last_h[...] = h
    layer.c.y, layer.c.h = layer.output(y), layer.output(last_h)
    if gates > 1:
        activations, cells = empty((N, gates * H), dtype), empty((N, H), dtype)
        layer.c.gates, layer.c.cells = layer.output(activations), layer.output(cells)
    if c is not None:
        layer.input(kernel, "c", c, (B, H), given)
        last_c = empty((B, H), dtype)
        last_c[...] = c
        layer.c.c = layer.output(last_c)
    layer.run(reals_of(given), False)
    return y, last_h, last_c, activations, cells


cdef backward(str kernel, int cell, int gates, dy, dh, dc, weight, activations, cells, y, h, c, sizes, bint reverse):
    """dgiven, dweight, dheld, and the first state's dh and dc."""
    cdef Layer layer = Layer(kernel, cell, dy, weight, h, sizes, reverse, gates)
    N, (B, H), dtype = dy.shape[0], h.shape, plain_type(dy)
    layer.c.dy = layer.input(kernel, "dy", dy, (N, H), dy)
    layer.c.y = layer.input(kernel, "y", y, (N, H), dy)
    layer.c.first_h = layer.input(kernel, "h", h, (B, H), dy)
    layer.input(kernel, "dh", dh, (B, H), dy)
    first_dh, first_dc = empty((B, H), dtype), None
    first_dh[...] = dh
    layer.c.h = layer.output(first_dh)
    if gates > 1:
        layer.c.gates = layer.input(kernel, "gates", activations, (N, gates * H), dy)
        layer.c.cells = layer.input(kernel, "cells", cells, (N, H), dy)
    if c is not None:
        layer.c.first_c = layer.input(kernel, "c", c, (B, H), dy)
        layer.input(kernel, "dc", dc, (B, H), dy)
        first_dc = empty((B, H), dtype)
        first_dc[...] = dc
        layer.c.c = layer.output(first_dc)
    dgiven = empty((N, gates * H), dtype)
    layer.c.dgiven = layer.output(dgiven)
    dheld = dgiven
    if cell == MINILM_GRU:
        dheld = empty((N, gates * H), dtype)
        layer.c.dheld = layer.output(dheld)
    layer.run(reals_of(dy), True)
    past = states_before(np.asarray(y, dtype), h, walk(sizes, reverse))
    return dgiven, matmul(dheld.T, past), dheld, first_dh, first_dc


def rnn_layer(given, weight, h, sizes, reverse, relu):
    """h = tanh(given + h W^T), or relu; see reference_recurrent.py."""
    return forward("rnn_layer", MINILM_RNN_RELU if relu else MINILM_RNN_TANH, 1, given, weight, None, h, None, sizes,
                   reverse)[:2]


def rnn_layer_backward(dy, dh, weight, y, h, sizes, reverse, relu):
    """dgiven, dweight, dh of the first state; see reference_recurrent.py."""
    dgiven, dweight, _, first, _ = backward("rnn_layer_backward", MINILM_RNN_RELU if relu else MINILM_RNN_TANH, 1, dy,
                                            dh, None, weight, None, None, y, h, None, sizes, reverse)
    return dgiven, dweight, first


def lstm_layer(given, weight, h, c, sizes, reverse):
    """c = s(f) c + s(i) tanh(g), h = s(o) tanh(c); see reference_recurrent.py."""
    return forward("lstm_layer", MINILM_LSTM, 4, given, weight, None, h, c, sizes, reverse)


def lstm_layer_backward(dy, dh, dc, weight, gates, cells, y, h, c, sizes, reverse):
    """dgiven, dweight, dh and dc of the first state; see reference_recurrent.py."""
    dgiven, dweight, _, *first = backward("lstm_layer_backward", MINILM_LSTM, 4, dy, dh, dc, weight, gates, cells, y, h,
                                          c, sizes, reverse)
    return dgiven, dweight, *first


def gru_layer(given, weight, bias, h, sizes, reverse):
    """h = (1 - z) n + z h; see reference_recurrent.py."""
    y, last, _, gates, kept = forward("gru_layer", MINILM_GRU, 3, given, weight, bias, h, None, sizes, reverse)
    return y, last, gates, kept


def gru_layer_backward(dy, dh, weight, gates, kept, y, h, sizes, reverse):
    """dgiven, dweight, dbias, dh of the first state; see reference_recurrent.py."""
    dgiven, dweight, dheld, first, _ = backward("gru_layer_backward", MINILM_GRU, 3, dy, dh, None, weight, gates, kept,
                                                y, h, None, sizes, reverse)
    return dgiven, dweight, sum_rows(dheld), first
