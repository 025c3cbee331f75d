# Part of native.pyx: random numbers.

cdef uint64_t low_bits(n):
    return n & 0xFFFFFFFFFFFFFFFF


def philox(key, stream, start, count):
    """`count` random uint32, (count,): those of the blocks start, start + 1, ... of four each; see philox.py."""
    if count < 0:
        raise ValueError(f"philox: there cannot be {count} numbers")
    cdef uint64_t k = low_bits(key), upper = low_bits(stream), lower = low_bits(start)
    cdef size_t n = count
    numbers = empty((count,), np.dtype("uint32"))
    cdef Elements to = Elements(numbers, True)
    with nogil:
        kernels.philox(k, upper, lower, n, <uint32_t *>to.start)
    return numbers


def keep_rows(key, first, rows, columns, p):
    """Which elements dropout keeps, boolean (rows, columns): each with probability 1 - p; see philox.py."""
    if rows < 0 or columns < 0:
        raise ValueError(f"keep_rows: there cannot be {rows} rows of {columns}")
    cdef uint64_t k = low_bits(key), stream = low_bits(first)
    cdef size_t n = rows, width = columns
    cdef float threshold = p
    keep = empty((rows, columns), np.dtype("bool"))
    cdef Elements to = Elements(keep, True)
    with nogil:
        kernels.keep_rows(k, stream, n, width, threshold, <uint8_t *>to.start)
    return keep


def drop_rows(x, key, first, p, places=None):
    """Dropout of rows (N, C), each from a stream of its own: see the reference's."""
    check_row("drop_rows", x)
    if x.ndim != 2 or (places is not None and (places.shape != x.shape[:1] or places.dtype.kind not in "iu")):
        raise ValueError(f"drop_rows: x {x.shape} and places {getattr(places, 'shape', None)}: (N, C), (N) are expected")
    y = empty(x.shape, plain_type(x))
    if not x.size:
        return y
    cdef Elements source = all_rows(x), to = Elements(y, True), numbers
    cdef const int64_t *at = NULL
    if places is not None:
        numbers = flat(np.asarray(places, np.int64))
        at = <const int64_t *>numbers.start
    cdef uint64_t k = low_bits(key), stream = low_bits(first)
    cdef size_t n = x.shape[0], columns = x.shape[1]
    cdef double share = p
    cdef const minilm_reals *table = reals(to)
    with nogil:
        table.drop_rows(n, columns, source.start, source.strides[0], k, stream, at, share, to.start)
    return y
