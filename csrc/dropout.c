/* Dropout of rows, from numbers that are drawn on the way: nothing is kept for the backward, which draws again. */
#include "kernels.h"
#include "philox.h"
#include "rows.h"

typedef struct {
    size_t columns;
    const real *x;
    ptrdiff_t x_row;
    uint64_t key, first;
    const int64_t *places;
    float p;
    real scale;
    real *y;
} work;

static void drop_some(const void *context, size_t from, size_t to) {
    const work *w = context;
    const float p = w->p;
    const real scale = w->scale;
    for (size_t row = from; row < to; row++) {
        uint64_t stream = w->first + (w->places ? (uint64_t)w->places[row] : row);
        const real *x = w->x + (ptrdiff_t)row * w->x_row;
        real *y = w->y + row * w->columns;
        for (size_t j = 0; j < w->columns; j += 4 * AT_A_TIME) {
            uint32_t numbers[4 * AT_A_TIME];
            real kept[4 * AT_A_TIME];
            philox(w->key, stream, j / 4, numbers);
            for (unsigned i = 0; i < 4 * AT_A_TIME; i++) kept[i] = (real)(philox_uniform(numbers[i]) >= p) * scale;
            size_t n = w->columns - j;
            if (n >= 4 * AT_A_TIME)
                for (unsigned i = 0; i < 4 * AT_A_TIME; i++) y[j + i] = x[j + i] * kept[i];
            else
                for (size_t i = 0; i < n; i++) y[j + i] = x[j + i] * kept[i];
        }
    }
}

void EXPORTED(drop_rows)(size_t rows, size_t columns, const void *x, ptrdiff_t x_row, uint64_t key, uint64_t first,
                         const int64_t *places, double p, void *y) {
    work w = {columns, x, x_row, key, first, places, (float)p, p < 1 ? (real)(1 / (1 - p)) : 0, y};
    share_rows(rows, columns, 0, drop_some, &w);
}
