# Part of native.pyx: kernels that walk along rows.

cdef Elements rows(x):
    """x (..., C) as a matrix (rows, C), elements side by side: where it lies if it can be seen so, else a copy."""
    shape = (math.prod(x.shape[:-1]), x.shape[-1])
    cdef Elements found = elements(x.reshape(shape))
    if found.strides[1] != 1 and found.view.shape[1] > 1:
        found = Elements(np.ascontiguousarray(x, dtype=plain_type(x)).reshape(-1, x.shape[-1]))
    return found


cdef Elements result_rows(y):
    """y (..., C), which is to be written and lies in one piece, as a matrix (rows, C)."""
    return Elements(y.reshape(-1, y.shape[-1]), True)


cdef Elements vector(str kernel, str name, v, size, x):
    """v (size) beside x, elements side by side; None where there is none."""
    if v is None:
        return None
    check_types(kernel, x, v, f"x and {name}")
    if v.shape != (size,):
        raise ValueError(f"{kernel}: {name} is {v.shape}, not ({size},): x is {x.shape}")
    return flat(v)


cdef const void *start_of(Elements v) noexcept:
    return NULL if v is None else v.start


cdef check_row(str kernel, x):
    check_types(kernel, x, x, "the elements")
    if x.ndim == 0:
        raise ValueError(f"{kernel}: x has no axis")


cdef check_same(str kernel, dy, y, str name):
    check_types(kernel, dy, y, f"dy and {name}")
    if dy.shape != y.shape or y.ndim == 0:
        raise ValueError(f"{kernel}: dy {dy.shape} and {name} {y.shape} must have one shape, with an axis")


# --- softmax ----------------------------------------------------------------------------------------

cdef along(along_rows kernel, x, y):
    cdef Elements source = rows(x), to = result_rows(y)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    with nogil:
        kernel(count, columns, source.start, source.strides[0], to.start)
    return y


cdef along_both(along_two_rows kernel, dy, y, dx):
    cdef Elements dy_rows = rows(dy), y_rows = rows(y), to = result_rows(dx)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    with nogil:
        kernel(count, columns, dy_rows.start, dy_rows.strides[0], y_rows.start, y_rows.strides[0], to.start)
    return dx


def softmax(x):
    """e^x / sum e^x over the last axis."""
    check_row("softmax", x)
    y = empty(x.shape, plain_type(x))
    return along(reals_of(x).softmax, x, y) if x.size else y


def softmax_backward(dy, y):
    """dx_j = y_j (dy_j - sum_k dy_k y_k), row by row."""
    check_same("softmax_backward", dy, y, "y")
    dx = empty(y.shape, plain_type(y))
    return along_both(reals_of(y).softmax_backward, dy, y, dx) if y.size else dx


def log_softmax(x):
    """x - log sum e^x over the last axis."""
    check_row("log_softmax", x)
    y = empty(x.shape, plain_type(x))
    return along(reals_of(x).log_softmax, x, y) if x.size else y


def log_softmax_backward(dy, y):
    """dx_j = dy_j - e^(y_j) sum_k dy_k, row by row."""
    check_same("log_softmax_backward", dy, y, "y")
    dx = empty(y.shape, plain_type(y))
    return along_both(reals_of(y).log_softmax_backward, dy, y, dx) if y.size else dx


# --- normalisation ----------------------------------------------------------------------------------

def layer_norm(x, weight, bias, eps):
    """y = (x - mean) rstd weight + bias: x (..., C), weight, bias (C) -> y (..., C), mean, rstd (..., 1)."""
    check_row("layer_norm", x)
    return normalised("layer_norm", x, None, weight, bias, eps, True)[1:]


def add_layer_norm(x, residual, weight, bias, eps):
    """x + residual and its layer_norm: x, residual (..., C) -> sum, y (..., C), mean, rstd (..., 1)."""
    check_summands("add_layer_norm", x, residual)
    return normalised("add_layer_norm", x, residual, weight, bias, eps, True)


def rms_norm(x, weight, eps):
    """y = x rrms weight: x (..., C), weight (C) -> y (..., C), rrms (..., 1)."""
    check_row("rms_norm", x)
    _, y, _, rrms = normalised("rms_norm", x, None, weight, None, eps, False)
    return y, rrms


def add_rms_norm(x, residual, weight, eps):
    """x + residual and its rms_norm: x, residual (..., C) -> sum, y (..., C), rrms (..., 1)."""
    check_summands("add_rms_norm", x, residual)
    total, y, _, rrms = normalised("add_rms_norm", x, residual, weight, None, eps, False)
    return total, y, rrms


cdef check_summands(str kernel, x, residual):
    check_row(kernel, x)
    check_types(kernel, x, residual, "x and residual")
    if residual.shape != x.shape:
        raise ValueError(f"{kernel}: residual is {residual.shape}, x is {x.shape}")


cdef normalised(str kernel, x, residual, weight, bias, double eps, bint centred):
    """x + residual (or x), y, mean (None unless `centred`) and rstd, of either kind."""
    cdef Elements weights = vector(kernel, "weight", weight, x.shape[-1], x)
    cdef Elements biases = vector(kernel, "bias", bias, x.shape[-1], x)
    y = empty(x.shape, plain_type(x))
    total = x if residual is None else empty(x.shape, y.dtype)
    mean, rstd = (empty((*x.shape[:-1], 1), y.dtype) for _ in range(2))
    if x.size == 0:
        y, *mean, rstd = reference.layer_norm(x, weight, bias, eps) if centred else reference.rms_norm(x, weight, eps)
        return total, y, mean[0] if mean else None, rstd
    cdef Elements source = rows(x), skip = None if residual is None else rows(residual)
    cdef Elements sums = None if residual is None else result_rows(total)
    cdef Elements to = result_rows(y), means = result_rows(mean), rstds = result_rows(rstd)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    cdef const void *r = start_of(skip)
    cdef const void *w = start_of(weights)
    cdef const void *b = start_of(biases)
    cdef void *s = NULL if sums is None else sums.start
    cdef ptrdiff_t r_row = 0 if skip is None else skip.strides[0]
    cdef const minilm_reals *table = reals(to)
    with nogil:
        if centred:
            table.layer_norm(count, columns, source.start, source.strides[0], r, r_row, w, b, eps, s, to.start,
                             means.start, rstds.start)
        else:
            table.rms_norm(count, columns, source.start, source.strides[0], r, r_row, w, eps, s, to.start, rstds.start)
    return total, y, mean, rstd


def layer_norm_backward(dy, x, weight, mean, rstd, dsum=None):
    """dy, x, dsum (..., C), weight (C), mean, rstd (..., 1) -> dx (..., C) with dsum added, dweight, dbias (C)."""
    check_same("layer_norm_backward", dy, x, "x")
    if dsum is not None:
        check_same("layer_norm_backward", dsum, x, "x")
    cdef Elements weights = vector("layer_norm_backward", "weight", weight, x.shape[-1], x)
    cdef Elements means = one_a_row("layer_norm_backward", "mean", mean, x)
    cdef Elements rstds = one_a_row("layer_norm_backward", "rstd", rstd, x)
    if x.size == 0:
        return reference.layer_norm_backward(dy, x, weight, mean, rstd, dsum)
    dx = empty(x.shape, plain_type(x))
    dweight, dbias = (empty(x.shape[-1:], dx.dtype) for _ in range(2))
    cdef Elements dys = rows(dy), xs = rows(x), to = result_rows(dx), around = None if dsum is None else rows(dsum)
    cdef Elements dweights = Elements(dweight, True), dbiases = Elements(dbias, True)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    cdef const void *w = start_of(weights)
    cdef const void *d = start_of(around)
    cdef ptrdiff_t d_row = 0 if around is None else around.strides[0]
    cdef const minilm_reals *table = reals(to)
    cdef int result
    with nogil:
        result = table.layer_norm_backward(count, columns, dys.start, dys.strides[0], xs.start, xs.strides[0], w,
                                           means.start, rstds.start, d, d_row, to.start, dweights.start, dbiases.start)
    enough_memory(result)
    return dx, dweight, dbias


def rms_norm_backward(dy, x, weight, rrms, dsum=None):
    """dy, x, dsum (..., C), weight (C), rrms (..., 1) -> dx (..., C) with dsum added, dweight (C)."""
    check_same("rms_norm_backward", dy, x, "x")
    if dsum is not None:
        check_same("rms_norm_backward", dsum, x, "x")
    cdef Elements weights = vector("rms_norm_backward", "weight", weight, x.shape[-1], x)
    cdef Elements rrmss = one_a_row("rms_norm_backward", "rrms", rrms, x)
    if x.size == 0:
        return reference.rms_norm_backward(dy, x, weight, rrms, dsum)
    dx = empty(x.shape, plain_type(x))
    dweight = empty(x.shape[-1:], dx.dtype)
    cdef Elements dys = rows(dy), xs = rows(x), to = result_rows(dx), dweights = Elements(dweight, True)
    cdef Elements around = None if dsum is None else rows(dsum)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    cdef const void *w = start_of(weights)
    cdef const void *d = start_of(around)
    cdef ptrdiff_t d_row = 0 if around is None else around.strides[0]
    cdef const minilm_reals *table = reals(to)
    cdef int result
    with nogil:
        result = table.rms_norm_backward(count, columns, dys.start, dys.strides[0], xs.start, xs.strides[0], w,
                                         rrmss.start, d, d_row, to.start, dweights.start)
    enough_memory(result)
    return dx, dweight


cdef Elements one_a_row(str kernel, str name, v, x):
    """v (..., 1) beside x (..., C), elements side by side."""
    check_types(kernel, x, v, f"x and {name}")
    if v.shape != (*x.shape[:-1], 1):
        raise ValueError(f"{kernel}: {name} is {v.shape}, not {(*x.shape[:-1], 1)}: x is {x.shape}")
    return flat(v)


# --- the largest of rows ----------------------------------------------------------------------------

def largest(x, count):
    """The `count` largest numbers of each row, and their columns: see the reference's."""
    check_row("largest", x)
    if not 0 <= count <= x.shape[-1]:
        raise ValueError(f"largest: {count} numbers were asked for, a row of x {x.shape} has {x.shape[-1]}")
    values, places = empty((*x.shape[:-1], count), plain_type(x)), np.empty((*x.shape[:-1], count), np.int64)
    if values.size == 0:
        return values, places
    cdef Elements source = rows(x), to = result_rows(values)
    cdef int64_t[::1] numbers = places.reshape(-1)
    cdef size_t n = source.view.shape[0], columns = source.view.shape[1], wanted = count
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.largest(n, columns, wanted, source.start, source.strides[0], to.start, &numbers[0])
    return values, places


# --- sums over rows ---------------------------------------------------------------------------------

def sum_rows(x):
    """The sum over rows: (..., C) -> (C)."""
    check_row("sum_rows", x)
    if x.size == 0:
        return reference.sum_rows(x)
    z = empty(x.shape[-1:], plain_type(x))
    cdef Elements source = rows(x), to = Elements(z, True)
    cdef size_t count = source.view.shape[0], columns = source.view.shape[1]
    cdef const minilm_reals *table = reals(to)
    cdef int result
    with nogil:
        result = table.sum_rows(count, columns, source.start, source.strides[0], to.start)
    enough_memory(result)
    return z


def scatter_rows(rows, index, count, into=None):
    """z[index[i]] += rows[i] into `into` or zeros, in order of i: (N, ...), (N) -> (count, ...)."""
    check_row("scatter_rows", rows)
    if index.shape != rows.shape[:1] or index.dtype.kind not in "iu":
        raise ValueError(f"scatter_rows: index is {index.dtype} {index.shape}, not integers ({rows.shape[0]},)")
    z = empty((count, *rows.shape[1:]), plain_type(rows)) if into is None else into
    if z.shape != (count, *rows.shape[1:]) or z.dtype != plain_type(rows):
        raise ValueError(f"scatter_rows: into is {z.dtype} {z.shape}, not {rows.dtype} {(count, *rows.shape[1:])}")
    if rows.size == 0 or z.size == 0 or not z.flags.c_contiguous:
        return reference.scatter_rows(rows, index, count, into)
    if index.min() < 0 or index.max() >= count:
        raise IndexError(f"scatter_rows: the numbers go from {index.min()} to {index.max()}, the rows to {count - 1}")
    cdef Elements source = all_rows(rows.reshape(rows.shape[0], -1)), to = Elements(z.reshape(count, -1), True)
    cdef Elements numbers = flat(np.asarray(index, np.int64))
    cdef size_t n = source.view.shape[0], columns = source.view.shape[1], rows_of_z = count
    cdef bint add = into is not None
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.scatter_rows(n, columns, rows_of_z, source.start, source.strides[0], <const int64_t *>numbers.start,
                           add, to.start)
    return z


cdef Elements all_rows(x):
    """`rows`, for a function that calls something else so."""
    return rows(x)
