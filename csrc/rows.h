/* Walks along rows; rows shared among threads; and sums over rows.
 *
 * A row is summed in an order that depends on its length alone: lane l of two vectors in turn adds the elements l,
 * l + LANES, l + 2 LANES ..., and the lanes are added by halves. A row is never shared among threads.
 */
#ifndef ROWS_H
#define ROWS_H

#include "kernels.h"

/* Do what is written for each vector of a row: from element j on, n elements, LANES but for the last vector; k is 0
 * and 1 in turn, so that sums kept in sum[k] need not wait for each other. */
#define EACH_VECTOR(columns, ...)                 \
    {                                             \
        size_t j = 0;                             \
        {                                         \
            const size_t n = LANES;               \
            for (; j + 2 * LANES <= (columns);) { \
                {                                 \
                    enum { k = 0 };               \
                    __VA_ARGS__                   \
                }                                 \
                j += LANES;                       \
                {                                 \
                    enum { k = 1 };               \
                    __VA_ARGS__                   \
                }                                 \
                j += LANES;                       \
            }                                     \
            if (j + LANES <= (columns)) {         \
                enum { k = 0 };                   \
                __VA_ARGS__                       \
                j += LANES;                       \
            }                                     \
        }                                         \
        const size_t n = (columns) - j;           \
        if (n) {                                  \
            enum { k = 1 };                       \
            __VA_ARGS__                           \
        }                                         \
    }

/* The vector at p, of which n lanes count; the others hold `rest`. */
INLINE vec load_lanes(const real *p, size_t n, real rest) {
    return n == LANES ? vec_load(p) : vec_load_first(p, n, rest);
}

INLINE void store_lanes(real *p, vec v, size_t n) {
    if (n == LANES)
        vec_store(p, v);
    else
        vec_store_first(p, v, n);
}

/* --- rows shared among threads ----------------------------------------------------------------------- */

enum {
    WORTH_SHARING = 1 << 15,     /* elements from which another thread brings more than its waking costs */
    ELEMENTS_PER_TASK = 1 << 13, /* about: a task is whole rows */
};

/* Computes the rows from ... to - 1 of some work. */
typedef void some_rows(const void *work, size_t from, size_t to);

typedef struct {
    some_rows *compute;
    const void *work;
    size_t rows, rows_per_task;
} shared_rows;

static void shared_task(void *context, size_t task) {
    const shared_rows *s = context;
    size_t from = task * s->rows_per_task, left = s->rows - from;
    s->compute(s->work, from, from + (left < s->rows_per_task ? left : s->rows_per_task));
}

/* Compute all rows, so many a task; 0: as many as make a task of ordinary size. */
static inline void share_rows(size_t rows, size_t columns, size_t rows_per_task, some_rows *compute, const void *work) {
    if (rows == 0 || columns == 0) return;
    if (!rows_per_task)
        rows_per_task = rows > WORTH_SHARING / columns ? (ELEMENTS_PER_TASK + columns - 1) / columns : rows;
    shared_rows s = {compute, work, rows, rows_per_task};
    minilm_parallel((rows + rows_per_task - 1) / rows_per_task, shared_task, &s);
}

/* --- sums over rows ---------------------------------------------------------------------------------- */

/* Rows are added in blocks, one row after the other, and the blocks' sums by a tree: block i + 1 is added to block i
 * for even i, then block i + 2 to block i for every fourth, and so on. Neither depends on the threads. */
static inline size_t rows_per_block(size_t rows) { return rows > 64 * 256 ? (rows + 255) / 256 : 64; }

typedef struct {
    size_t blocks, columns;
    real *partials; /* (blocks, columns) */
    real *sum;      /* (columns) */
} block_sums;

static void add_some_columns(const void *work, size_t from, size_t to) {
    const block_sums *s = work;
    for (size_t step = 1; step < s->blocks; step *= 2)
        for (size_t i = 0; i + step < s->blocks; i += 2 * step) {
            real *to_row = s->partials + i * s->columns + from, *from_row = to_row + step * s->columns;
            EACH_VECTOR(to - from, {
                store_lanes(to_row + j, load_lanes(to_row + j, n, 0) + load_lanes(from_row + j, n, 0), n);
            })
        }
    memcpy(s->sum + from, s->partials + from, (to - from) * sizeof(real));
}

/* sum = the sum of the blocks' sums, which are overwritten. */
static inline void add_blocks(size_t blocks, size_t columns, real *partials, real *sum) {
    block_sums s = {blocks, columns, partials, sum};
    if (blocks == 0)
        memset(sum, 0, columns * sizeof(real));
    else
        share_rows(columns, blocks, 0, add_some_columns, &s);
}

#endif
