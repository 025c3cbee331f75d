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
