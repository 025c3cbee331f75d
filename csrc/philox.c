/* Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, section 3.3): as minilm/kernels/philox.py, bit for bit.
 *
 * Compiled for each instruction set, though there is no `real` in it: several counters at a time.
 */
#include "minilm.h"
#include "simd.h"

#include <math.h>

enum { AT_A_TIME = 16, NUMBERS_PER_TASK = 1 << 14 };

/* The four numbers of each of the counters (stream, start), (stream, start + 1) ...: out[4 i + word] */
static void blocks(uint64_t key, uint64_t stream, uint64_t start, uint32_t out[4 * AT_A_TIME]) {
    uint32_t c[4][AT_A_TIME], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (unsigned i = 0; i < AT_A_TIME; i++) {
        c[0][i] = (uint32_t)(start + i);
        c[1][i] = (uint32_t)((start + i) >> 32);
        c[2][i] = (uint32_t)stream;
        c[3][i] = (uint32_t)(stream >> 32);
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            uint64_t left = (uint64_t)c[0][i] * 0xD2511F53u, right = (uint64_t)c[2][i] * 0xCD9E8D57u;
            c[0][i] = (uint32_t)(right >> 32) ^ c[1][i] ^ k0;
            c[2][i] = (uint32_t)(left >> 32) ^ c[3][i] ^ k1;
            c[1][i] = (uint32_t)right;
            c[3][i] = (uint32_t)left;
        }
    for (unsigned i = 0; i < AT_A_TIME; i++)
        for (unsigned word = 0; word < 4; word++) out[4 * i + word] = c[word][i];
}

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
        blocks(d->key, d->stream, d->start + i / 4, numbers);
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
            blocks(d->key, d->stream + row, j / 4, numbers);
            /* 24 random bits as a number in [0, 1): exact in float */
            for (unsigned i = 0; i < 4 * AT_A_TIME; i++)
                keep[i] = (float)(int32_t)(numbers[i] >> 8) * 0x1p-24f >= d->p;
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
