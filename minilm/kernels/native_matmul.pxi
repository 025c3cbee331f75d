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
        out = empty(shape, a.dtype)
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
    cdef int axis
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
    finish_nothing(&p)
    for axis in range(lead):
        p.shape[axis] = c.view.shape[axis]
        p.c_axis[axis] = c.strides[axis]
        p.a_axis[axis] = stride_along(a, axis - a_missing)
        p.b_axis[axis] = stride_along(b, axis - b_missing)
    run_product(&p, a, b, c)


cdef void finish_nothing(minilm_product *p) noexcept:
    p.bfloat16 = bfloat16
    p.bias = p.residual = p.before = NULL
    p.residual_row = p.before_row = 0
    p.activation = 0
    p.b_panels = NULL


cdef run_product(const minilm_product *p, Elements a, Elements b, Elements c):
    cdef const minilm_reals *table = reals(c)
    cdef int status
    with nogil:
        status = table.gemm(p, a.start, b.start, c.start)
    if status != MINILM_OK:
        raise MemoryError(f"matmul: no memory to pack blocks of ({p.m}, {p.k}) and ({p.k}, {p.n})")


cdef bint bfloat16 = False


def set_bfloat16(wanted):
    """Whether products of float32 matrices may round their inputs to bfloat16; where the processor gains nothing by it
    they do not."""
    global bfloat16
    bfloat16 = wanted


def linear(x, weight, bias, residual=None):
    """z = x weight^T + bias + residual: (N, I), (O, I), (O), (N, O) -> (N, O)."""
    z = empty((x.shape[0], weight.shape[0]), x.dtype)
    run_linear(x, weight, bias, residual, z, None, 0)
    return z


def linear_gelu(x, weight, bias, approximate="none"):
    """y = gelu(z) and z = x weight^T + bias: (N, I), (O, I), (O) -> (N, O), (N, O)."""
    y, z = (empty((x.shape[0], weight.shape[0]), x.dtype) for _ in range(2))
    run_linear(x, weight, bias, None, y, z, MINILM_GELU_TANH if approximate == "tanh" else MINILM_GELU)
    return y, z


def linear_relu(x, weight, bias):
    """y = relu(x weight^T + bias): (N, I), (O, I), (O) -> (N, O)."""
    y = empty((x.shape[0], weight.shape[0]), x.dtype)
    run_linear(x, weight, bias, None, y, None, MINILM_RELU)
    return y


cdef run_linear(x, weight, bias, residual, z, before, int activation):
    """z = f(x weight^T + bias + residual), every part behind the product being optional."""
    check_types("linear", x, weight, "x and weight")
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape} do not fit: (N, I) and (O, I) were expected")
    cdef Elements a = elements(x), b = elements(weight), c = Elements(z, True), added, skip, kept
    cdef minilm_product p
    p.m, p.n, p.k = c.view.shape[0], c.view.shape[1], a.view.shape[1]
    p.a_row, p.a_k = a.strides[0], a.strides[1]
    p.b_k, p.b_column = b.strides[1], b.strides[0]
    p.c_row = c.strides[0]
    p.accumulate = False
    p.axes = 0
    finish_nothing(&p)
    p.activation = activation
    if bias is not None:
        check_types("linear", x, bias, "x and bias")
        if bias.shape != z.shape[1:]:
            raise ValueError(f"linear: bias {bias.shape} and weight {weight.shape} do not fit")
        added = elements(np.ascontiguousarray(bias))
        p.bias = added.start
    if residual is not None:
        check_types("linear", x, residual, "x and residual")
        if residual.shape != z.shape:
            raise ValueError(f"linear: residual {residual.shape} has not the result's shape {z.shape}")
        skip = rows(residual)
        p.residual = skip.start
        p.residual_row = skip.strides[0]
    if before is not None:
        kept = Elements(before, True)
        p.before = kept.start
        p.before_row = kept.strides[0]
    cdef Elements panels = panels_of(weight)
    p.b_panels = start_of(panels)
    run_product(&p, a, b, c)


cdef Elements panels_of(weight):
    """`weight` (O, I) as it is packed, if it does not change now; else None."""
    held = constants.held_now()
    if held is None or id(weight) not in held:
        return None
    panels = held[id(weight)]
    if panels is None:
        held[id(weight)] = panels = packed_weight(weight)
    return Elements(panels)


cdef packed_weight(weight):
    cdef Elements b = elements(weight), to
    cdef size_t n = b.view.shape[0], k = b.view.shape[1]
    cdef const minilm_reals *table = reals(b)
    panels = empty((table.gemm_panels(n, k) or 1,), weight.dtype)
    to = Elements(panels, True)
    with nogil:
        table.gemm_pack(n, k, b.start, b.strides[1], b.strides[0], to.start)
    return panels


cdef ptrdiff_t stride_along(Elements x, int axis) noexcept:
    """x's stride along an axis of the batch; 0 where x is broadcast."""
    return 0 if axis < 0 or x.view.shape[axis] == 1 else x.strides[axis]
