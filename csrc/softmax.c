/* softmax over rows, forward and backward.
 *
 * A row is summed in an order that depends on its length alone: lane l of a vector adds the elements l, l + LANES,
 * l + 2 LANES ... (of two vectors in turn in the backward), and the lanes are added by halves. Rows are shared
 * among threads, a row never is.
 */
#include "minilm.h"
#include "simd.h"

#include <math.h>

enum { WORTH_SHARING = 1 << 15, ELEMENTS_PER_TASK = 1 << 13 };

#ifdef MINILM_DOUBLE
#define LOWEST (-746.0) /* e^x rounds to 0 from here on */
#define LN2_HIGH 6.93145751953125e-1
#define LN2_LOW 1.42860682030941723212e-6
#define TERMS 13
#else
#define LOWEST (-104.0f)
#define LN2_HIGH 0.693359375f
#define LN2_LOW (-2.12194440e-4f)
#define TERMS 7
#endif

/* 1/2!, 1/3! ... */
static const real INVERSE_FACTORIAL[] = {
    1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,         1.0 / 720,         1.0 / 5040,
    1.0 / 40320.0, 1.0 / 362880.0, 1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0,
};

/* e^x for x <= 0 (and NaN), to about one unit in the last place, subnormal results included.
 *
 *     x = n ln 2 + r,  |r| <= ln 2 / 2:     e^x = 2^n e^r,     e^r = 1 + r + r^2 (1/2! + r/3! + ...)
 *
 * ln 2 is split in two so that n LN2_HIGH is exact (Cody & Waite 1980). */
INLINE vec vec_exp(vec x) {
    x = vec_max(vec_all(LOWEST), x);
    /* adding and taking away 1.5 2^MANTISSA_BITS pushes the fraction out of the mantissa: x / ln 2, rounded */
    const vec shift = vec_all((real)1.5 * (real)((integer)1 << MANTISSA_BITS));
    vec n = vec_fma(x, vec_all((real)1.44269504088896340736), shift) - shift;
    vec r = vec_fma(n, vec_all(-LN2_HIGH), x);
    r = vec_fma(n, vec_all(-LN2_LOW), r);

    vec series = vec_all(INVERSE_FACTORIAL[TERMS - 2]);
#pragma GCC unroll 13
    for (int i = TERMS - 3; i >= 0; i--) series = vec_fma(series, r, vec_all(INVERSE_FACTORIAL[i]));
    vec e = vec_fma(r * r, series, r) + (real)1;
    return vec_times_power_of_two(e, n);
}

static void softmax_row(size_t columns, const real *x, real *y) {
    size_t j, whole = columns - columns % LANES, rest = columns % LANES;

    vec high = vec_all(-INFINITY);
    for (j = 0; j < whole; j += LANES) high = vec_max(high, vec_load(x + j));
    if (rest) high = vec_max(high, vec_load_first(x + whole, rest, -INFINITY));
    vec largest = vec_all(vec_greatest(high)); /* a NaN that got lost here comes back through the sum */

    vec sum = vec_zero();
    for (j = 0; j < whole; j += LANES) {
        vec e = vec_exp(vec_load(x + j) - largest);
        vec_store(y + j, e);
        sum += e;
    }
    if (rest) {
        vec e = vec_exp(vec_load_first(x + whole, rest, -INFINITY) - largest);
        vec_store_first(y + whole, e, rest);
        /* lanes behind the end hold e^-inf = 0, or NaN if every lane does */
        sum += e;
    }
    vec scale = vec_all((real)1 / vec_sum(sum));

    for (j = 0; j < whole; j += LANES) vec_store(y + j, vec_load(y + j) * scale);
    if (rest) vec_store_first(y + whole, vec_load_first(y + whole, rest, 0) * scale, rest);
}

static void softmax_backward_row(size_t columns, const real *dy, const real *y, real *dx) {
    size_t j, whole = columns - columns % LANES, rest = columns % LANES;

    vec even = vec_zero(), odd = vec_zero(); /* two sums: the next need not wait for the last */
    for (j = 0; j + 2 * LANES <= whole; j += 2 * LANES) {
        even = vec_fma(vec_load(dy + j), vec_load(y + j), even);
        odd = vec_fma(vec_load(dy + j + LANES), vec_load(y + j + LANES), odd);
    }
    if (j < whole) even = vec_fma(vec_load(dy + j), vec_load(y + j), even);
    if (rest) odd = vec_fma(vec_load_first(dy + whole, rest, 0), vec_load_first(y + whole, rest, 0), odd);
    vec along = vec_all(vec_sum(even + odd));

    for (j = 0; j < whole; j += LANES) vec_store(dx + j, vec_load(y + j) * (vec_load(dy + j) - along));
    if (rest)
        vec_store_first(dx + whole, vec_load_first(y + whole, rest, 0) * (vec_load_first(dy + whole, rest, 0) - along),
                        rest);
}

/* --- rows shared among threads ----------------------------------------------------------------------- */

typedef struct {
    size_t rows, columns, rows_per_task;
    const real *x, *dy, *y; /* forward: x; backward: dy, y */
    ptrdiff_t x_row, dy_row, y_row;
    real *to;
} work;

static void forward_task(void *context, size_t task) {
    const work *w = context;
    size_t end = (task + 1) * w->rows_per_task < w->rows ? (task + 1) * w->rows_per_task : w->rows;
    for (size_t i = task * w->rows_per_task; i < end; i++)
        softmax_row(w->columns, w->x + (ptrdiff_t)i * w->x_row, w->to + i * w->columns);
}

static void backward_task(void *context, size_t task) {
    const work *w = context;
    size_t end = (task + 1) * w->rows_per_task < w->rows ? (task + 1) * w->rows_per_task : w->rows;
    for (size_t i = task * w->rows_per_task; i < end; i++)
        softmax_backward_row(w->columns, w->dy + (ptrdiff_t)i * w->dy_row, w->y + (ptrdiff_t)i * w->y_row,
                             w->to + i * w->columns);
}

static void run(work *w, void (*task)(void *, size_t)) {
    if (w->rows == 0 || w->columns == 0) return;
    bool share = w->rows > WORTH_SHARING / w->columns;
    w->rows_per_task = share ? 1 + ELEMENTS_PER_TASK / w->columns : w->rows;
    minilm_parallel((w->rows + w->rows_per_task - 1) / w->rows_per_task, task, w);
}

void EXPORTED(softmax)(size_t rows, size_t columns, const real *x, ptrdiff_t x_row, real *y) {
    work w = {.rows = rows, .columns = columns, .x = x, .x_row = x_row, .to = y};
    run(&w, forward_task);
}

void EXPORTED(softmax_backward)(size_t rows, size_t columns, const real *dy, ptrdiff_t dy_row, const real *y,
                                ptrdiff_t y_row, real *dx) {
    work w = {.rows = rows, .columns = columns, .dy = dy, .dy_row = dy_row, .y = y, .y_row = y_row, .to = dx};
    run(&w, backward_task);
}
