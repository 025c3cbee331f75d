/* The whole interface of the C part: what native.pyx may call, and nothing else.
 *
 * Plain C11, no Python. The numeric files are compiled once for each instruction set and each `real` (float,
 * double; see simd.h); each instruction set ends in one table of functions, `minilm_kernels`, of which cpu.c
 * chooses one when the module is loaded. kernels.h lists what is in a table.
 *
 * Every kernel keeps this promise: the bits of a result depend neither on the number of threads nor on what
 * else is in the batch. The order of every sum follows from its length alone.
 */
#ifndef MINILM_H
#define MINILM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MINILM_MAX_AXES 64 /* as many as an array of NumPy may have */

/* --- one table of kernels per instruction set ------------------------------------------------------- */

/* c = a b, or c += a b where `accumulate` is set, for every index of the batch's axes.
 *
 *     a (batch..., M, K)    b (batch..., K, N)    c (batch..., M, N)
 *
 * Strides count elements; those of a and b may be anything, zero and negative included. c's columns lie
 * side by side, and c overlaps neither a nor b. Any size may be 0. */
typedef struct {
    size_t m, n, k;
    ptrdiff_t a_row, a_k;    /* from one row of a to the next, from one k to the next */
    ptrdiff_t b_k, b_column; /* likewise in b */
    ptrdiff_t c_row;
    bool accumulate;
    int axes;                      /* of the batch */
    size_t shape[MINILM_MAX_AXES]; /* their sizes, outermost first, and their strides: */
    ptrdiff_t a_axis[MINILM_MAX_AXES], b_axis[MINILM_MAX_AXES], c_axis[MINILM_MAX_AXES];
} minilm_product;

enum { MINILM_OK = 0, MINILM_NO_MEMORY = 1 };

/* The kernels of one element type. Every `void *` points to elements of that type: float in `f32`, double in
 * `f64`. A matrix (rows, columns) has its columns side by side; where a `..._row` is given, that many elements lie
 * from one row to the next, else the rows follow each other. Outputs overlap no inputs, unless it is said. */
typedef struct {
    /* MINILM_OK or MINILM_NO_MEMORY */
    int (*gemm)(const minilm_product *, const void *a, const void *b, void *c);

    /* y = softmax(x) over each row:  x (rows, columns) -> y (rows, columns) */
    void (*softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y);

    /* dx = y (dy - sum dy y):  dy, y (rows, columns) -> dx (rows, columns) */
    void (*softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                             ptrdiff_t y_row, void *dx);
} minilm_reals;

typedef struct {
    const char *name; /* "x86-64-v3" ... */
    const minilm_reals *f32, *f64;

    /* Compute with independent multiply-adds only, until `steps` rounds are done; how many operations (a
     * multiplication and an addition are two) that were. The processor can do no more than this. */
    double (*peak)(size_t steps);
} minilm_kernels;

/* --- cpu.c: which table ----------------------------------------------------------------------------- */

/* The tables that this processor can run, the fastest last; *count of them. */
const minilm_kernels *const *minilm_tables(int *count);

/* --- pool.c: threads and their memory --------------------------------------------------------------- */

/* How many threads compute, the caller among them. Workers start when there is first something to share. */
void minilm_set_num_threads(int count);
int minilm_get_num_threads(void);

/* Run task(context, i) for every i below `tasks`, on several threads, and return when all are done. Which
 * thread runs which i is left open. Everything runs in the calling thread while another one (or a task
 * of the same call) uses the pool. */
void minilm_parallel(size_t tasks, void (*task)(void *context, size_t i), void *context);

/* At least `bytes` bytes for the calling thread, aligned to 64; valid until its next call. NULL: no memory. */
void *minilm_workspace(size_t bytes);

/* GFLOP/s in float32 that `kernels` reaches with every thread at once: the best tenth of `seconds`. */
double minilm_measure_peak(const minilm_kernels *kernels, double seconds);

#endif
