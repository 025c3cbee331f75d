/* softmax over rows, forward and backward.
 *
 * A row is summed in an order that depends on its length alone: lane l of a vector adds the elements l, l + LANES,
 * l + 2 LANES ... (of two vectors in turn in the backward), and the lanes are added by halves. Rows are shared
 * among threads, a row never is.
 */
#include "exp.h"
#include "kernels.h"

#include <math.h>

enum { WORTH_SHARING = 1 << 15, ELEMENTS_PER_TASK = 1 << 13 };

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

void EXPORTED(softmax)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, void *y) {
    work w = {.rows = rows, .columns = columns, .x = x, .x_row = x_row, .to = y};
    run(&w, forward_task);
}

void EXPORTED(softmax_backward)(size_t rows, size_t columns, const void *dy, ptrdiff_t dy_row, const void *y,
                                ptrdiff_t y_row, void *dx) {
    work w = {.rows = rows, .columns = columns, .dy = dy, .dy_row = dy_row, .y = y, .y_row = y_row, .to = dx};
    run(&w, backward_task);
}
