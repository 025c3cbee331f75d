# Part of native.pyx: products of matrices.

def matmul(a, b, out=None, accumulate=False):
    """a (..., M, K) times b (..., K, N) is (..., M, N); the leading axes broadcast.

    With `out` the product goes there, or is added to it if `accumulate`; `out` may overlap a and b.
    """
    check_types("matmul", a, b, "a and b")
    if a.ndim < 2 or b.ndim < 2:
        raise ValueError(f"matmul: a {a.shape} and b {b.shape} must be matrices, or batches of them")
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: a {a.shape} and b {b.shape} do not fit: {a.shape[-1]} is not {b.shape[-2]}")
    if a.ndim == 2 == b.ndim:
        shape = a.shape[0], b.shape[1]
    else:
        shape = (*leading_axes(a, b), a.shape[-2], b.shape[-1])
    if out is None:
        if accumulate:
            raise ValueError("matmul: accumulate needs an `out` to add to")
        out = np.empty(shape, a.dtype.newbyteorder("="))
        multiply(elements(a), elements(b), Elements(out, True), False)
        return out

    if out.dtype.char != a.dtype.char or out.shape != shape:
        raise ValueError(f"matmul: out is {out.dtype} {out.shape}, the product {a.dtype} {shape}")
    if not out.flags.writeable:
        raise ValueError("matmul: out is read-only")
    cdef Elements to = Elements(out, True)
    if not to.fits or (shape[-1] > 1 and to.strides[to.axes - 1] != 1) or overlaps(out, a, b):
        product = matmul(a, b)
        if accumulate:
            out += product
        else:
            out[...] = product
        return out
    multiply(elements(a), elements(b), to, accumulate)
    return out


cdef tuple leading_axes(a, b):
    try:
        return np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ValueError(f"matmul: the leading axes of a {a.shape} and b {b.shape} do not broadcast") from None


cdef bint overlaps(out, a, b) except -1:
    """Whether writing to `out` might change a, b, or another element of `out`."""
    return np.may_share_memory(out, a) or np.may_share_memory(out, b) or 0 in out.strides


cdef multiply(Elements a, Elements b, Elements c, bint accumulate):
    """c = or += a b, shapes known to fit."""
    cdef minilm_product p
    cdef int axis, status
    cdef int lead = c.axes - 2, a_missing = c.axes - a.axes, b_missing = c.axes - b.axes
    if lead > MINILM_MAX_AXES:
        raise ValueError(f"matmul: more than {MINILM_MAX_AXES} leading axes")
    p.m = c.view.shape[lead]
    p.n = c.view.shape[lead + 1]
    p.k = a.view.shape[a.axes - 1]
    p.a_row = a.strides[a.axes - 2]
    p.a_k = a.strides[a.axes - 1]
    p.b_k = b.strides[b.axes - 2]
    p.b_column = b.strides[b.axes - 1]
    p.c_row = c.strides[lead]
    p.accumulate = accumulate
    p.axes = lead
    for axis in range(lead):
        p.shape[axis] = c.view.shape[axis]
        p.c_axis[axis] = c.strides[axis]
        p.a_axis[axis] = stride_along(a, axis - a_missing)
        p.b_axis[axis] = stride_along(b, axis - b_missing)
    cdef const minilm_reals *table = reals(c)
    with nogil:
        status = table.gemm(&p, a.start, b.start, c.start)
    if status != MINILM_OK:
        raise MemoryError(f"matmul: no memory to pack blocks of ({p.m}, {p.k}) and ({p.k}, {p.n})")


cdef ptrdiff_t stride_along(Elements x, int axis) noexcept:
    """x's stride along an axis of the batch; 0 where x is broadcast."""
    return 0 if axis < 0 or x.view.shape[axis] == 1 else x.strides[axis]
