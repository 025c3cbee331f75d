# Part of native.pyx: memory for results (csrc/memory.c).

cdef enum:
    LARGE = 1 << 16  # bytes; below this malloc seldom returns pages, and a Block costs half a microsecond more


cdef class Block:
    """Memory of an array, which goes back to the pool when the last array that uses it is dropped."""

    cdef void *memory
    cdef Py_ssize_t bytes

    def __cinit__(self, Py_ssize_t bytes):
        self.bytes = bytes
        self.memory = minilm_allocate(bytes)
        if self.memory == NULL:
            raise MemoryError(f"no memory for an array of {bytes:,} bytes")

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.memory, self.bytes, 0, flags)

    def __dealloc__(self):
        if self.memory != NULL:
            minilm_release(self.memory, self.bytes)


def empty(shape, dtype):
    """A new array of this shape, for a kernel to write to; a large one in memory that was used before."""
    dtype = np.dtype(dtype)
    if not dtype.isnative:  # else it stays the very object that all arrays of this type share
        dtype = dtype.newbyteorder("=")
    cdef object bytes = dtype.itemsize
    for size in shape:
        bytes *= size
    if bytes < LARGE or bytes > PY_SSIZE_T_MAX:  # the second: let NumPy say what is wrong
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, Block(bytes))


def memory():
    """What the pool holds: bytes that wait and that may wait; blocks given so far, and those used again."""
    cdef size_t held, cap, given, reused
    minilm_memory(&held, &cap, &given, &reused)
    return {"held": held, "cap": cap, "given": given, "reused": reused}


def trim_memory():
    """Give all memory that waits in the pool back to the system."""
    minilm_trim()


def set_memory_cap(bytes):
    """How many bytes may wait in the pool; 0: none."""
    if bytes < 0:
        raise ValueError(f"set_memory_cap: a size cannot be negative: {bytes}")
    minilm_set_memory_cap(bytes)
