/* Rows added up by number: the gradient of an embedding, or of any indexing.
 *
 * Equal numbers are added in the order in which they come. Threads share the columns: a sum is never shared.
 */
#include "rows.h"

enum { COLUMNS_PER_TASK = 64 };

typedef struct {
    size_t rows, columns;
    const real *x;
    ptrdiff_t x_row;
    const int64_t *index;
    real *z;
} work;

static void zero_some(const void *context, size_t from, size_t to) {
    const work *w = context;
    memset(w->z + from * w->columns, 0, (to - from) * w->columns * sizeof(real));
}

static void add_some(const void *context, size_t from, size_t to) {
    const work *w = context;
    for (size_t i = 0; i < w->rows; i++) {
        const real *x = w->x + (ptrdiff_t)i * w->x_row + from;
        real *z = w->z + (size_t)w->index[i] * w->columns + from;
        EACH_VECTOR(to - from, {
            store_lanes(z + j, load_lanes(z + j, n, 0) + load_lanes(x + j, n, 0), n);
        })
    }
}

void EXPORTED(scatter_rows)(size_t rows, size_t columns, size_t count, const void *x, ptrdiff_t x_row,
                            const int64_t *index, bool add, void *z) {
    work w = {rows, columns, x, x_row, index, z};
    if (!add) share_rows(count, columns, 0, zero_some, &w);
    if (rows) share_rows(columns, 1, rows > WORTH_SHARING / (columns + 1) ? COLUMNS_PER_TASK : columns, add_some, &w);
}
