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
#include "minilm.h"
#include "simd.h"

#include <stdatomic.h>

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

enum {
    K_BLOCK = 384 * 4 / sizeof(real), /* two panels of this length share the first-level cache */
    SUPER = 4096,                     /* rows of a, and columns of b, packed at a time: bounds the workspace */
    PACK_BLOCK = 64,                  /* so many k of a panel are packed while they stay in the cache */
    PANELS_PER_TASK = 4,              /* panels of a that meet each panel of b while it is in the cache */
    FEW_ROWS = 2 * TILE_ROWS,         /* up to here b is read too few times to be packed beforehand */
};

/* Multiply-adds from which another thread brings more than its waking costs: two threads took 1.06 times as long
 * as one for 2^18 and 0.7 times as long for 2^21. */
static const double WORTH_SHARING = 1 << 20;

/* One product of the batch, and one of its blocks. */
typedef struct {
    const minilm_product *p;
    const real *a, *b;
    real *c;
    size_t row, rows, column, columns, k, depth; /* the block: where it begins, and how large it is */
    size_t panel_rows;                           /* in each panel of a but the last: at most TILE_ROWS */
    bool add;                                    /* to what is in c already */
    real *a_panels, *b_panels;                   /* packed; b_panels NULL: each where it is used */
    size_t row_chunks, column_chunks;            /* every pair of them is a task */
} block;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }
static size_t parts(size_t whole, size_t part) { return (whole + part - 1) / part; }

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

/* to[k][i] = from[i step + k k_step] for i < count, 0 for count <= i < width: one panel. */
INLINE void pack_panel(real *to, const real *from, size_t width, size_t count, size_t depth, ptrdiff_t step,
                       ptrdiff_t k_step) {
    size_t packed = 0;
    if (step == 1 && count >= 4) { /* four i at a time, the last four perhaps over again */
        for (size_t k = 0; k < depth; k++)
            for (size_t i = 0; i < count; i += 4) {
                size_t first = smaller(i, count - 4);
                memcpy(to + k * width + first, from + (ptrdiff_t)k * k_step + first, 4 * sizeof(real));
            }
        packed = count;
    } else if (k_step == 1 && count >= 4) { /* likewise, squares of 4 x 4 transposed in registers */
        for (size_t k = 0; k < depth; k += PACK_BLOCK)
            for (size_t i = 0; i < count; i += 4) {
                size_t first = smaller(i, count - 4);
                pack_four(to + k * width + first, width, from + (ptrdiff_t)first * step + k, step,
                          smaller(depth - k, PACK_BLOCK));
            }
        packed = count;
    }
    for (size_t i = packed; i < width; i++)
        for (size_t k = 0; k < depth; k++)
            to[k * width + i] = i < count ? from[(ptrdiff_t)i * step + (ptrdiff_t)k * k_step] : 0;
}

/* A panel of a is as wide as it has rows: there is nothing to fill up. */
static void pack_a_panel(const block *x, size_t panel) {
    size_t row = panel * x->panel_rows, rows = smaller(x->rows - row, x->panel_rows);
    const real *from = x->a + (ptrdiff_t)(x->row + row) * x->p->a_row + (ptrdiff_t)x->k * x->p->a_k;
    pack_panel(x->a_panels + row * x->depth, from, rows, rows, x->depth, x->p->a_row, x->p->a_k);
}

static void pack_b_panel(const block *x, size_t panel) {
    size_t column = panel * TILE_COLUMNS;
    const real *from = x->b + (ptrdiff_t)x->k * x->p->b_k + (ptrdiff_t)(x->column + column) * x->p->b_column;
    pack_panel(x->b_panels + column * x->depth, from, TILE_COLUMNS, smaller(x->columns - column, TILE_COLUMNS),
               x->depth, x->p->b_column, x->p->b_k);
}

/* c (rows, columns) = or += a's panel (depth, rows) transposed times b (depth, vecs LANES), whose rows are
 * b_k apart. `rows` and `vecs` are constants wherever this is called, so that the sums stay in registers. */
INLINE void tile(int rows, int vecs, size_t columns, size_t depth, const real *a, const real *b, ptrdiff_t b_k,
                 real *c, ptrdiff_t c_row, bool add) {
    vec sum[TILE_ROWS][WIDE_VECS];
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 12
        for (int v = 0; v < vecs; v++) sum[i][v] = vec_zero();

    for (size_t k = 0; k < depth; k++, a += rows, b += b_k) {
        vec b_row[WIDE_VECS];
#pragma GCC unroll 12
        for (int v = 0; v < vecs; v++) b_row[v] = vec_load(b + v * LANES);
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) {
            vec a_i = vec_all(a[i]);
#pragma GCC unroll 12
            for (int v = 0; v < vecs; v++) sum[i][v] = vec_fma(a_i, b_row[v], sum[i][v]);
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

static void tile_of(size_t rows, size_t columns, size_t depth, const real *a, const real *b, ptrdiff_t b_k, real *c,
                    ptrdiff_t c_row, bool add) {
#define ROWS(n)                                                       \
    case n:                                                           \
        tile(n, TILE_VECS, columns, depth, a, b, b_k, c, c_row, add); \
        break;
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6)
#if TILE_ROWS >= 8
        ROWS(7) ROWS(8)
#endif
#if TILE_ROWS >= 14
        ROWS(9) ROWS(10) ROWS(11) ROWS(12) ROWS(13) ROWS(14)
#endif
    }
#undef ROWS
}

/* One row has too few sums to keep the multipliers busy: it takes the columns of several tiles at once. */
static void wide_tile(size_t depth, const real *a, const real *b, ptrdiff_t b_k, real *c, bool add) {
    tile(1, WIDE_VECS, WIDE_VECS * LANES, depth, a, b, b_k, c, 0, add);
}

/* The tiles of some panels of a with some panels of b. */
static void multiply_panels(const block *x, size_t a_from, size_t a_to, size_t b_from, size_t b_to) {
    const minilm_product *p = x->p;
    real packed[K_BLOCK * TILE_COLUMNS] __attribute__((aligned(64)));
    for (size_t j = b_from; j < b_to; j++) {
        size_t column = j * TILE_COLUMNS, columns = smaller(x->columns - column, TILE_COLUMNS);
        const real *b = x->b + (ptrdiff_t)x->k * p->b_k + (ptrdiff_t)(x->column + column) * p->b_column;
        ptrdiff_t b_k = p->b_k;
        if (x->b_panels) {
            b = x->b_panels + column * x->depth;
            b_k = TILE_COLUMNS;
        } else if (x->rows == 1 && p->b_column == 1 && x->columns - column >= WIDE_VECS * LANES &&
                   b_to - j >= WIDE_VECS / TILE_VECS) {
            wide_tile(x->depth, x->a_panels, b, b_k, x->c + (ptrdiff_t)x->row * p->c_row + x->column + column, x->add);
            j += WIDE_VECS / TILE_VECS - 1;
            continue;
        } else if (p->b_column != 1 || columns < TILE_COLUMNS) {
            pack_panel(packed, b, TILE_COLUMNS, columns, x->depth, p->b_column, b_k);
            b = packed;
            b_k = TILE_COLUMNS;
        }
        for (size_t i = a_from; i < a_to; i++) {
            size_t row = i * x->panel_rows, rows = smaller(x->rows - row, x->panel_rows);
            real *c = x->c + (ptrdiff_t)(x->row + row) * p->c_row + (ptrdiff_t)(x->column + column);
            tile_of(rows, columns, x->depth, x->a_panels + row * x->depth, b, b_k, c, p->c_row, x->add);
        }
    }
}

static void pack_task(void *context, size_t index) {
    const block *x = context;
    size_t a_panels = parts(x->rows, x->panel_rows), b_panels = x->b_panels ? parts(x->columns, TILE_COLUMNS) : 0;
    for (size_t i = index * PANELS_PER_TASK; i < (index + 1) * PANELS_PER_TASK; i++) {
        if (i < a_panels)
            pack_a_panel(x, i);
        else if (i < a_panels + b_panels)
            pack_b_panel(x, i - a_panels);
    }
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
    size_t pack_tasks = parts(a_panels + (x->b_panels ? b_panels : 0), PANELS_PER_TASK);
    size_t wanted = share ? 4 * (size_t)minilm_get_num_threads() : 1; /* enough to even out a slow thread */
    x->row_chunks = parts(a_panels, PANELS_PER_TASK);
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

/* One product of the batch. Where K is 0 there is one block of depth 0: its sums are 0. */
static int multiply(const minilm_product *p, const real *a, const real *b, real *c, bool share) {
    size_t depth = p->k ? parts(p->k, parts(p->k, K_BLOCK)) : 0;
    size_t rows = smaller(p->m, SUPER), columns = smaller(p->n, SUPER);
    size_t a_size = rows * depth, b_size = parts(columns, TILE_COLUMNS) * TILE_COLUMNS * depth;
    bool pack_b = p->m > FEW_ROWS;
    /* whole cache lines for a, so that b's panels begin at one; SUPER and K_BLOCK bound both: nothing here wraps */
    size_t line = 64 / sizeof(real);
    a_size = parts(a_size, line) * line;
    real *workspace = minilm_workspace((1 + a_size + (pack_b ? b_size : 0)) * sizeof(real));
    if (!workspace) return MINILM_NO_MEMORY;

    block x = {.p = p, .a = a, .b = b, .c = c, .a_panels = workspace, .b_panels = pack_b ? workspace + a_size : NULL};
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

int EXPORTED(gemm)(const minilm_product *given, const real *a, const real *b, real *c) {
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
