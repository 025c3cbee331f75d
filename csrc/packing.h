/* Matrices packed for products: panels of a few rows or columns, in the very order in which a tile reads them. */
#ifndef PACKING_H
#define PACKING_H

#include <string.h>

#include "tile.h"

enum {
    PACK_BLOCK = 64,  /* so many k of a panel are packed while they stay in the cache */
    BAND_ROWS = 32,   /* where rows are packed: so many, */
    BAND_PANELS = 16, /* over so many panels, are a part */
};

/* One matrix on its way into panels: element i of step k lies at from[i step + k k_step]. */
typedef struct {
    real *to;
    const real *from;
    ptrdiff_t step, k_step;
    size_t count, depth; /* how many i and k there are */
    size_t width;        /* of a panel; where `fill` is set the last one is filled up with zeros, else narrower */
    bool fill, pairs;    /* pairs: two k become one number, a pair of bfloat16; `depth` counts floats all the same */
} packing;

/* to[k][i] = from[i step + k] for i < 4. */
INLINE void pack_four(real *to, size_t width, const real *from, ptrdiff_t step, size_t depth) {
    size_t k = 0;
    for (; k + 4 <= depth; k += 4) {
        if (k * sizeof(real) % 64 == 0) /* the next four i begin elsewhere in memory: ask for them early */
            for (ptrdiff_t j = 4; j < 8; j++) __builtin_prefetch(from + j * step + k);
        transpose_4x4(to + k * width, width, from + k, step);
    }
    for (; k < depth; k++)
        for (ptrdiff_t j = 0; j < 4; j++) to[k * width + (size_t)j] = from[j * step + (ptrdiff_t)k];
}

/* What is packed of `depth` k: so many numbers deep. */
static size_t packed_depth(size_t depth, bool pairs) { return pairs ? parts(depth, 2) : depth; }

static size_t panels_of(const packing *x) { return parts(x->count, x->width); }

/* to[i] = from[i] for i < n, and 0 for n <= i < row. */
INLINE void copy_row(real *to, const real *from, size_t n, size_t row) {
    if (n == TILE_COLUMNS) {
        for (int v = 0; v < TILE_VECS; v++) vec_store(to + v * LANES, vec_load(from + v * LANES));
        return;
    }
    enum { HALF = LANES / 2 };
    size_t i = 0;
    if (n >= HALF && n <= LANES) { /* a panel of a: two halves, which may overlap */
        memcpy(to, from, HALF * sizeof(real));
        memcpy(to + n - HALF, from + n - HALF, HALF * sizeof(real));
        i = n;
    } else if (n >= LANES && n <= 2 * LANES) {
        vec_store(to, vec_load(from));
        vec_store(to + n - LANES, vec_load(from + n - LANES));
        i = n;
    }
    for (; i < row; i++) to[i] = i < n ? from[i] : 0;
}

/* The same, in pairs of two rows; without the second one the upper halves are 0. */
INLINE void copy_row_pair(real *to, const real *low, const real *high, size_t n, size_t row) {
    for (size_t i = 0; i < row; i += LANES) {
        size_t there = i < n ? n - i : 0, stored = smaller(row - i, LANES);
        vec a = there >= LANES ? vec_load(low + i) : vec_load_first(low + i, there, 0), b = vec_zero();
        if (high) b = there >= LANES ? vec_load(high + i) : vec_load_first(high + i, there, 0);
        if (stored == LANES)
            vec_store(to + i, vec_pair(a, b));
        else
            vec_store_first(to + i, vec_pair(a, b), stored);
    }
}

/* Where the i lie side by side: whole rows of k, as memory has them, over many panels. */
static void pack_rows(const packing *x, size_t k_from, size_t k_to, size_t panel_from, size_t panel_to) {
    size_t together = x->pairs ? 2 : 1, deep = packed_depth(x->depth, x->pairs);
    for (size_t k = k_from; k < k_to; k += together)
        for (size_t panel = panel_from; panel < panel_to; panel++) {
            size_t first = panel * x->width, n = smaller(x->width, x->count - first), row = x->fill ? x->width : n;
            const real *from = x->from + (ptrdiff_t)k * x->k_step + first;
            real *to = x->to + first * deep + k / together * row;
            if (x->pairs)
                copy_row_pair(to, from, k + 1 < k_to ? from + x->k_step : NULL, n, row);
            else
                copy_row(to, from, n, row);
        }
}

/* Four i, of which `depth` k lie side by side, step by step apart, into columns of a panel, as pairs. */
static void pack_four_pairs(real *to, size_t width, const real *from, ptrdiff_t step, size_t depth) {
    real pairs[4][PACK_BLOCK / 2 + LANES];
    for (ptrdiff_t i = 0; i < 4; i++)
        for (size_t k = 0; k < depth; k += 2 * LANES) {
            const real *row = from + i * step + k;
            size_t n = depth - k;
            vec a = n >= LANES ? vec_load(row) : vec_load_first(row, n, 0), b = vec_zero();
            if (n >= 2 * LANES)
                b = vec_load(row + LANES);
            else if (n > LANES)
                b = vec_load_first(row + LANES, n - LANES, 0);
            vec_store(pairs[i] + k / 2, vec_pair_neighbours(a, b));
        }
    pack_four(to, width, pairs[0], PACK_BLOCK / 2 + LANES, parts(depth, 2));
}

/* One element of a panel, or one pair of them. */
static real packed_element(const packing *x, size_t i, size_t k) {
    const real *from = x->from + (ptrdiff_t)i * x->step;
    if (!x->pairs) return from[(ptrdiff_t)k * x->k_step];
    real both[2] = {from[2 * (ptrdiff_t)k * x->k_step], 2 * k + 1 < x->depth ? from[(2 * (ptrdiff_t)k + 1) * x->k_step] : 0};
    return vec_pair_neighbours(vec_load_first(both, 2, 0), vec_zero())[0];
}

/* Where they do not: one panel, squares of 4 x 4 transposed in registers where the k lie side by side. */
static void pack_panel(const packing *x, size_t panel) {
    size_t first = panel * x->width, n = smaller(x->width, x->count - first), row = x->fill ? x->width : n;
    size_t deep = packed_depth(x->depth, x->pairs), packed = 0;
    real *to = x->to + first * deep;
    if (x->k_step == 1 && n >= 4) {
        for (size_t k = 0; k < x->depth; k += PACK_BLOCK)
            for (size_t i = 0; i < n; i += 4) { /* four i at a time, the last four perhaps over again */
                size_t at = smaller(i, n - 4), depth = smaller(x->depth - k, PACK_BLOCK);
                const real *from = x->from + (ptrdiff_t)(first + at) * x->step + k;
                if (x->pairs)
                    pack_four_pairs(to + k / 2 * row + at, row, from, x->step, depth);
                else
                    pack_four(to + k * row + at, row, from, x->step, depth);
            }
        packed = n;
    }
    for (size_t i = packed; i < row; i++)
        for (size_t k = 0; k < deep; k++) to[k * row + i] = i < n ? packed_element(x, first + i, k) : 0;
}

/* The parts that a matrix is packed in, each a task: bands of rows, or panels. */
static size_t pack_parts(const packing *x) {
    return x->step == 1 ? parts(x->depth, BAND_ROWS) * parts(panels_of(x), BAND_PANELS) : panels_of(x);
}

static void pack_part(const packing *x, size_t index) {
    if (x->step != 1) {
        pack_panel(x, index);
        return;
    }
    size_t bands = parts(x->depth, BAND_ROWS), k = index % bands * BAND_ROWS, panel = index / bands * BAND_PANELS;
    pack_rows(x, k, smaller(k + BAND_ROWS, x->depth), panel, smaller(panel + BAND_PANELS, panels_of(x)));
}

#endif
