/* c = a b: the product of matrices, blocked for the caches and tiled for the registers.
 *
 * The plan is Goto's (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"):
 *
 *   1. K is cut into blocks of at most K_BLOCK, the same cut for every M, N and number of threads.
 *   2. For each block, a and b are packed: copied into panels of at most TILE_ROWS rows of a and TILE_COLUMNS columns
 *      of b, in the very order in which step 3 reads them. Any strides, hence any transposes, end here. All threads
 *      pack the matrix that is met more often, b unless there are few rows, as many blocks as fit into GROUP. Then each
 *      takes some panels of the other one, packs these itself and multiplies them by all blocks of the group: what it
 *      packed and what it writes stay in its own cache, and nobody waits in between.
 *   3. A tile of c, TILE_ROWS x TILE_COLUMNS, stays in registers while k runs over the block: each step
 *      loads one row of b's panel and multiplies it by each of a's TILE_ROWS numbers.
 *
 * So every element of c is the sum over the blocks, in order, of sums over k, in order: the same bits
 * whatever M, N, the tile it falls into, the batch and the threads.
 */
#include "kernels.h"
#include "packing.h"
#include "special.h"

#include <stdatomic.h>

enum {
    K_BLOCK = 512 * 4 / sizeof(real), /* though a panel of b fills 64 KB: c is met less often */
    SUPER = 4096,                     /* columns of b packed at a time, */
    GROUP = 1 << 22,                  /* and so many numbers of a matrix, or a block of K: bounds the workspace */
    PANELS_PER_TASK = 16,             /* at most so many of a meet each panel of b while it is in the cache */
    FEW_PANELS = 10,                  /* up to so many of a are few rows, */
    FEW_BESIDE_COLUMNS = 32,          /* or up to so many, if there are more columns than rows */
    FEW_ROWS = 2 * TILE_ROWS,         /* up to here b is read too few times to be packed, if it need not be */
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
    bool add, pairs;                             /* to what is in c already; in pairs of bfloat16 */
    real *a_space;                               /* for the panels of a */
    const real *b_panels;                        /* those of b; NULL: each is packed where it is used */
    size_t row_chunks, column_chunks;            /* every pair of them is a task */
} block;

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

static vec activated(int activation, vec z) {
    if (activation == MINILM_RELU) return vec_relu(z, z);
    return activation == MINILM_GELU_TANH ? vec_gelu(z, true) : vec_gelu(z, false);
}

/* What is done to a part of the product, still in the cache, when its sums are complete: bias, residual, activation. */
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
            if (before) {
                real *kept = before + (ptrdiff_t)(row + i) * p->before_row + (ptrdiff_t)(column + j);
                if (n == LANES)
                    vec_store(kept, z);
                else
                    vec_store_first(kept, z, n);
            }
            if (p->activation) z = activated(p->activation, z);
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
    bool last = x->k + x->depth >= p->k && (p->bias || p->residual || p->activation);
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

/* What packs the block's rows of a, or columns of b, which lie `depth` k deep from `from` on, into `to`. */
static packing packing_of_a(const block *x, real *to) {
    const minilm_product *p = x->p;
    return (packing){.to = to, .from = x->a + (ptrdiff_t)x->row * p->a_row + (ptrdiff_t)x->k * p->a_k,
                     .step = p->a_row, .k_step = p->a_k, .count = x->rows, .depth = x->depth,
                     .width = x->panel_rows, .pairs = x->pairs};
}

static packing packing_of_b(const block *x, real *to) {
    const minilm_product *p = x->p;
    return (packing){.to = to, .from = x->b + (ptrdiff_t)x->k * p->b_k + (ptrdiff_t)x->column * p->b_column,
                     .step = p->b_column, .k_step = p->b_k, .count = x->columns, .depth = x->depth,
                     .width = TILE_COLUMNS, .fill = true, .pairs = x->pairs};
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
    minilm_product p = {.n = n, .k = k, .b_k = b_k, .b_column = b_column};
    block x = {.p = &p, .b = b};
    size_t depth = block_depth(k, false);
    for (; x.column < n; x.column += SUPER)
        for (x.k = 0; x.k < k; x.k += depth) {
            x.columns = smaller(SUPER, n - x.column);
            x.depth = smaller(depth, k - x.k);
            packing b_block = packing_of_b(&x, (real *)panels + panels_before(k, x.column, x.columns, x.k));
            for (size_t i = 0; i < pack_parts(&b_block); i++) pack_part(&b_block, i);
        }
}

/* --- one matrix is packed by all, the other one by who multiplies it ------------------------------------- */

typedef struct {
    block x;           /* the rows or columns that all have in common, from x.k on */
    size_t end, depth; /* up to which k; how deep the blocks of K are */
    real *space;       /* where they are packed; NULL: b was before */
    bool rows;         /* they are rows of a, else columns of b */
    atomic_int status;
} group;

static packing packing_of(const block *x, bool rows, real *to) { return rows ? packing_of_a(x, to) : packing_of_b(x, to); }

/* Go to the block of the group that begins at k; how deep what is packed before it is. */
static size_t go_to(block *x, const group *g, size_t k) {
    x->k = k;
    x->depth = smaller(g->depth, x->p->k - k);
    x->add = x->p->accumulate || k > 0;
    return packed_depth(k - g->x.k, x->pairs);
}

/* How many numbers wide what all have in common is, once it is packed. */
static size_t width_of(const group *g) { return g->rows ? g->x.rows : panel_columns(g->x.columns); }

static size_t parts_of_block(const group *g) {
    block x = g->x;
    go_to(&x, g, x.k);
    packing first = packing_of(&x, g->rows, g->space);
    return pack_parts(&first);
}

static void pack_task(void *context, size_t index) {
    const group *g = context;
    block x = g->x;
    size_t in_each = parts_of_block(g), before = width_of(g) * go_to(&x, g, x.k + index / in_each * g->depth);
    packing one = packing_of(&x, g->rows, g->space + before);
    if (index % in_each < pack_parts(&one)) pack_part(&one, index % in_each); /* the last block may have fewer */
}

static void run(size_t tasks, void (*task)(void *, size_t), void *context, bool share) {
    if (share)
        minilm_parallel(tasks, task, context);
    else
        for (size_t i = 0; i < tasks; i++) task(context, i);
}

/* All blocks of the group: packed, if they were not before, and multiplied by `tasks`. */
static void multiply_group(group *g, size_t tasks, void (*task)(void *, size_t), bool share) {
    size_t k = g->x.p->k;
    if (g->space && k)
        run(parts_of_block(g) * parts(g->end - g->x.k, g->depth), pack_task, g, share && width_of(g) > TILE_ROWS);
    run(tasks, task, g, share);
}

/* How many blocks of K, each so many numbers wide, are in a group. */
static size_t blocks_in(const group *g, size_t width) {
    if (!g->depth) return 1;
    return smaller(GROUP / (width * packed_depth(g->depth, g->x.pairs) + 1) + 1, parts(g->x.p->k, g->depth));
}

/* All rows times some columns, of which each panel is packed where it is used, if at all. */
static void columns_task(void *context, size_t index) {
    const group *g = context;
    block x = g->x;
    size_t b_panels = parts(x.columns, TILE_COLUMNS), k = x.k;
    do {
        x.a_space = g->space + width_of(g) * go_to(&x, g, k);
        multiply_panels(&x, 0, parts(x.rows, x.panel_rows), b_panels * index / x.column_chunks,
                        b_panels * (index + 1) / x.column_chunks);
    } while ((k += g->depth) < g->end);
}

static int multiply_few_rows(const block *whole, size_t depth, bool share) {
    const minilm_product *p = whole->p;
    group g = {.x = *whole, .depth = depth, .rows = true};
    g.x.rows = p->m;
    g.x.columns = p->n;
    size_t blocks = blocks_in(&g, p->m), wanted = share ? 4 * (size_t)minilm_get_num_threads() : 1;
    g.x.column_chunks = smaller(wanted, parts(p->n, TILE_COLUMNS));
    g.space = minilm_shared_workspace((1 + blocks * p->m * packed_depth(depth, g.x.pairs)) * sizeof(real));
    if (!g.space) return MINILM_NO_MEMORY;
    do {
        g.end = smaller(p->k, g.x.k + blocks * depth);
        multiply_group(&g, g.x.column_chunks, columns_task, share);
    } while ((g.x.k = g.end) < p->k);
    return MINILM_OK;
}

/* Some rows, which it packs, times some columns. */
static void rows_task(void *context, size_t index) {
    group *g = context;
    block x = g->x;
    size_t i = index / x.column_chunks, j = index % x.column_chunks, b_panels = parts(x.columns, TILE_COLUMNS);
    size_t panels = parts(x.p->m, x.panel_rows), first = panels * i / x.row_chunks, k = x.k;
    size_t count = panels * (i + 1) / x.row_chunks - first;
    x.row = first * x.panel_rows;
    x.rows = smaller(count * x.panel_rows, x.p->m - x.row);
    x.a_space = minilm_workspace((1 + x.rows * packed_depth(g->depth, x.pairs)) * sizeof(real));
    if (!x.a_space) {
        atomic_store(&g->status, MINILM_NO_MEMORY);
        return;
    }
    do {
        x.b_panels = g->x.b_panels + width_of(g) * go_to(&x, g, k);
        packing a = packing_of_a(&x, x.a_space);
        for (size_t part = 0; part < pack_parts(&a); part++) pack_part(&a, part);
        multiply_panels(&x, 0, count, b_panels * j / x.column_chunks, b_panels * (j + 1) / x.column_chunks);
    } while ((k += g->depth) < g->end);
}

static int multiply_many_rows(const block *whole, size_t depth, bool share, bool kept) {
    const minilm_product *p = whole->p;
    group g = {.x = *whole, .depth = depth};
    block *x = &g.x;
    size_t a_panels = parts(p->m, x->panel_rows), wanted = share ? 4 * (size_t)minilm_get_num_threads() : 1;
    x->row_chunks = smaller(wanted, a_panels); /* enough to even out a slow thread */
    if (x->row_chunks < parts(a_panels, PANELS_PER_TASK)) x->row_chunks = parts(a_panels, PANELS_PER_TASK);
    x->column_chunks = smaller(parts(wanted, x->row_chunks), parts(smaller(p->n, SUPER), TILE_COLUMNS));
    size_t width = panel_columns(smaller(p->n, SUPER)), blocks = kept ? p->k : blocks_in(&g, width);
    if (!kept) {
        g.space = minilm_shared_workspace((1 + blocks * width * packed_depth(depth, x->pairs)) * sizeof(real));
        if (!g.space) return MINILM_NO_MEMORY;
    }
    for (; x->column < p->n; x->column += SUPER) {
        x->columns = smaller(SUPER, p->n - x->column);
        x->k = 0;
        do {
            g.end = smaller(p->k, x->k + blocks * depth);
            x->b_panels = kept ? (const real *)p->b_panels + panels_before(p->k, x->column, x->columns, 0) : g.space;
            multiply_group(&g, x->row_chunks * x->column_chunks, rows_task, share);
        } while ((x->k = g.end) < p->k);
    }
    return atomic_load(&g.status);
}

/* One product of the batch. Where K is 0 there is one block of depth 0: its sums are 0. */
static int multiply(const minilm_product *p, const real *a, const real *b, real *c, bool share) {
    bool pairs = HAS_PAIRS && p->bfloat16, kept = p->b_panels && !pairs;
    block x = {.p = p, .a = a, .b = b, .c = c, .pairs = pairs};
    x.panel_rows = parts(p->m, parts(p->m, TILE_ROWS)); /* 128 rows: 9 x 13 + 11, not 9 x 14 + 2 */
    size_t depth = block_depth(p->k, pairs);
    size_t few = p->m < p->n ? FEW_BESIDE_COLUMNS : FEW_PANELS;
    if (kept || p->m > few * TILE_ROWS) return multiply_many_rows(&x, depth, share, kept);
    return multiply_few_rows(&x, depth, share);
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
