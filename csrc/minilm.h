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
    const void *b_panels; /* b as gemm_pack packed it, for a product without axes; NULL: it is packed for this one */
    bool bfloat16; /* round a and b to bfloat16 if that is faster; float32 only, sums stay in float32 */

    /* Without axes only, then done to every element when its sum is complete: + bias (N), + residual (M, N), and
     * c = f(before), before (M, N) being kept for the backward unless it is NULL. */
    const void *bias, *residual;
    ptrdiff_t residual_row, before_row;
    int activation; /* f: MINILM_GELU, MINILM_GELU_TANH or MINILM_RELU (see below), or 0 for none */
    void *before;

    int axes;                      /* of the batch */
    size_t shape[MINILM_MAX_AXES]; /* their sizes, outermost first, and their strides: */
    ptrdiff_t a_axis[MINILM_MAX_AXES], b_axis[MINILM_MAX_AXES], c_axis[MINILM_MAX_AXES];
} minilm_product;

/* Matrices of a batch: an element in row i, column j of the one at index (n, ...) of the batch's axes lies
 * i row + j column + n axis[0] + ... elements behind `data`. Columns lie side by side unless it is said. */
typedef struct {
    void *data; /* NULL where there is none */
    ptrdiff_t row, column, axis[MINILM_MAX_AXES];
} minilm_matrices;

/* y = dropout(softmax(scale q k^T + bias)) v for every index of the batch's axes (each of them is a head), and back.
 *
 *     q (T, D), k (S, D), v (S, E), bias and mask (T, S) -> y (T, E), lse (T)
 *     dy (T, E) -> dq (T, D), dk (S, D), dv (S, E), dbias (T, S)
 *
 * With `starts`, the first axis has sequences that lie one behind the other, without padding: of each matrix, sequence
 * b has the rows starts[b] ... starts[b + 1] - 1, at most T. There is one length: S = T, neither bias nor mask. */
typedef struct {
    size_t queries, keys, depth, width; /* T, S, D, E */
    int axes;
    size_t shape[MINILM_MAX_AXES];
    const int64_t *starts;            /* (shape[0] + 1), or NULL */
    minilm_matrices q, k, v, y, bias; /* bias and mask: any strides, 0 included */
    minilm_matrices mask;             /* of bytes, 0 where a query must not look */
    bool causal;                      /* query t sees keys 0 ... t only */
    double scale, p;                  /* p: the share that dropout leaves out, chosen by `key` */
    uint64_t key, first_row;          /* the number of the first of all rows, for which dropout draws */
    minilm_matrices lse;              /* (T, 1), its rows side by side; the backward reads it */
    minilm_matrices dy, dq, dk, dv;   /* for the backward */
    void *dbias;                      /* (batch..., T, S), zeros before; NULL: not wanted */
} minilm_attention;

/* y = softmax(scale q k^T + bias) v for rows of one query each, which looks at position s of row places[s] of the keys
 * and values, and at nothing there where that is negative.
 *
 *     q (N, H, D), k (R, S, H, D), v (R, S, H, E), bias (H, S), places (N, S) -> y (N, H, E)
 *
 * Of k and v, axis[0] leads to the next head, axis[1] to the next of the R, `row` to the next position; of q, axis[0]
 * to the next head and `row` to the next of the N; `column` is 1. */
typedef struct {
    size_t rows, heads, keys, depth, width; /* N, H, S, D, E */
    minilm_matrices q, k, v, bias;
    const int64_t *places;
    ptrdiff_t place_row, place_key;
    double scale;
    void *y;
} minilm_cached_attention;

/* The cell of a recurrent layer. */
typedef enum { MINILM_RNN_TANH, MINILM_RNN_RELU, MINILM_LSTM, MINILM_GRU } minilm_cell;

/* One recurrent layer in one direction, over all times and back: B sequences, the longest first, H channels, G gates,
 * N rows, those of the first time, then of the sequences that are there at the second, and so on.
 *
 *     given (N, G H), weight (G H, H), h, c (B, H) -> y (N, H), h, c, and for the backward gates (N, G H), cells (N, H)
 *     dy (N, H), and all of these -> dgiven, dheld (N, G H), h, c
 *
 * Every matrix has its rows one behind the other. What a cell has not is NULL. */
typedef struct {
    minilm_cell cell;
    size_t times, batch, hidden;  /* T, B, H */
    const int64_t *sizes, *first; /* (T): sequences at each time, never more than before, and their first row */
    bool reverse;                 /* walk from the last time to the first */
    const void *given, *weight, *bias;  /* bias: GRU, or NULL */
    const void *first_h, *first_c, *dy; /* for the backward: the states before the walk */
    void *h, *c;                        /* the first state, which becomes the last; backward: the gradient of the last,
                                         * which becomes that of the first */
    void *y, *gates, *cells;            /* gates: LSTM, GRU. cells: of an LSTM c, of a GRU what n holds of the state */
    void *dgiven, *dheld;               /* dgiven: NULL forward. dheld: GRU, the gradient of h weight^T */
} minilm_recurrent;

enum { MINILM_OK = 0, MINILM_NO_MEMORY = 1 };

/* A function of one element. */
typedef enum {
    MINILM_EXP,
    MINILM_TANH,
    MINILM_SIGMOID,   /* 1 / (1 + e^-x) */
    MINILM_ERF,
    MINILM_GELU,      /* x P(x), P the share of the normal distribution below x; by erf */
    MINILM_GELU_TANH, /* the same with P approximated by tanh */
    MINILM_RELU,      /* 0 where x <= 0, else x, also NaN */
} minilm_function;

/* Scores of classes: x (rows, columns), a class for each row: target (rows), which is one of 0 ... columns - 1 or
 * `ignore_index`, and what each class counts: weight (columns), NULL for ones. */
typedef struct {
    size_t rows, columns;
    const void *x;
    ptrdiff_t x_row;
    const int64_t *target;
    const void *weight;
    double weight_sum; /* of all classes: `columns` for ones */
    int64_t ignore_index;
    double label_smoothing;
} minilm_scores;

/* One step of AdamW for `count` parameters: the i-th has sizes[i] elements, side by side, and so have its gradient and
 * its two running means. */
typedef struct {
    size_t count;
    const size_t *sizes;
    void *const *params, *const *exp_avgs, *const *exp_avg_sqs; /* overwritten */
    const void *const *grads;
    double lr, beta1, beta2, eps, weight_decay, step;
} minilm_adamw;

/* The kernels of one element type. Every `void *` points to elements of that type: float in `f32`, double in
 * `f64`. A matrix (rows, columns) has its columns side by side; where a `..._row` is given, that many elements lie
 * from one row to the next, else the rows follow each other. Outputs overlap no inputs, unless it is said. */
typedef struct {
    /* MINILM_OK or MINILM_NO_MEMORY */
    int (*gemm)(const minilm_product *, const void *a, const void *b, void *c);

    /* How many elements the panels of b (K, N) take, for gemm to read in place of b; and b -> panels. Products in
     * bfloat16 do not read them. */
    size_t (*gemm_panels)(size_t n, size_t k);
    void (*gemm_pack)(size_t n, size_t k, const void *b, ptrdiff_t b_k, ptrdiff_t b_column, void *panels);

    /* y = softmax(x) over each row:  x (rows, columns) -> y (rows, columns) */
    void (*softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y);

    /* dx = y (dy - sum dy y):  dy, y (rows, columns) -> dx (rows, columns) */
    void (*softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                             ptrdiff_t y_row, void *dx);

    /* y and lse, from q, k and v;  dq, dk, dv and dbias, from these and dy. MINILM_OK or MINILM_NO_MEMORY */
    int (*attention)(const minilm_attention *);
    int (*attention_backward)(const minilm_attention *);
    int (*cached_attention)(const minilm_cached_attention *);

    /* The `count` largest of each row, which fall, of equal ones the first, and their columns:
     *     x (rows, columns), columns at least `count` -> values, places (rows, count) */
    void (*largest)(size_t rows, size_t columns, size_t count, const void *x, ptrdiff_t x_row, void *values,
                    int64_t *places);

    /* A recurrent layer, and its way back but for dweight = dheld^T (the states before each row). MINILM_OK or
     * MINILM_NO_MEMORY */
    int (*recurrent)(const minilm_recurrent *);
    int (*recurrent_backward)(const minilm_recurrent *);

    /* y = log softmax(x) over each row:  x (rows, columns) -> y (rows, columns) */
    void (*log_softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y);

    /* dx = dy - e^y sum dy:  dy, y (rows, columns) -> dx (rows, columns) */
    void (*log_softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                                 ptrdiff_t y_row, void *dx);

    /* sum = x + residual;  y = (sum - mean) rstd weight + bias, rstd = 1 / sqrt(variance + eps), row by row. There are
     * columns; without a residual the sum is x, and is not written.
     *     x (rows, columns), residual (rows, columns) or NULL, weight, bias (columns) or NULL
     *     -> sum, y (rows, columns), mean (rows), rstd (rows) */
    void (*layer_norm)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, const void *residual,
                       ptrdiff_t residual_row, const void *weight, const void *bias, double eps, void *sum, void *y,
                       void *mean, void *rstd);

    /* dy, x (rows, columns; x: what was normalised), weight (columns) or NULL, mean, rstd (rows), dsum (rows, columns)
     * or NULL, added to dx    -> dx (rows, columns), dweight, dbias (columns); MINILM_OK or MINILM_NO_MEMORY */
    int (*layer_norm_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *x,
                               ptrdiff_t x_row, const void *weight, const void *mean, const void *rstd,
                               const void *dsum, ptrdiff_t dsum_row, void *dx, void *dweight, void *dbias);

    /* The same without mean and bias: rrms = 1 / sqrt(mean of x^2 + eps) */
    void (*rms_norm)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, const void *residual,
                     ptrdiff_t residual_row, const void *weight, double eps, void *sum, void *y, void *rrms);
    int (*rms_norm_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *x,
                             ptrdiff_t x_row, const void *weight, const void *rrms, const void *dsum,
                             ptrdiff_t dsum_row, void *dx, void *dweight);

    /* The sum over rows:  x (rows, columns) -> sum (columns); MINILM_OK or MINILM_NO_MEMORY */
    int (*sum_rows)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *sum);

    /* z[index[i]] += x[i], into zeros unless `add`:  x (rows, columns), index (rows), below `count` -> z (count, columns) */
    void (*scatter_rows)(size_t rows, size_t columns, size_t count, const void *x, ptrdiff_t x_row,
                         const int64_t *index, bool add, void *z);

    /* y = x / (1 - p) where it is kept, else 0; row i draws, as in keep_rows, from the stream first + places[i], or
     * first + i where there are no `places`:  x (rows, columns), places (rows) -> y (rows, columns) */
    void (*drop_rows)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, uint64_t key, uint64_t first,
                      const int64_t *places, double p, void *y);

    /* The loss of each row, 0 where it is ignored, and lse = log sum e^x:  scores -> loss (rows), lse (rows) */
    void (*cross_entropy)(const minilm_scores *scores, void *loss, double *lse);

    /* scores, dloss (rows), lse (rows) -> dx (rows, columns) */
    void (*cross_entropy_backward)(const minilm_scores *scores, const void *dloss, const double *lse, void *dx);

    /* MINILM_OK or MINILM_NO_MEMORY */
    int (*adamw)(const minilm_adamw *);

    /* *sum = the sum of the squares of all elements of `count` arrays; MINILM_OK or MINILM_NO_MEMORY */
    int (*square_sum)(size_t count, const size_t *sizes, const void *const *arrays, double *sum);

    /* y = f(x) for each element:  x (count) -> y (count), which may be the same memory */
    void (*pointwise)(minilm_function f, size_t count, const void *x, void *y);

    /* dx = dy (P(x) + x P'(x)):  dy, x (count) -> dx (count), which may be the memory of either */
    void (*gelu_backward)(bool tanh_formula, size_t count, const void *dy, const void *x, void *dx);

    /* dx = 0 where y <= 0, else dy:  dy, y (count) -> dx (count), which may be the memory of either */
    void (*relu_backward)(size_t count, const void *dy, const void *y, void *dx);
} minilm_reals;

typedef struct {
    const char *name; /* "x86-64-v3" ... */
    const minilm_reals *f32, *f64;

    /* Compute with independent multiply-adds only, until `steps` rounds are done; how many operations (a
     * multiplication and an addition are two) that were. The processor can do no more than this. */
    double (*peak)(size_t steps);

    /* Random numbers: the blocks (stream, start), (stream, start + 1) ... of four each -> numbers (count) */
    void (*philox)(uint64_t key, uint64_t stream, uint64_t start, size_t count, uint32_t *numbers);

    /* Which elements dropout keeps, 1 or 0: row i draws from the stream first + i -> keep (rows, columns) */
    void (*keep_rows)(uint64_t key, uint64_t first, size_t rows, size_t columns, float p, uint8_t *keep);
} minilm_kernels;

/* --- cpu.c: which table ----------------------------------------------------------------------------- */

/* The tables that this processor can run, the fastest last; *count of them. */
const minilm_kernels *const *minilm_tables(int *count);

/* --- pool.c: threads and their memory --------------------------------------------------------------- */

/* How many threads compute, the caller among them. Workers start when there is first something to share. */
void minilm_set_num_threads(int count);
int minilm_get_num_threads(void);

/* Let the calling thread share its work with no other from now on: it has as many beside it as there are processors. */
void minilm_compute_alone(void);

/* Run task(context, i) for every i below `tasks`, on several threads, and return when all are done. Which
 * thread runs which i is left open. Everything runs in the calling thread while another one (or a task
 * of the same call) uses the pool. */
void minilm_parallel(size_t tasks, void (*task)(void *context, size_t i), void *context);

/* At least `bytes` bytes for the calling thread, aligned to 64; valid until its next call. NULL: no memory. */
void *minilm_workspace(size_t bytes);

/* The same, for what the calling thread's tasks read in common: it stays while they ask for workspaces of their own. */
void *minilm_shared_workspace(size_t bytes);

/* --- memory.c: memory for results, used again ------------------------------------------------------------ */

/* A block of at least `bytes` bytes, aligned to 64; NULL: no memory. */
void *minilm_allocate(size_t bytes);

/* Take back a block that minilm_allocate(bytes) gave: it waits for the next of its size, or is freed. */
void minilm_release(void *block, size_t bytes);

/* Give all that waits back to the system. */
void minilm_trim(void);

/* How many bytes may wait; at first a quarter of the machine's memory. */
void minilm_set_memory_cap(size_t bytes);

/* Bytes that wait, and that may; blocks ever given, and how many of them had waited. */
void minilm_memory(size_t *held, size_t *cap, size_t *given, size_t *reused);

/* --- measuring -------------------------------------------------------------------------------------------- */

/* GFLOP/s in float32 that `kernels` reaches with every thread at once: the best tenth of `seconds`. */
double minilm_measure_peak(const minilm_kernels *kernels, double seconds);

#endif
