# cython: language_level=3
"""The kernels in C: checks and pointers here, the loops in csrc/, the interface in csrc/minilm.h.

A function here has the same name and signature as in reference.py. float32 and float64; any strides; inputs
are never changed; the GIL is released while C computes. Errors: ValueError, with the shapes and types.
"""

import math
import os

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from libc.stddef cimport ptrdiff_t, size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import numpy as np

from minilm.errors import BackendError
from minilm.kernels import constants, packing, precision, reference, threads
from minilm.kernels.reference_recurrent import states_before, walk


ctypedef void (*along_rows)(size_t, size_t, const void *, ptrdiff_t, void *) noexcept nogil
ctypedef void (*along_two_rows)(size_t, size_t, const void *, ptrdiff_t, const void *, ptrdiff_t, void *) noexcept nogil

cdef extern from "minilm.h":
    const int MINILM_MAX_AXES
    const int MINILM_OK

    ctypedef struct minilm_product:
        size_t m, n, k
        ptrdiff_t a_row, a_k, b_k, b_column, c_row
        bint accumulate, bfloat16
        const void *b_panels
        const void *bias
        const void *residual
        ptrdiff_t residual_row, before_row
        int activation
        void *before
        int axes
        size_t shape[64]
        ptrdiff_t a_axis[64]
        ptrdiff_t b_axis[64]
        ptrdiff_t c_axis[64]

    ctypedef struct minilm_matrices:
        void *data
        ptrdiff_t row, column
        ptrdiff_t axis[64]

    ctypedef struct minilm_attention:
        size_t queries, keys, depth, width
        int axes
        size_t shape[64]
        const int64_t *starts
        minilm_matrices q, k, v, y, bias, mask, lse, dy, dq, dk, dv
        bint causal
        double scale, p
        uint64_t key, first_row
        void *dbias
    ctypedef struct minilm_cached_attention:
        size_t rows, heads, keys, depth, width
        minilm_matrices q, k, v, bias
        const int64_t *places
        ptrdiff_t place_row, place_key
        double scale
        void *y

    ctypedef enum minilm_cell:
        MINILM_RNN_TANH, MINILM_RNN_RELU, MINILM_LSTM, MINILM_GRU

    ctypedef struct minilm_recurrent:
        minilm_cell cell
        size_t times, batch, hidden
        const int64_t *sizes
        const int64_t *first
        bint reverse
        const void *given
        const void *weight
        const void *bias
        const void *first_h
        const void *first_c
        const void *dy
        void *h
        void *c
        void *y
        void *gates
        void *cells
        void *dgiven
        void *dheld

    ctypedef enum minilm_function:
        MINILM_EXP, MINILM_TANH, MINILM_SIGMOID, MINILM_ERF, MINILM_GELU, MINILM_GELU_TANH,
        MINILM_RELU

    ctypedef struct minilm_scores:
        size_t rows, columns
        const void *x
        ptrdiff_t x_row
        const int64_t *target
        const void *weight
        double weight_sum
        int64_t ignore_index
        double label_smoothing

    ctypedef struct minilm_adamw:
        size_t count
        const size_t *sizes
        void **params
        void **exp_avgs
        void **exp_avg_sqs
        const void **grads
        double lr, beta1, beta2, eps, weight_decay, step

    # Pointers to elements are void * here and in minilm.h: float for the table f32, double for f64.
    ctypedef struct minilm_reals:
        int (*gemm)(const minilm_product *, const void *, const void *, void *) nogil
        size_t (*gemm_panels)(size_t, size_t) nogil
        void (*gemm_pack)(size_t, size_t, const void *, ptrdiff_t, ptrdiff_t, void *) nogil
        int (*attention)(const minilm_attention *) nogil
        int (*attention_backward)(const minilm_attention *) nogil
        int (*cached_attention)(const minilm_cached_attention *) nogil
        void (*largest)(size_t, size_t, size_t, const void *, ptrdiff_t, void *, int64_t *) nogil
        int (*recurrent)(const minilm_recurrent *) nogil
        int (*recurrent_backward)(const minilm_recurrent *) nogil
        along_rows softmax, log_softmax
        along_two_rows softmax_backward, log_softmax_backward
        void (*layer_norm)(size_t, size_t, const void *, ptrdiff_t, const void *, ptrdiff_t, const void *, const void *, double,
                           void *, void *, void *,
                           void *) nogil
        int (*layer_norm_backward)(size_t, size_t, const void *, ptrdiff_t, const void *, ptrdiff_t, const void *,
                                   const void *, const void *, const void *, ptrdiff_t, void *, void *, void *) nogil
        void (*rms_norm)(size_t, size_t, const void *, ptrdiff_t, const void *, ptrdiff_t, const void *, double, void *,
                         void *, void *) nogil
        int (*rms_norm_backward)(size_t, size_t, const void *, ptrdiff_t, const void *, ptrdiff_t, const void *,
                                 const void *, const void *, ptrdiff_t, void *, void *) nogil
        int (*sum_rows)(size_t, size_t, const void *, ptrdiff_t, void *) nogil
        void (*scatter_rows)(size_t, size_t, size_t, const void *, ptrdiff_t, const int64_t *, bint, void *) nogil
        void (*drop_rows)(size_t, size_t, const void *, ptrdiff_t, uint64_t, uint64_t, const int64_t *, double, void *) nogil
        void (*cross_entropy)(const minilm_scores *, void *, double *) nogil
        void (*cross_entropy_backward)(const minilm_scores *, const void *, const double *, void *) nogil
        int (*adamw)(const minilm_adamw *) nogil
        int (*square_sum)(size_t, const size_t *, const void **, double *) nogil
        void (*pointwise)(minilm_function, size_t, const void *, void *) nogil
        void (*gelu_backward)(bint, size_t, const void *, const void *, void *) nogil
        void (*relu_backward)(size_t, const void *, const void *, void *) nogil

    ctypedef struct minilm_kernels:
        const char *name
        const minilm_reals *f32
        const minilm_reals *f64
        void (*philox)(uint64_t, uint64_t, uint64_t, size_t, uint32_t *) nogil
        void (*keep_rows)(uint64_t, uint64_t, size_t, size_t, float, uint8_t *) nogil

    const minilm_kernels *const *minilm_tables(int *count)
    void minilm_set_num_threads(int count)
    int minilm_get_num_threads()
    void minilm_compute_alone()
    double minilm_measure_peak(const minilm_kernels *, double) nogil
    void *minilm_allocate(size_t) nogil
    void minilm_release(void *, size_t) nogil
    void minilm_trim() nogil
    void minilm_set_memory_cap(size_t) nogil
    void minilm_memory(size_t *, size_t *, size_t *, size_t *) nogil

cdef extern from *:
    const char *MINILM_SOURCE_HASH
    const Py_ssize_t PY_SSIZE_T_MAX


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


def compute_alone():
    """Let the calling thread share its work with no other from now on."""
    minilm_compute_alone()


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



include "native_memory.pxi"


cdef plain_type(x):
    """x's type in this machine's byte order: that of a result."""
    return x.dtype if x.dtype.isnative else x.dtype.newbyteorder("=")


cdef Elements flat(x):
    """All elements of x side by side, in its order: where they lie if they can be seen so, else a copy."""
    cdef Elements found = elements(x.reshape(-1))
    if found.strides[0] != 1 and found.view.shape[0] > 1:
        found = Elements(np.array(x.reshape(-1), dtype=plain_type(x), order="C"))
    return found


cdef int enough_memory(int result) except -1:
    if result != MINILM_OK:
        raise MemoryError("no memory for the sums of blocks of rows")
    return 0


cdef check_types(str kernel, x, y, str names):
    if x.dtype.char not in "fd" or y.dtype.char != x.dtype.char:
        raise ValueError(f"{kernel}: {names} are {x.dtype} and {y.dtype}: both must be float32, or both float64")


cdef const minilm_reals *reals(Elements x) noexcept:
    """The kernels for x's element type."""
    return kernels.f32 if x.type == b"f" else kernels.f64


cdef const minilm_reals *reals_of(x):
    return kernels.f32 if x.dtype.char == "f" else kernels.f64


include "native_matmul.pxi"
include "native_rows.pxi"
include "native_pointwise.pxi"
include "native_loss.pxi"
include "native_optimizer.pxi"
include "native_random.pxi"
include "native_attention.pxi"
include "native_recurrent.pxi"

set_bfloat16(precision.get_float32_matmul_precision() == "medium")
