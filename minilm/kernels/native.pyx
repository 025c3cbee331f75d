# cython: language_level=3
"""The kernels in C: checks and pointers here, the loops in csrc/, the interface in csrc/minilm.h.

A function here has the same name and signature as in reference.py. float32 and float64; any strides; inputs
are never changed; the GIL is released while C computes. Errors: ValueError, with the shapes and types.
"""

import os

from cpython.buffer cimport PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport uintptr_t

import numpy as np

from minilm.errors import BackendError
from minilm.kernels import threads


cdef extern from "minilm.h":
    const int MINILM_MAX_AXES
    const int MINILM_OK

    ctypedef struct minilm_product:
        size_t m, n, k
        ptrdiff_t a_row, a_k, b_k, b_column, c_row
        bint accumulate
        int axes
        size_t shape[64]
        ptrdiff_t a_axis[64]
        ptrdiff_t b_axis[64]
        ptrdiff_t c_axis[64]

    ctypedef struct minilm_kernels:
        const char *name
        int (*gemm_f32)(const minilm_product *, const float *, const float *, float *) nogil
        int (*gemm_f64)(const minilm_product *, const double *, const double *, double *) nogil
        void (*softmax_f32)(size_t, size_t, const float *, ptrdiff_t, float *) nogil
        void (*softmax_f64)(size_t, size_t, const double *, ptrdiff_t, double *) nogil
        void (*softmax_backward_f32)(size_t, size_t, const float *, ptrdiff_t, const float *, ptrdiff_t, float *) nogil
        void (*softmax_backward_f64)(size_t, size_t, const double *, ptrdiff_t, const double *, ptrdiff_t,
                                     double *) nogil

    const minilm_kernels *const *minilm_tables(int *count)
    void minilm_set_num_threads(int count)
    int minilm_get_num_threads()
    double minilm_measure_peak(const minilm_kernels *, double) nogil

cdef extern from *:
    const char *MINILM_SOURCE_HASH


# --- which table ------------------------------------------------------------------------------------

cdef const minilm_kernels *kernels


def instruction_sets():
    """The instruction sets compiled in that this processor can run, the fastest last."""
    cdef int count
    cdef const minilm_kernels *const *tables = minilm_tables(&count)
    return [tables[i].name.decode() for i in range(count)]


def instruction_set():
    """The instruction set in use: the fastest, or the one that MINILM_CPU named when the module was loaded."""
    return kernels.name.decode()


cdef int choose_table() except -1:
    global kernels
    cdef int count
    cdef const minilm_kernels *const *tables = minilm_tables(&count)
    names = instruction_sets()
    wanted = os.environ.get("MINILM_CPU", "") or names[-1]
    if wanted not in names:
        raise BackendError(f"MINILM_CPU={wanted}: this processor can run {', '.join(names)}")
    kernels = tables[names.index(wanted)]
    return 0


choose_table()
minilm_set_num_threads(min(threads.get_num_threads(), 2**30))


def source_hash():
    """The fingerprint of the sources this module was compiled from (see sources.py)."""
    return MINILM_SOURCE_HASH.decode()


def set_num_threads(count):
    """Let these kernels use `count` threads; `minilm.set_num_threads` governs the other backends too."""
    if count < 1:
        raise ValueError(f"set_num_threads: at least 1 thread is needed, not {count}")
    minilm_set_num_threads(min(count, 2**30))


def get_num_threads():
    """How many threads these kernels use at most."""
    return minilm_get_num_threads()


def measure_peak(seconds=0.2):
    """What all threads together reach in float32 with nothing but multiply-adds, in GFLOP/s."""
    cdef double duration = seconds, rate
    with nogil:
        rate = minilm_measure_peak(kernels, duration)
    return rate


# --- arrays -----------------------------------------------------------------------------------------

cdef class Elements:
    """An array of float32 or float64 as C sees it: a pointer, a shape, and strides in elements."""

    cdef Py_buffer view
    cdef char *start
    cdef char type  # 'f' or 'd'
    cdef int axes
    cdef ptrdiff_t strides[64]
    cdef bint fits  # False: unaligned or of foreign byte order, so that C cannot read it where it lies

    def __cinit__(self, array, bint writable=False):
        PyObject_GetBuffer(array, &self.view, PyBUF_FORMAT | PyBUF_STRIDES | (PyBUF_WRITABLE if writable else 0))
        self.start = <char *>self.view.buf
        self.axes = self.view.ndim
        self.type = self.view.format[0]
        self.fits = self.view.format[1] == 0 and <uintptr_t>self.start % self.view.itemsize == 0
        for i in range(self.axes):
            if self.view.strides[i] % self.view.itemsize:
                self.fits = False
            self.strides[i] = self.view.strides[i] // self.view.itemsize

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef Elements elements(array):
    """`array` where it lies if C can read it there, else a copy."""
    cdef Elements found = Elements(array)
    return found if found.fits else Elements(np.array(array, dtype=array.dtype.newbyteorder("=")))


cdef check_types(str kernel, x, y, str names):
    if x.dtype.char not in "fd" or y.dtype.char != x.dtype.char:
        raise ValueError(f"{kernel}: {names} are {x.dtype} and {y.dtype}: both must be float32, or both float64")


# --- matmul -----------------------------------------------------------------------------------------

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
    with nogil:
        if c.type == b"f":
            status = kernels.gemm_f32(&p, <const float *>a.start, <const float *>b.start, <float *>c.start)
        else:
            status = kernels.gemm_f64(&p, <const double *>a.start, <const double *>b.start, <double *>c.start)
    if status != MINILM_OK:
        raise MemoryError(f"matmul: no memory to pack blocks of ({p.m}, {p.k}) and ({p.k}, {p.n})")


cdef ptrdiff_t stride_along(Elements x, int axis) noexcept:
    """x's stride along an axis of the batch; 0 where x is broadcast."""
    return 0 if axis < 0 or x.view.shape[axis] == 1 else x.strides[axis]


# --- softmax ----------------------------------------------------------------------------------------

cdef Elements rows(x):
    """x (..., C) as a matrix (rows, C), elements side by side: where it lies if it can be seen so, else a copy."""
    cdef Elements found = elements(x.reshape(-1, x.shape[-1]))
    if found.strides[1] != 1 and found.view.shape[1] > 1:
        found = Elements(np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("=")).reshape(-1, x.shape[-1]))
    return found


def softmax(x):
    """e^x / sum e^x over the last axis."""
    check_types("softmax", x, x, "the elements")
    if x.ndim == 0:
        raise ValueError("softmax: x has no axis")
    y = np.empty(x.shape, x.dtype.newbyteorder("="))
    if x.size == 0:
        return y
    cdef Elements source = rows(x), to = Elements(y.reshape(-1, x.shape[-1]), True)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    with nogil:
        if to.type == b"f":
            kernels.softmax_f32(count, columns, <const float *>source.start, source.strides[0], <float *>to.start)
        else:
            kernels.softmax_f64(count, columns, <const double *>source.start, source.strides[0], <double *>to.start)
    return y


def softmax_backward(dy, y):
    """dx_j = y_j (dy_j - sum_k dy_k y_k), row by row."""
    check_types("softmax_backward", dy, y, "dy and y")
    if dy.shape != y.shape or y.ndim == 0:
        raise ValueError(f"softmax_backward: dy {dy.shape} and y {y.shape} must have one shape, with an axis")
    dx = np.empty(y.shape, y.dtype.newbyteorder("="))
    if y.size == 0:
        return dx
    cdef Elements dy_rows = rows(dy), y_rows = rows(y), to = Elements(dx.reshape(-1, y.shape[-1]), True)
    cdef size_t count = to.view.shape[0], columns = to.view.shape[1]
    with nogil:
        if to.type == b"f":
            kernels.softmax_backward_f32(count, columns, <const float *>dy_rows.start, dy_rows.strides[0],
                                         <const float *>y_rows.start, y_rows.strides[0], <float *>to.start)
        else:
            kernels.softmax_backward_f64(count, columns, <const double *>dy_rows.start, dy_rows.strides[0],
                                         <const double *>y_rows.start, y_rows.strides[0], <double *>to.start)
    return dx
