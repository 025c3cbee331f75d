# Part of native.pyx: kernels that walk along rows.

cdef Elements rows(x):
    """x (..., C) as a matrix (rows, C), elements side by side: where it lies if it can be seen so, else a copy."""
    shape = (math.prod(x.shape[:-1]), x.shape[-1])
    cdef Elements found = elements(x.reshape(shape))
    if found.strides[1] != 1 and found.view.shape[1] > 1:
        found = Elements(np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("=")).reshape(shape))
    return found


def softmax(x):
    """e^x / sum e^x over the last axis."""
    check_types("softmax", x, x, "the elements")
    if x.ndim == 0:
        raise ValueError("softmax: x has no axis")
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y
    cdef Elements source = rows(x), to = Elements(y.reshape(-1, x.shape[-1]), True)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.softmax(count, columns, source.start, source.strides[0], to.start)
    return y


def softmax_backward(dy, y):
    """dx_j = y_j (dy_j - sum_k dy_k y_k), row by row."""
    check_types("softmax_backward", dy, y, "dy and y")
    if dy.shape != y.shape or y.ndim == 0:
        raise ValueError(f"softmax_backward: dy {dy.shape} and y {y.shape} must have one shape, with an axis")
    dx = empty(y.shape, y.dtype)
    if y.size == 0:
        return dx
    cdef Elements dy_rows = rows(dy), y_rows = rows(y), to = Elements(dx.reshape(-1, y.shape[-1]), True)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.softmax_backward(count, columns, dy_rows.start, dy_rows.strides[0], y_rows.start, y_rows.strides[0],
                               to.start)
    return dx
