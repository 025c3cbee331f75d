/* Random numbers by the array, as minilm/kernels/philox.py, bit for bit.
 *
 * Compiled for each instruction set, though there is no `real` in it: several counters at a time.
 */
#include "minilm.h"
#include "philox.h"
#include "simd.h"

#include <math.h>

enum { NUMBERS_PER_TASK = 1 << 14 };

typedef struct {
    uint64_t key, stream, start;
    size_t count;
    uint32_t *numbers;
    size_t rows_per_task, rows, columns; /* keep_rows: `stream` is that of the first row */
    float p;
    uint8_t *keep;
} draw;

static void philox_task(void *context, size_t task) {
    const draw *d = context;
    size_t from = task * NUMBERS_PER_TASK, to = d->count - from < NUMBERS_PER_TASK ? d->count : from + NUMBERS_PER_TASK;
    uint32_t numbers[4 * AT_A_TIME];
    for (size_t i = from; i < to; i += 4 * AT_A_TIME) {
        size_t wanted = to - i < 4 * AT_A_TIME ? to - i : 4 * AT_A_TIME;
        philox(d->key, d->stream, d->start + i / 4, numbers);
        memcpy(d->numbers + i, numbers, wanted * sizeof *numbers);
    }
}

static void keep_task(void *context, size_t task) {
    const draw *d = context;
    size_t from = task * d->rows_per_task, left = d->rows - from;
    size_t to = from + (left < d->rows_per_task ? left : d->rows_per_task);
    uint32_t numbers[4 * AT_A_TIME];
    uint8_t keep[4 * AT_A_TIME];
    for (size_t row = from; row < to; row++)
        for (size_t j = 0; j < d->columns; j += 4 * AT_A_TIME) {
            philox(d->key, d->stream + row, j / 4, numbers);
            for (unsigned i = 0; i < 4 * AT_A_TIME; i++) keep[i] = philox_uniform(numbers[i]) >= d->p;
            size_t wanted = d->columns - j < 4 * AT_A_TIME ? d->columns - j : 4 * AT_A_TIME;
            memcpy(d->keep + row * d->columns + j, keep, wanted);
        }
}

void EXPORTED(philox)(uint64_t key, uint64_t stream, uint64_t start, size_t count, uint32_t *numbers) {
    draw d = {.key = key, .stream = stream, .start = start, .count = count, .numbers = numbers};
    minilm_parallel((count + NUMBERS_PER_TASK - 1) / NUMBERS_PER_TASK, philox_task, &d);
}

void EXPORTED(keep_rows)(uint64_t key, uint64_t first, size_t rows, size_t columns, float p, uint8_t *keep) {
    if (rows == 0 || columns == 0) return;
    draw d = {.key = key, .stream = first, .rows = rows, .columns = columns, .p = p, .keep = keep};
    d.rows_per_task = (NUMBERS_PER_TASK + columns - 1) / columns;
    minilm_parallel((rows + d.rows_per_task - 1) / d.rows_per_task, keep_task, &d);
}
