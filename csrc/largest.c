/* The largest numbers of each row. */
#include "rows.h"

enum { LOOKED_AT = 4 }; /* vectors whose greatest is compared with the least that is kept */

typedef struct {
    size_t columns, count;
    const real *x;
    ptrdiff_t x_row;
    real *values;
    int64_t *places;
} work;

/* Put x into its place among `there` values that fall, behind its equals; of `count` the last falls out. */
static void insert(real *values, int64_t *places, size_t there, size_t count, real x, size_t column) {
    size_t i = there < count ? there : count - 1;
    for (; i && values[i - 1] < x; i--) values[i] = values[i - 1], places[i] = places[i - 1];
    values[i] = x;
    places[i] = (int64_t)column;
}

static void largest_row(size_t columns, size_t count, const real *x, real *values, int64_t *places) {
    for (size_t j = 0; j < count; j++) insert(values, places, j, count, x[j], j);
    const real *least = values + count - 1;
    size_t j = count;
    for (; j + LOOKED_AT * LANES <= columns; j += LOOKED_AT * LANES) {
        vec high = vec_load(x + j);
        for (size_t v = 1; v < LOOKED_AT; v++) high = vec_max(high, vec_load(x + j + v * LANES));
        if (!(vec_greatest(high) > *least)) continue;
        for (size_t i = j; i < j + LOOKED_AT * LANES; i++)
            if (x[i] > *least) insert(values, places, count, count, x[i], i);
    }
    for (; j < columns; j++)
        if (x[j] > *least) insert(values, places, count, count, x[j], j);
}

static void largest_some(const void *context, size_t from, size_t to) {
    const work *w = context;
    for (size_t i = from; i < to; i++)
        largest_row(w->columns, w->count, w->x + (ptrdiff_t)i * w->x_row, w->values + i * w->count,
                    w->places + i * w->count);
}

void EXPORTED(largest)(size_t rows, size_t columns, size_t count, const void *x, ptrdiff_t x_row, void *values,
                       int64_t *places) {
    if (!count) return;
    work w = {.columns = columns, .count = count, .x = x, .x_row = x_row, .values = values, .places = places};
    share_rows(rows, columns, 0, largest_some, &w);
}
