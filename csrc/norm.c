/* layer_norm and rms_norm over rows, forward and backward, and the sum over rows; sums as in rows.h.
 *
 * In a Transformer what is normalised is a sum, x + the residual, and the sum goes on beside it; so its gradient has two
 * parts, through the norm and around it. Both additions are made here, while the row is in the cache.
 *
 * rms_norm is layer_norm without the mean and the bias: one body each way, with `centred` known to the compiler.
 */
#include "rows.h"

#include <math.h>

typedef struct {
    size_t rows, columns;
    const real *x, *dy, *weight, *bias; /* weight, bias: NULL for ones and zeros */
    ptrdiff_t x_row, dy_row;
    const real *residual, *dsum; /* added to x; to dx; NULL for nothing */
    ptrdiff_t residual_row, dsum_row;
    double eps;
    real *y;                 /* or dx */
    real *sum;               /* x + residual, which is then normalised */
    real *mean, *rstd;       /* one a row; mean NULL in rms_norm */
    real *dweights, *dbiases; /* of each block of rows */
} work;

INLINE void norm_row(const work *w, size_t i, bool centred) {
    const real *x = w->x + (ptrdiff_t)i * w->x_row, *weight = w->weight, *bias = w->bias;
    real *y = w->y + i * w->columns, mean = 0;

    if (w->residual) {
        const real *residual = w->residual + (ptrdiff_t)i * w->residual_row;
        real *total = w->sum + i * w->columns;
        EACH_VECTOR(w->columns, { store_lanes(total + j, load_lanes(x + j, n, 0) + load_lanes(residual + j, n, 0), n); })
        x = total;
    }
    if (centred) {
        vec sum[2] = {vec_zero(), vec_zero()};
        EACH_VECTOR(w->columns, { sum[k] += load_lanes(x + j, n, 0); })
        w->mean[i] = mean = vec_sum(sum[0] + sum[1]) / (real)w->columns;
    }
    vec squares[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(w->columns, {
        vec c = load_lanes(x + j, n, mean) - mean;
        squares[k] = vec_fma(c, c, squares[k]);
    })
    real variance = vec_sum(squares[0] + squares[1]) / (real)w->columns;
    real rstd = w->rstd[i] = (real)(1 / sqrt((double)variance + w->eps));

    EACH_VECTOR(w->columns, {
        vec v = (load_lanes(x + j, n, mean) - mean) * rstd;
        if (weight) v *= load_lanes(weight + j, n, 0);
        if (bias) v += load_lanes(bias + j, n, 0);
        store_lanes(y + j, v, n);
    })
}

/* dx of one row; what it adds to dweight and dbias goes to the sums of its block.
 *
 *     n = (x - mean) rstd,  dn = dy weight:     dx = (dn - mean(dn) - n mean(dn n)) rstd + dsum */
INLINE void norm_backward_row(const work *w, size_t i, real *dweight, real *dbias, bool centred) {
    const real *x = w->x + (ptrdiff_t)i * w->x_row, *dy = w->dy + (ptrdiff_t)i * w->dy_row, *weight = w->weight;
    const real mean = centred ? w->mean[i] : 0, rstd = w->rstd[i];
    const real *dsum = w->dsum ? w->dsum + (ptrdiff_t)i * w->dsum_row : NULL;
    real *dx = w->y + i * w->columns;

    vec sum[2] = {vec_zero(), vec_zero()}, along[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(w->columns, {
        vec normal = (load_lanes(x + j, n, mean) - mean) * rstd, d = load_lanes(dy + j, n, 0);
        store_lanes(dweight + j, vec_fma(d, normal, load_lanes(dweight + j, n, 0)), n);
        if (centred) store_lanes(dbias + j, load_lanes(dbias + j, n, 0) + d, n);
        if (weight) d *= load_lanes(weight + j, n, 0);
        if (centred) sum[k] += d;
        along[k] = vec_fma(d, normal, along[k]);
    })
    vec mean_of_dn = vec_all(vec_sum(sum[0] + sum[1]) / (real)w->columns);
    vec mean_along = vec_all(vec_sum(along[0] + along[1]) / (real)w->columns);

    EACH_VECTOR(w->columns, {
        vec normal = (load_lanes(x + j, n, mean) - mean) * rstd, d = load_lanes(dy + j, n, 0);
        if (weight) d *= load_lanes(weight + j, n, 0);
        if (centred) d -= mean_of_dn;
        vec through = vec_fma(-normal, mean_along, d) * rstd;
        store_lanes(dx + j, dsum ? through + load_lanes(dsum + j, n, 0) : through, n);
    })
}

static void layer_norm_some(const void *context, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) norm_row(context, i, true);
}

static void rms_norm_some(const void *context, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) norm_row(context, i, false);
}

/* from ... to - 1 are one block of rows, or the rest of them */
INLINE void norm_backward_block(const work *w, size_t from, size_t to, bool centred) {
    size_t block = from / rows_per_block(w->rows);
    real *dweight = w->dweights + block * w->columns, *dbias = centred ? w->dbiases + block * w->columns : NULL;
    memset(dweight, 0, w->columns * sizeof(real));
    if (centred) memset(dbias, 0, w->columns * sizeof(real));
    for (size_t i = from; i < to; i++) norm_backward_row(w, i, dweight, dbias, centred);
}

static void layer_norm_backward_some(const void *context, size_t from, size_t to) {
    norm_backward_block(context, from, to, true);
}

static void rms_norm_backward_some(const void *context, size_t from, size_t to) {
    norm_backward_block(context, from, to, false);
}

static size_t blocks_of(size_t rows) { return (rows + rows_per_block(rows) - 1) / rows_per_block(rows); }

void EXPORTED(layer_norm)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, const void *residual,
                          ptrdiff_t residual_row, const void *weight, const void *bias, double eps, void *sum, void *y,
                          void *mean, void *rstd) {
    work w = {.columns = columns, .x = x, .x_row = x_row, .weight = weight, .bias = bias, .eps = eps, .y = y};
    w.residual = residual, w.residual_row = residual_row, w.sum = sum;
    w.mean = mean, w.rstd = rstd;
    share_rows(rows, columns, 0, layer_norm_some, &w);
}

void EXPORTED(rms_norm)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, const void *residual,
                        ptrdiff_t residual_row, const void *weight, double eps, void *sum, void *y, void *rrms) {
    work w = {.columns = columns, .x = x, .x_row = x_row, .weight = weight, .eps = eps, .y = y, .rstd = rrms};
    w.residual = residual, w.residual_row = residual_row, w.sum = sum;
    share_rows(rows, columns, 0, rms_norm_some, &w);
}

static int norm_backward(work *w, some_rows *backward, real *dweight, real *dbias) {
    size_t blocks = blocks_of(w->rows), elements = blocks * w->columns;
    w->dweights = minilm_workspace(2 * elements * sizeof(real));
    if (elements && !w->dweights) return MINILM_NO_MEMORY;
    w->dbiases = w->dweights + elements;
    share_rows(w->rows, w->columns, rows_per_block(w->rows), backward, w);
    add_blocks(blocks, w->columns, w->dweights, dweight);
    if (dbias) add_blocks(blocks, w->columns, w->dbiases, dbias);
    return MINILM_OK;
}

int EXPORTED(layer_norm_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *x,
                                  ptrdiff_t x_row, const void *weight, const void *mean, const void *rstd,
                                  const void *dsum, ptrdiff_t dsum_row, void *dx, void *dweight, void *dbias) {
    work w = {.rows = rows, .columns = columns, .dy = dy, .dy_row = dy_row, .x = x, .x_row = x_row, .weight = weight};
    w.dsum = dsum, w.dsum_row = dsum_row;
    w.mean = (real *)mean, w.rstd = (real *)rstd, w.y = dx; /* mean and rstd are only read */
    return norm_backward(&w, layer_norm_backward_some, dweight, dbias);
}

int EXPORTED(rms_norm_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *x,
                                ptrdiff_t x_row, const void *weight, const void *rrms, const void *dsum,
                                ptrdiff_t dsum_row, void *dx, void *dweight) {
    work w = {.rows = rows, .columns = columns, .dy = dy, .dy_row = dy_row, .x = x, .x_row = x_row, .weight = weight};
    w.dsum = dsum, w.dsum_row = dsum_row;
    w.rstd = (real *)rrms, w.y = dx;
    return norm_backward(&w, rms_norm_backward_some, dweight, NULL);
}

/* --- the sum over rows ------------------------------------------------------------------------------- */

enum { COLUMNS_PER_TASK = 2048 }; /* their sums stay in the first-level cache */

/* One task is one block of rows in one range of columns. */
static void sum_some(const void *context, size_t from, size_t to) {
    const work *w = context;
    size_t ranges = (w->columns + COLUMNS_PER_TASK - 1) / COLUMNS_PER_TASK, size = rows_per_block(w->rows);
    for (size_t task = from; task < to; task++) {
        size_t block = task / ranges, first = task % ranges * COLUMNS_PER_TASK, left = w->columns - first;
        size_t columns = left < COLUMNS_PER_TASK ? left : COLUMNS_PER_TASK;
        size_t end = (block + 1) * size < w->rows ? (block + 1) * size : w->rows;
        real *sum = w->y + block * w->columns + first;
        memset(sum, 0, columns * sizeof(real));
        for (size_t i = block * size; i < end; i++) {
            const real *x = w->x + (ptrdiff_t)i * w->x_row + first;
            EACH_VECTOR(columns, {
                store_lanes(sum + j, load_lanes(sum + j, n, 0) + load_lanes(x + j, n, 0), n);
            })
        }
    }
}

int EXPORTED(sum_rows)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *sum) {
    size_t blocks = blocks_of(rows), ranges = (columns + COLUMNS_PER_TASK - 1) / COLUMNS_PER_TASK;
    work w = {.rows = rows, .columns = columns, .x = x, .x_row = x_row};
    w.y = minilm_workspace(blocks * columns * sizeof(real));
    if (blocks && columns && !w.y) return MINILM_NO_MEMORY;
    size_t per_task = rows > WORTH_SHARING / (columns + 1) ? 1 : blocks * ranges;
    share_rows(blocks * ranges, 1, per_task, sum_some, &w);
    add_blocks(blocks, columns, w.y, sum);
    return MINILM_OK;
}
