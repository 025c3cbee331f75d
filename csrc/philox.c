/* Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, section 3.3): as minilm/kernels/philox.py, bit for bit.
 *
 * Compiled for each instruction set, though there is no `real` in it: several counters at a time.
 */
#include "minilm.h"
#include "simd.h"

#include <math.h>

enum { AT_A_TIME = 16, NUMBERS_PER_TASK = 1 << 14 };

typedef uint64_t wide __attribute__((vector_size(VEC_BYTES)));
enum { WIDE_LANES = VEC_BYTES / 8 };

/* The products, 64 bits each, of the lower halves of a's lanes and b. Compilers would multiply the whole lanes. */
INLINE wide product(wide a, uint32_t b) {
#if defined(MM) && VEC_BYTES == 64
    return (wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(MM) && VEC_BYTES == 32
    return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(MM)
    return (wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFFu) * (uint64_t)b;
#endif
}

/* The four numbers of each of the counters (stream, start), (stream, start + 1) ...: out[4 i + word] */
static void blocks(uint64_t key, uint64_t stream, uint64_t start, uint32_t out[4 * AT_A_TIME]) {
    uint64_t words[4][AT_A_TIME];
    for (unsigned i = 0; i < AT_A_TIME; i += WIDE_LANES) {
        wide c0, c1, c2, c3; /* the lower half of each lane counts */
        for (unsigned lane = 0; lane < WIDE_LANES; lane++) c0[lane] = start + i + lane;
        c1 = c0 >> 32;
        c2 = stream - (wide){0};
        c3 = c2 >> 32;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            wide left = product(c0, 0xD2511F53u), right = product(c2, 0xCD9E8D57u);
            c0 = (right >> 32) ^ c1 ^ (uint64_t)k0;
            c2 = (left >> 32) ^ c3 ^ (uint64_t)k1;
            c1 = right;
            c3 = left;
        }
        memcpy(&words[0][i], &c0, sizeof c0);
        memcpy(&words[1][i], &c1, sizeof c1);
        memcpy(&words[2][i], &c2, sizeof c2);
        memcpy(&words[3][i], &c3, sizeof c3);
    }
    for (unsigned i = 0; i < AT_A_TIME; i++)
        for (unsigned word = 0; word < 4; word++) out[4 * i + word] = (uint32_t)words[word][i];
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
