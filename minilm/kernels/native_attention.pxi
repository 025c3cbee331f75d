# Part of native.pyx: attention.

def attention(q, k, v, bias, mask, causal, scale, p=0.0, key=0, row=0, out=None):
    """y = dropout(softmax(scale q k^T + bias)) v and each row's lse: see the reference's."""
    check_attention("attention", q, k, v, bias, mask)
    cdef minilm_attention x
    lead = heads_of(q, k, v, bias, mask)
    y = out if side_by_side(out) else empty((*lead, q.shape[-2], v.shape[-1]), q.dtype)
    lse = empty((*lead, q.shape[-2]), q.dtype)
    held = describe(&x, lead, q, k, v, bias, mask, causal, scale, p, key, row)
    held += place(&x.y, y, len(lead), True), place(&x.lse, lse[..., None], len(lead), True)
    run_attention(&x, q, False)
    if out is not None and y is not out:
        out[...] = y
        y = out
    return y, lse


def attention_backward(dy, q, k, v, y, lse, bias, mask, causal, scale, p=0.0, key=0, row=0, out=None):
    """dq, dk, dv, dbias: see the reference's."""
    check_attention("attention_backward", q, k, v, bias, mask)
    cdef minilm_attention x
    lead = heads_of(q, k, v, bias, mask)
    wanted = (*lead, q.shape[-2], v.shape[-1])
    if dy.shape != wanted or y.shape != wanted or lse.shape != wanted[:-1]:
        raise ValueError(f"attention_backward: dy {dy.shape}, y {y.shape} and lse {lse.shape} do not fit {wanted}")
    gradients = []
    for i, part in enumerate((q, k, v)):
        direct = out is not None and side_by_side(out[i]) and part.shape[:-2] == lead
        gradients.append(out[i] if direct else empty((*lead, *part.shape[-2:]), q.dtype))
    dbias = None if bias is None else np.zeros((*lead, q.shape[-2], k.shape[-2]), q.dtype)

    held = describe(&x, lead, q, k, v, bias, mask, causal, scale, p, key, row)
    axes = len(lead)
    held += place(&x.y, y, axes), place(&x.dy, dy, axes), place(&x.lse, np.ascontiguousarray(lse)[..., None], axes)
    held += place(&x.dq, gradients[0], axes, True), place(&x.dk, gradients[1], axes, True)
    held += (place(&x.dv, gradients[2], axes, True),)
    if dbias is not None:
        held += (Elements(dbias, True),)
        x.dbias = (<Elements>held[-1]).start
    run_attention(&x, q, True)

    results = [summed_to(gradient, part.shape) for gradient, part in zip(gradients, (q, k, v))]
    if out is not None:
        for to, result in zip(out, results):
            if to is not result:
                to[...] = result
        results = list(out)
    return (*results, None if bias is None else summed_to(dbias, bias.shape))


def packed_attention(q, k, v, starts, longest, causal, scale, p=0.0, key=0, row=0, out=None):
    """y and lse of sequences behind each other: see the reference's."""
    cdef minilm_attention x
    lead, starts = packed("packed_attention", q, k, v, starts, longest)
    y = out if side_by_side(out) else empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    lse = empty(q.shape[:-1], q.dtype)
    held = describe(&x, lead, q, k, v, None, None, causal, scale, p, key, row)
    held += follow(&x, starts, longest), place(&x.y, y, len(lead), True), place(&x.lse, lse[..., None], len(lead), True)
    run_attention(&x, q, False)
    if out is not None and y is not out:
        out[...] = y
        y = out
    return y, lse


def packed_attention_backward(dy, q, k, v, y, lse, starts, longest, causal, scale, p=0.0, key=0, row=0, out=None):
    """dq, dk, dv: see the reference's."""
    cdef minilm_attention x
    lead, starts = packed("packed_attention_backward", q, k, v, starts, longest)
    wanted = (*q.shape[:-1], v.shape[-1])
    if dy.shape != wanted or y.shape != wanted or lse.shape != wanted[:-1]:
        raise ValueError(
            f"packed_attention_backward: dy {dy.shape}, y {y.shape} and lse {lse.shape} do not fit {wanted}"
        )
    given = out or (None, None, None)
    results = [to if side_by_side(to) else empty(part.shape, q.dtype) for to, part in zip(given, (q, k, v))]
    held = describe(&x, lead, q, k, v, None, None, causal, scale, p, key, row)
    axes = len(lead)
    held += place(&x.y, y, axes), place(&x.dy, dy, axes), place(&x.lse, np.ascontiguousarray(lse)[..., None], axes)
    held += place(&x.dq, results[0], axes, True), place(&x.dk, results[1], axes, True)
    held += place(&x.dv, results[2], axes, True), follow(&x, starts, longest)
    run_attention(&x, q, True)
    for to, result in zip(given, results):
        if to is not None and to is not result:
            to[...] = result
    return tuple(results if out is None else out)


def cached_attention(q, k, v, places, bias, scale):
    """y of single queries that look at keys and values where these lie: see the reference's."""
    check_types("cached_attention", q, k, "q and k")
    check_types("cached_attention", q, v, "q and v")
    check_places("cached_attention", q, k, v, places, bias)
    y = empty((*q.shape[:2], v.shape[3]), q.dtype)
    if places.size and places.max() >= k.shape[0]:
        raise IndexError(f"cached_attention: places go up to {places.max()}, the rows to {k.shape[0] - 1}")
    places = np.require(places, np.int64, ["A"])
    cdef minilm_cached_attention x
    memset(&x, 0, sizeof(minilm_cached_attention))
    x.rows, x.heads, x.keys, x.depth, x.width = q.shape[0], q.shape[1], places.shape[1], q.shape[2], v.shape[3]
    x.scale = scale
    cdef const int64_t[:, :] numbers = places
    x.places = &numbers[0, 0] if places.size else NULL
    x.place_row, x.place_key = numbers.strides[0] // 8, numbers.strides[1] // 8
    # (N, H, D) is N matrices whose rows are heads; (R, S, H, D) is seen as H times R matrices whose rows are positions
    held = [place(&x.q, q.transpose(1, 0, 2), 1)]
    held.append(place(&x.k, k.transpose(2, 0, 1, 3), 2, False, True))
    held.append(place(&x.v, v.transpose(2, 0, 1, 3), 2))
    if bias is not None:
        check_types("cached_attention", q, bias, "q and bias")
        held.append(place(&x.bias, bias, 0, False, True))
    cdef Elements to = Elements(y, True)
    x.y = to.start
    cdef const minilm_reals *table = reals(to)
    cdef int status
    with nogil:
        status = table.cached_attention(&x)
    if status != MINILM_OK:
        raise MemoryError(f"cached_attention: no memory to pack {x.keys} keys of {x.depth} channels")
    return y


cdef check_places(str kernel, q, k, v, places, bias):
    if (q.ndim, k.ndim, v.ndim, places.ndim) != (3, 4, 4, 2) or k.shape[:3] != v.shape[:3] or \
            q.shape[1:] != k.shape[2:] or places.shape[0] != q.shape[0] or places.shape[1] > k.shape[1]:
        raise ValueError(f"{kernel}: q {q.shape}, k {k.shape}, v {v.shape} and places {places.shape} do not fit: (N, H, D), "
                         "(R, S, H, D), (R, S, H, E) and (N, S) were expected")
    if bias is not None and bias.shape != (q.shape[1], places.shape[1]):
        raise ValueError(f"{kernel}: bias {bias.shape} is not {(q.shape[1], places.shape[1])}")


cdef tuple packed(str kernel, q, k, v, starts, longest):
    """The axes of all heads, the sequences' first, and `starts` checked: C reads and writes where it says."""
    check_attention(kernel, q, k, v, None, None)
    if q.shape[:-1] != k.shape[:-1] or q.shape[:-1] != v.shape[:-1] or q.ndim > MINILM_MAX_AXES - 2:
        raise ValueError(f"{kernel}: q {q.shape}, k {k.shape} and v {v.shape} do not hold the same rows")
    return (len(starts) - 1, *q.shape[:-2]), packing.checked_starts(kernel, starts, q.shape[-2], longest)


cdef follow(minilm_attention *x, starts, longest):
    """Tell C where sequences begin; returns what must stay alive meanwhile."""
    cdef const int64_t[::1] numbers = starts
    x.starts = &numbers[0]
    x.queries = x.keys = longest
    return numbers


cdef check_attention(str kernel, q, k, v, bias, mask):
    check_types(kernel, q, k, "q and k")
    check_types(kernel, q, v, "q and v")
    if bias is not None:
        check_types(kernel, q, bias, "q and bias")
    if mask is not None and mask.dtype != bool:
        raise ValueError(f"{kernel}: the mask is {mask.dtype}, not bool")
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(f"{kernel}: q {q.shape}, k {k.shape} and v {v.shape} do not fit: (..., T, D), (..., S, D), "
                         "(..., S, E) were expected")


cdef tuple heads_of(q, k, v, bias, mask):
    """The leading axes of the result. Errors: ValueError where they do not broadcast, or a mask is too large."""
    scores = q.shape[-2], k.shape[-2]
    shapes = [part.shape[:-2] for part in (q, k, v)]
    for part in (bias, mask):
        if part is not None:
            full = np.broadcast_shapes(part.shape, scores)
            if full[-2:] != scores:
                raise ValueError(f"attention: {part.shape} does not broadcast to {scores} scores")
            shapes.append(part.shape[:-2])
    lead = np.broadcast_shapes(*shapes)
    if len(lead) > MINILM_MAX_AXES - 2:
        raise ValueError(f"attention: more than {MINILM_MAX_AXES - 2} leading axes")
    return lead


cdef bint side_by_side(array) except -1:
    """Whether C can write to `array`: its columns lie side by side."""
    return array is not None and array.dtype.isnative and array.flags.aligned and (
        array.shape[-1] <= 1 or array.strides[-1] == array.itemsize
    ) and all(stride % array.itemsize == 0 for stride in array.strides)


cdef tuple describe(minilm_attention *x, tuple lead, q, k, v, bias, mask, causal, scale, p, key, row):
    """Fill in what forward and backward share; returns what must stay alive meanwhile."""
    memset(x, 0, sizeof(minilm_attention))
    cdef int axes = len(lead), axis
    x.queries, x.keys, x.depth, x.width = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    x.axes = axes
    for axis in range(axes):
        x.shape[axis] = lead[axis]
    x.causal, x.scale, x.p, x.key, x.first_row = causal, scale, p, key, row
    scores = q.shape[-2], k.shape[-2]
    held = place(&x.q, q, axes), place(&x.k, k, axes), place(&x.v, v, axes)
    if bias is not None:
        held += (place(&x.bias, np.broadcast_to(bias, (*bias.shape[:-2], *scores)), axes, False, True),)
    if mask is not None:
        held += (place(&x.mask, np.broadcast_to(mask, (*mask.shape[:-2], *scores)).view(np.uint8), axes, False, True),)
    return held


cdef Elements place(minilm_matrices *m, array, int axes, bint writable=False, bint any_column=False):
    """Describe a batch of matrices to C: where it lies, or a copy if its columns do not lie side by side."""
    cdef Elements x
    cdef int axis, missing = axes + 2 - array.ndim
    if writable:
        x = Elements(array, True)
    else:
        x = elements(array)
        if not any_column and x.strides[x.axes - 1] != 1 and x.view.shape[x.axes - 1] > 1:
            x = elements(np.ascontiguousarray(array))
    m.data = x.start
    m.row, m.column = x.strides[x.axes - 2], x.strides[x.axes - 1]
    for axis in range(axes):
        m.axis[axis] = stride_along(x, axis - missing)
    return x


cdef run_attention(const minilm_attention *x, q, bint backward):
    cdef const minilm_reals *table = kernels.f32 if q.dtype.char == "f" else kernels.f64
    cdef int status
    with nogil:
        status = table.attention_backward(x) if backward else table.attention(x)
    if status != MINILM_OK:
        raise MemoryError(f"attention: no memory to pack {x.keys} keys of {x.depth} channels")


cdef summed_to(x, tuple shape):
    """x summed over the axes along which something of `shape` was broadcast."""
    if x.shape == shape:
        return x
    lead = x.ndim - len(shape)
    repeated = tuple(lead + axis for axis, size in enumerate(shape) if size == 1 and x.shape[lead + axis] != 1)
    return x.sum((*range(lead), *repeated), keepdims=True).reshape(shape)
