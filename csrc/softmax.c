/* softmax and log_softmax over rows, forward and backward; sums as in rows.h. */
#include "exp.h"
#include "rows.h"

#include <math.h>

typedef struct {
    size_t columns;
    const real *x, *dy, *y; /* forward: x; backward: dy, y */
    ptrdiff_t x_row, dy_row, y_row;
    real *to;
} work;

/* The largest x, in every lane. A NaN that gets lost here comes back through the sum. */
INLINE vec largest_of(size_t columns, const real *x) {
    vec high[2] = {vec_all(-INFINITY), vec_all(-INFINITY)};
    EACH_VECTOR(columns, { high[k] = vec_max(high[k], load_lanes(x + j, n, -INFINITY)); })
    return vec_all(vec_greatest(vec_max(high[0], high[1])));
}

static void softmax_row(size_t columns, const real *x, real *y) {
    vec largest = largest_of(columns, x), sum[2] = {vec_zero(), vec_zero()};
    /* lanes behind the end hold e^-inf = 0, or NaN if every lane does */
    EACH_VECTOR(columns, {
        vec e = vec_exp(load_lanes(x + j, n, -INFINITY) - largest);
        store_lanes(y + j, e, n);
        sum[k] += e;
    })
    vec scale = vec_all((real)1 / vec_sum(sum[0] + sum[1]));
    EACH_VECTOR(columns, { store_lanes(y + j, load_lanes(y + j, n, 0) * scale, n); })
}

static void softmax_backward_row(size_t columns, const real *dy, const real *y, real *dx) {
    vec sum[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(columns, { sum[k] = vec_fma(load_lanes(dy + j, n, 0), load_lanes(y + j, n, 0), sum[k]); })
    vec along = vec_all(vec_sum(sum[0] + sum[1]));
    EACH_VECTOR(columns, {
        store_lanes(dx + j, load_lanes(y + j, n, 0) * (load_lanes(dy + j, n, 0) - along), n);
    })
}

static void log_softmax_row(size_t columns, const real *x, real *y) {
    vec largest = largest_of(columns, x), sum[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(columns, { sum[k] += vec_exp(load_lanes(x + j, n, -INFINITY) - largest); })
    vec log_sum = vec_all((real)log((double)vec_sum(sum[0] + sum[1])));
    EACH_VECTOR(columns, { store_lanes(y + j, load_lanes(x + j, n, 0) - largest - log_sum, n); })
}

static void log_softmax_backward_row(size_t columns, const real *dy, const real *y, real *dx) {
    vec sum[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(columns, { sum[k] += load_lanes(dy + j, n, 0); })
    vec minus_sum = vec_all(-vec_sum(sum[0] + sum[1]));
    EACH_VECTOR(columns, {
        store_lanes(dx + j, vec_fma(vec_exp(load_lanes(y + j, n, 0)), minus_sum, load_lanes(dy + j, n, 0)), n);
    })
}

/* --- all rows ---------------------------------------------------------------------------------------- */

#define FORWARD(row)                                              \
    {                                                             \
        const work *w = context;                                  \
        for (size_t i = from; i < to; i++)                        \
            row(w->columns, w->x + (ptrdiff_t)i * w->x_row, w->to + i * w->columns); \
    }

#define BACKWARD(row)                                             \
    {                                                             \
        const work *w = context;                                  \
        for (size_t i = from; i < to; i++)                        \
            row(w->columns, w->dy + (ptrdiff_t)i * w->dy_row, w->y + (ptrdiff_t)i * w->y_row, w->to + i * w->columns); \
    }

static void softmax_some(const void *context, size_t from, size_t to) FORWARD(softmax_row)
static void log_softmax_some(const void *context, size_t from, size_t to) FORWARD(log_softmax_row)
static void softmax_backward_some(const void *context, size_t from, size_t to) BACKWARD(softmax_backward_row)
static void log_softmax_backward_some(const void *context, size_t from, size_t to) BACKWARD(log_softmax_backward_row)

void EXPORTED(softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y) {
    work w = {.columns = columns, .x = x, .x_row = x_row, .to = y};
    share_rows(rows, columns, 0, softmax_some, &w);
}

void EXPORTED(log_softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y) {
    work w = {.columns = columns, .x = x, .x_row = x_row, .to = y};
    share_rows(rows, columns, 0, log_softmax_some, &w);
}

void EXPORTED(softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                                ptrdiff_t y_row, void *dx) {
    work w = {.columns = columns, .dy = dy, .dy_row = dy_row, .y = y, .y_row = y_row, .to = dx};
    share_rows(rows, columns, 0, softmax_backward_some, &w);
}

void EXPORTED(log_softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                                    ptrdiff_t y_row, void *dx) {
    work w = {.columns = columns, .dy = dy, .dy_row = dy_row, .y = y, .y_row = y_row, .to = dx};
    share_rows(rows, columns, 0, log_softmax_backward_some, &w);
}
