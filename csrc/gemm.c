/* c = a b: the product of matrices, blocked for the caches and tiled for the registers.
 *
 * The plan is Goto's (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"):
 *
 *   1. K is cut into blocks of at most K_BLOCK, the same cut for every M, N and number of threads.
 *   2. For each block, a and b are packed: copied into panels of at most TILE_ROWS rows of a and TILE_COLUMNS columns
 *      of b, in the very order in which step 3 reads them. Any strides, hence any transposes, end here.
 *   3. A tile of c, TILE_ROWS x TILE_COLUMNS, stays in registers while k runs over the block: each step
 *      loads one row of b's panel and multiplies it by each of a's TILE_ROWS numbers.
 *
 * So every element of c is the sum over the blocks, in order, of sums over k, in order: the same bits
 * whatever M, N, the tile it falls into, the batch and the threads.
 */
#include "kernels.h"
#include "special.h"
#include "tile.h"

#include <stdatomic.h>

enum {
    K_BLOCK = 384 * 4 / sizeof(real), /* the best of 192 to 512 on most shapes, though a panel of b fills 48 KB */
    SUPER = 4096,                     /* rows of a, and columns of b, packed at a time: bounds the workspace */
    PACK_BLOCK = 64,                  /* so many k of a panel are packed while they stay in the cache */
    BAND_ROWS = 32,                   /* where rows are packed: so many, */
    BAND_PANELS = 16,                 /* over so many panels, are a task */
    PANELS_PER_TASK = 8,              /* panels of a that meet each panel of b while it is in the cache */
    PANELS_BESIDE_KEPT = 16, /* at most so many where b was packed before, and each task packs a itself */
    PANELS_IN_ONE = 10,               /* up to so many are one task, which then packs b's panels itself */
    FEW_ROWS = 2 * TILE_ROWS,         /* up to here b is read too few times to be packed, if it need not be */
};

/* Multiply-adds from which another thread brings more than its waking costs: two threads took 1.06 times as long
 * as one for 2^18 and 0.7 times as long for 2^21. */
static const double WORTH_SHARING = 1 << 20;

/* One matrix on its way into panels: element i of step k lies at from[i step + k k_step]. */
typedef struct {
    real *to;
    const real *from;
    ptrdiff_t step, k_step;
    size_t count, depth; /* how many i and k there are */
    size_t width;        /* of a panel; where `fill` is set the last one is filled up with zeros, else narrower */
    bool fill, pairs;    /* pairs: two k become one number, a pair of bfloat16; `depth` counts floats all the same */
} packing;

/* One product of the batch, and one of its blocks. */
typedef struct {
    const minilm_product *p;
    const real *a, *b;
    real *c;
    size_t row, rows, column, columns, k, depth; /* the block: where it begins, and how large it is */
    size_t panel_rows;                           /* in each panel of a but the last: at most TILE_ROWS */
    bool add, pairs;                             /* to what is in c already; in pairs of bfloat16 */
    real *a_space, *b_space;                     /* for the panels; b_space NULL: each panel where it is used */
    const real *b_panels;                        /* these of b: b_space, or what was packed before; NULL as b_space */
    packing pack_a, pack_b;
    size_t row_chunks, column_chunks;            /* every pair of them is a task */
} block;

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
    size_t i = 0;
    for (; i + 4 <= n; i += 4) memcpy(to + i, from + i, 4 * sizeof(real));
    if (i < n && n >= 4) memcpy(to + n - 4, from + n - 4, 4 * sizeof(real)); /* the last four over again */
    for (i = n < 4 ? 0 : n; i < row; i++) to[i] = i < n ? from[i] : 0;
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
    if (!x->to) return 0;
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

#if HAS_PAIRS
static void pair_tile_of(size_t rows, size_t columns, size_t depth, const real *a, const real *b, real *c,
                         ptrdiff_t c_row, bool add) {
#define CASE(n)                                                                                           \
    case n:                                                                                               \
        tile(n, TILE_VECS, true, columns, depth, a, 1, (ptrdiff_t)n, b, TILE_COLUMNS, c, c_row, add); \
        break;
    switch (rows) { EACH_ROWS(CASE) }
#undef CASE
}
#endif

/* What is done to a part of the product, still in the cache, when its sums are complete: bias, residual, GELU. */
static void finish(const minilm_product *p, size_t row, size_t rows, size_t column, size_t columns, real *c) {
    const real *bias = p->bias, *residual = p->residual;
    real *before = p->before;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j += LANES) {
            real *to = c + (ptrdiff_t)i * p->c_row + (ptrdiff_t)j;
            size_t n = smaller(columns - j, LANES);
            vec z = n == LANES ? vec_load(to) : vec_load_first(to, n, 0);
#define PLUS(from) z += n == LANES ? vec_load(from) : vec_load_first(from, n, 0)
            if (bias) PLUS(bias + column + j);
            if (residual) PLUS(residual + (ptrdiff_t)(row + i) * p->residual_row + (ptrdiff_t)(column + j));
#undef PLUS
            if (p->gelu) {
                real *kept = before + (ptrdiff_t)(row + i) * p->before_row + (ptrdiff_t)(column + j);
                if (n == LANES)
                    vec_store(kept, z);
                else
                    vec_store_first(kept, z, n);
                z = p->gelu == MINILM_GELU_TANH ? vec_gelu(z, true) : vec_gelu(z, false);
            }
            if (n == LANES)
                vec_store(to, z);
            else
                vec_store_first(to, z, n);
        }
}

/* One row has too few sums to keep the multipliers busy: it takes the columns of several tiles at once. */
static void wide_tile(size_t depth, const real *a, const real *b, ptrdiff_t b_k, real *c, bool add) {
    tile(1, WIDE_VECS, false, WIDE_VECS * LANES, depth, a, 0, 1, b, b_k, c, 0, add);
}

/* The tiles of some panels of a with some panels of b. */
static void multiply_panels(const block *x, size_t a_from, size_t a_to, size_t b_from, size_t b_to) {
    const minilm_product *p = x->p;
    real packed[K_BLOCK * TILE_COLUMNS] __attribute__((aligned(64)));
    size_t deep = packed_depth(x->depth, x->pairs);
    bool last = x->k + x->depth >= p->k && (p->bias || p->residual || p->gelu);
    for (size_t j = b_from; j < b_to; j++) {
        size_t column = j * TILE_COLUMNS, columns = smaller(x->columns - column, TILE_COLUMNS);
        const real *b = x->b + (ptrdiff_t)x->k * p->b_k + (ptrdiff_t)(x->column + column) * p->b_column;
        ptrdiff_t b_k = p->b_k;
        if (x->b_panels) {
            b = x->b_panels + column * deep;
            b_k = TILE_COLUMNS;
        } else if (x->rows == 1 && !x->pairs && p->b_column == 1 && x->columns - column >= WIDE_VECS * LANES &&
                   b_to - j >= WIDE_VECS / TILE_VECS) {
            real *c = x->c + (ptrdiff_t)x->row * p->c_row + (ptrdiff_t)(x->column + column);
            wide_tile(x->depth, x->a_space, b, b_k, c, x->add);
            if (last) finish(p, x->row, 1, x->column + column, WIDE_VECS * LANES, c);
            j += WIDE_VECS / TILE_VECS - 1;
            continue;
        } else if (x->rows > FEW_ROWS || x->pairs || p->b_column != 1 || columns < TILE_COLUMNS) {
            packing one = {packed, b, p->b_column, b_k, columns, x->depth, TILE_COLUMNS, true, x->pairs};
            if (one.step == 1)
                pack_rows(&one, 0, x->depth, 0, 1);
            else
                pack_panel(&one, 0);
            b = packed;
            b_k = TILE_COLUMNS;
        }
        for (size_t i = a_from; i < a_to; i++) {
            size_t row = i * x->panel_rows, rows = smaller(x->rows - row, x->panel_rows);
            real *c = x->c + (ptrdiff_t)(x->row + row) * p->c_row + (ptrdiff_t)(x->column + column);
            const real *a = x->a_space + row * deep;
#if HAS_PAIRS
            if (x->pairs)
                pair_tile_of(rows, columns, deep, a, b, c, p->c_row, x->add);
            else
#endif
                tile_of(rows, columns, deep, a, (ptrdiff_t)rows, b, b_k, c, p->c_row, x->add);
            if (last) finish(p, x->row + row, rows, x->column + column, columns, c);
        }
    }
}

static void pack_task(void *context, size_t index) {
    const block *x = context;
    size_t a_parts = pack_parts(&x->pack_a);
    if (index < a_parts)
        pack_part(&x->pack_a, index);
    else
        pack_part(&x->pack_b, index - a_parts);
}

static void multiply_task(void *context, size_t index) {
    const block *x = context;
    size_t a_panels = parts(x->rows, x->panel_rows), b_panels = parts(x->columns, TILE_COLUMNS);
    size_t i = index / x->column_chunks, j = index % x->column_chunks;
    multiply_panels(x, a_panels * i / x->row_chunks, a_panels * (i + 1) / x->row_chunks,
                    b_panels * j / x->column_chunks, b_panels * (j + 1) / x->column_chunks);
}

/* One block, with the help of other threads or without. */
static void multiply_block(block *x, bool share) {
    size_t a_panels = parts(x->rows, x->panel_rows), b_panels = parts(x->columns, TILE_COLUMNS);
    x->pack_a = (packing){.to = x->a_space,
                          .from = x->a + (ptrdiff_t)x->row * x->p->a_row + (ptrdiff_t)x->k * x->p->a_k,
                          .step = x->p->a_row,
                          .k_step = x->p->a_k,
                          .count = x->rows,
                          .depth = x->depth,
                          .width = x->panel_rows,
                          .pairs = x->pairs};
    x->pack_b = (packing){.to = x->b_space,
                          .from = x->b + (ptrdiff_t)x->k * x->p->b_k + (ptrdiff_t)x->column * x->p->b_column,
                          .step = x->p->b_column,
                          .k_step = x->p->b_k,
                          .count = x->columns,
                          .depth = x->depth,
                          .width = TILE_COLUMNS,
                          .fill = true,
                          .pairs = x->pairs};
    size_t pack_tasks = pack_parts(&x->pack_a) + pack_parts(&x->pack_b);
    size_t wanted = share ? 4 * (size_t)minilm_get_num_threads() : 1; /* enough to even out a slow thread */
    x->row_chunks = x->b_space ? parts(a_panels, PANELS_PER_TASK) : 1;
    x->column_chunks = smaller(parts(wanted, x->row_chunks), b_panels);
    size_t tasks = x->row_chunks * x->column_chunks;
    if (share) {
        minilm_parallel(pack_tasks, pack_task, x);
        minilm_parallel(tasks, multiply_task, x);
        return;
    }
    for (size_t i = 0; i < pack_tasks; i++) pack_task(x, i);
    for (size_t i = 0; i < tasks; i++) multiply_task(x, i);
}

/* How deep the blocks of K are, but for the last. */
static size_t block_depth(size_t k, bool pairs) {
    size_t depth = k ? parts(k, parts(k, pairs ? 2 * K_BLOCK : K_BLOCK)) : 0;
    return pairs ? depth + depth % 2 : depth; /* no pair falls into two blocks */
}

static size_t panel_columns(size_t n) { return parts(n, TILE_COLUMNS) * TILE_COLUMNS; }

/* Where, in all panels of a matrix of K rows, those of a block begin: blocks of up to SUPER columns follow each other,
 * and in each of them those of K. */
static size_t panels_before(size_t all_k, size_t column, size_t columns, size_t k) {
    return column / SUPER * panel_columns(SUPER) * all_k + panel_columns(columns) * k;
}

size_t EXPORTED(gemm_panels)(size_t n, size_t k) {
    return n / SUPER * panel_columns(SUPER) * k + panel_columns(n % SUPER) * k;
}

void EXPORTED(gemm_pack)(size_t n, size_t k, const void *b, ptrdiff_t b_k, ptrdiff_t b_column, void *panels) {
    size_t depth = block_depth(k, false);
    for (size_t column = 0; column < n; column += SUPER)
        for (size_t from = 0; from < k; from += depth) {
            size_t columns = smaller(SUPER, n - column);
            packing x = {.to = (real *)panels + panels_before(k, column, columns, from),
                         .from = (const real *)b + (ptrdiff_t)from * b_k + (ptrdiff_t)column * b_column,
                         .step = b_column, .k_step = b_k, .count = columns, .depth = smaller(depth, k - from),
                         .width = TILE_COLUMNS, .fill = true};
            for (size_t i = 0; i < pack_parts(&x); i++) pack_part(&x, i);
        }
}

/* --- b packed before ---------------------------------------------------------------------------------- */

typedef struct {
    block x; /* of the whole product */
    atomic_int status;
} kept_product;

/* Some rows of the product times some columns, over all of K: nobody waits for what another packs. */
static void kept_task(void *context, size_t index) {
    kept_product *product = context;
    block x = product->x;
    const minilm_product *p = x.p;
    size_t depth = block_depth(p->k, false), i = index / x.column_chunks, j = index % x.column_chunks;
    size_t panels = parts(p->m, x.panel_rows), first = panels * i / x.row_chunks;
    size_t count = panels * (i + 1) / x.row_chunks - first;
    x.row = first * x.panel_rows;
    x.rows = smaller(count * x.panel_rows, p->m - x.row);
    x.a_space = minilm_workspace((1 + x.rows * depth) * sizeof(real));
    if (!x.a_space) {
        atomic_store(&product->status, MINILM_NO_MEMORY);
        return;
    }
    for (x.column = 0; x.column < p->n; x.column += SUPER) {
        x.columns = smaller(SUPER, p->n - x.column);
        size_t b_panels = parts(x.columns, TILE_COLUMNS);
        x.k = 0;
        do {
            x.depth = smaller(depth, p->k - x.k);
            x.add = p->accumulate || x.k > 0;
            x.b_panels = (const real *)p->b_panels + panels_before(p->k, x.column, x.columns, x.k);
            packing a = {.to = x.a_space, .from = x.a + (ptrdiff_t)x.row * p->a_row + (ptrdiff_t)x.k * p->a_k,
                         .step = p->a_row, .k_step = p->a_k, .count = x.rows, .depth = x.depth, .width = x.panel_rows};
            for (size_t part = 0; part < pack_parts(&a); part++) pack_part(&a, part);
            multiply_panels(&x, 0, count, b_panels * j / x.column_chunks, b_panels * (j + 1) / x.column_chunks);
        } while ((x.k += depth) < p->k);
    }
}

static int multiply_kept(const minilm_product *p, const real *a, real *c, bool share) {
    kept_product product = {.x = {.p = p, .a = a, .c = c, .panel_rows = parts(p->m, parts(p->m, TILE_ROWS))}};
    block *x = &product.x;
    size_t a_panels = parts(p->m, x->panel_rows), wanted = share ? 4 * (size_t)minilm_get_num_threads() : 1;
    x->row_chunks = smaller(wanted, a_panels);
    if (x->row_chunks < parts(a_panels, PANELS_BESIDE_KEPT)) x->row_chunks = parts(a_panels, PANELS_BESIDE_KEPT);
    x->column_chunks = smaller(parts(wanted, x->row_chunks), parts(smaller(p->n, SUPER), TILE_COLUMNS));
    size_t tasks = x->row_chunks * x->column_chunks;
    if (share)
        minilm_parallel(tasks, kept_task, &product);
    else
        for (size_t i = 0; i < tasks; i++) kept_task(&product, i);
    return atomic_load(&product.status);
}

/* One product of the batch. Where K is 0 there is one block of depth 0: its sums are 0. */
static int multiply(const minilm_product *p, const real *a, const real *b, real *c, bool share) {
    bool pairs = HAS_PAIRS && p->bfloat16;
    size_t depth = block_depth(p->k, pairs);
    size_t rows = smaller(p->m, SUPER), columns = smaller(p->n, SUPER), deep = packed_depth(depth, pairs);
    size_t a_size = rows * deep, b_size = parts(columns, TILE_COLUMNS) * TILE_COLUMNS * deep;
    if (p->b_panels && !pairs) return multiply_kept(p, a, c, share);
    bool pack_b = p->m > PANELS_IN_ONE * TILE_ROWS; /* else only one task reads each panel */
    /* whole cache lines for a, so that b's panels begin at one; SUPER and K_BLOCK bound both: nothing here wraps */
    size_t line = 64 / sizeof(real);
    a_size = parts(a_size, line) * line;
    real *workspace = minilm_workspace((1 + a_size + (pack_b ? b_size : 0)) * sizeof(real));
    if (!workspace) return MINILM_NO_MEMORY;

    block x = {.p = p, .a = a, .b = b, .c = c, .pairs = pairs, .a_space = workspace};
    x.b_panels = x.b_space = pack_b ? workspace + a_size : NULL;
    for (x.column = 0; x.column < p->n; x.column += SUPER)
        for (x.row = 0; x.row < p->m; x.row += SUPER) {
            x.columns = smaller(SUPER, p->n - x.column);
            x.rows = smaller(SUPER, p->m - x.row);
            x.panel_rows = parts(x.rows, parts(x.rows, TILE_ROWS)); /* 128 rows: 9 x 13 + 11, not 9 x 14 + 2 */
            x.k = 0;
            do {
                x.depth = smaller(depth, p->k - x.k);
                x.add = p->accumulate || x.k > 0;
                multiply_block(&x, share);
            } while ((x.k += depth) < p->k);
        }
    return MINILM_OK;
}

/* --- the batch --------------------------------------------------------------------------------------- */

typedef struct {
    const minilm_product *p;
    const real *a, *b;
    real *c;
    size_t products, tasks;
    atomic_int status;
} batch;

static int multiply_one(const batch *x, size_t index, bool share) {
    const minilm_product *p = x->p;
    ptrdiff_t a = 0, b = 0, c = 0;
    for (int axis = p->axes - 1; axis >= 0; axis--) {
        ptrdiff_t i = (ptrdiff_t)(index % p->shape[axis]);
        index /= p->shape[axis];
        a += i * p->a_axis[axis];
        b += i * p->b_axis[axis];
        c += i * p->c_axis[axis];
    }
    return multiply(p, x->a + a, x->b + b, x->c + c, share);
}

static void batch_task(void *context, size_t index) {
    batch *x = context;
    size_t from = index * (x->products / x->tasks) + smaller(index, x->products % x->tasks);
    size_t count = x->products / x->tasks + (index < x->products % x->tasks);
    for (size_t i = from; i < from + count; i++) {
        int status = multiply_one(x, i, false);
        if (status) atomic_store(&x->status, status);
    }
}

/* Axes of the batch along which b stays the same are more rows of a, if they lie where rows would:
 * (B, T, K) times (K, N) is (B T, K) times (K, N). */
static void fold_axes_into_rows(minilm_product *p) {
    while (p->axes) {
        int last = p->axes - 1;
        bool rows_go_on = p->a_axis[last] == (ptrdiff_t)p->m * p->a_row && p->c_axis[last] == (ptrdiff_t)p->m * p->c_row;
        if (p->shape[last] != 1 && (p->b_axis[last] != 0 || !rows_go_on)) return;
        p->m *= p->shape[last];
        p->axes = last;
    }
}

int EXPORTED(gemm)(const minilm_product *given, const void *a, const void *b, void *c) {
    minilm_product p = *given;
    batch x = {.p = &p, .a = a, .b = b, .c = c, .products = 1};
    if (p.m == 0 || p.n == 0) return MINILM_OK;
    fold_axes_into_rows(&p);
    for (int axis = 0; axis < p.axes; axis++) x.products *= p.shape[axis];
    if (x.products == 0 || p.m == 0) return MINILM_OK;

    double one = (double)p.m * (double)p.n * (double)p.k;
    size_t threads = (size_t)minilm_get_num_threads();
    bool share = threads > 1 && one * (double)x.products >= WORTH_SHARING;
    if (share && x.products >= threads && one < 16 * WORTH_SHARING) {
        x.tasks = smaller(x.products, 8 * threads);
        minilm_parallel(x.tasks, batch_task, &x);
        return atomic_load(&x.status);
    }
    for (size_t i = 0; i < x.products; i++) {
        int status = multiply_one(&x, i, share);
        if (status) return status;
    }
    return MINILM_OK;
}
