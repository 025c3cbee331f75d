/* The heart of every product: a tile of the result that stays in registers while the sums grow. */
#ifndef TILE_H
#define TILE_H

#include <stdbool.h>

#include "simd.h"

/* The tile: as many accumulators as there are registers, less those for a row of b and a number of a. */
#if VEC_REGISTERS == 32 && VEC_BYTES == 64
#define TILE_ROWS 14
#define TILE_VECS 2
#elif VEC_REGISTERS == 32
#define TILE_ROWS 8
#define TILE_VECS 3
#else
#define TILE_ROWS 6
#define TILE_VECS 2
#endif
#define TILE_COLUMNS (TILE_VECS * LANES)
#define WIDE_VECS (4 * TILE_VECS)

/* Attention takes so many keys at a time: a tile of scores is 7 KB, and stays in the first-level cache with what it meets. */
enum { ATTENTION_KEYS = 4 * TILE_ROWS };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t parts(size_t whole, size_t part) { return (whole + part - 1) / part; }

/* c (rows, columns) = or += a (rows, depth) times b (depth, columns): element (i, k) of a lies at a[i a_row + k a_k],
 * row k of b at b + k b_k, where all vecs LANES numbers can be read. `rows` and `vecs` are constants wherever this is
 * called, so that the sums stay in registers. With `pairs` each number of a and b is in truth two of bfloat16, those of
 * two k (see simd.h), and `depth` counts pairs. */
INLINE void tile(int rows, int vecs, bool pairs, size_t columns, size_t depth, const real *a, ptrdiff_t a_row,
                 ptrdiff_t a_k, const real *b, ptrdiff_t b_k, real *c, ptrdiff_t c_row, bool add) {
    vec sum[TILE_ROWS][WIDE_VECS];
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 12
        for (int v = 0; v < vecs; v++) sum[i][v] = vec_zero();

    if (add) /* else all sums wait for what they are added to when they are complete */
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < vecs * LANES; j += 64 / (int)sizeof(real)) __builtin_prefetch(c + i * c_row + j, 1);

    for (size_t k = 0; k < depth; k++, a += a_k, b += b_k) {
        vec b_row[WIDE_VECS];
#pragma GCC unroll 12
        for (int v = 0; v < vecs; v++) b_row[v] = vec_load(b + v * LANES);
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) {
            vec a_i = vec_all(a[i * a_row]);
#pragma GCC unroll 12
            for (int v = 0; v < vecs; v++)
                sum[i][v] = pairs ? vec_fma_pairs(a_i, b_row[v], sum[i][v]) : vec_fma(a_i, b_row[v], sum[i][v]);
        }
    }

#pragma GCC unroll 14
    for (int i = 0; i < rows; i++, c += c_row) {
#pragma GCC unroll 12
        for (int v = 0; v < vecs; v++) {
            real *to = c + v * LANES;
            size_t left = columns > (size_t)(v * LANES) ? columns - (size_t)(v * LANES) : 0;
            if (left >= LANES)
                vec_store(to, add ? vec_load(to) + sum[i][v] : sum[i][v]);
            else if (left)
                vec_store_first(to, add ? vec_load_first(to, left, 0) + sum[i][v] : sum[i][v], left);
        }
    }
}

#define ROWS_UP_TO_6(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE_ROWS == 14
#define EACH_ROWS(CASE) \
    ROWS_UP_TO_6(CASE) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#elif TILE_ROWS == 8
#define EACH_ROWS(CASE) ROWS_UP_TO_6(CASE) CASE(7) CASE(8)
#else
#define EACH_ROWS(CASE) ROWS_UP_TO_6(CASE)
#endif

/* tile() for up to TILE_ROWS rows and TILE_COLUMNS columns, where the rows of a lie side by side for each k. Up to
 * LANES columns take one vector: of 65 columns the last one costs as much as 16, not as 32. */
__attribute__((unused)) static void tile_of(size_t rows, size_t columns, size_t depth, const real *a, ptrdiff_t a_k, const real *b,
                    ptrdiff_t b_k, real *c, ptrdiff_t c_row, bool add) {
#define CASE(n)                                                                          \
    case n:                                                                              \
        if (columns <= LANES)                                                            \
            tile(n, 1, false, columns, depth, a, 1, a_k, b, b_k, c, c_row, add);         \
        else                                                                             \
            tile(n, TILE_VECS, false, columns, depth, a, 1, a_k, b, b_k, c, c_row, add); \
        break;
    switch (rows) { EACH_ROWS(CASE) }
#undef CASE
}

#endif
