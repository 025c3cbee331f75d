/* Attention in tiles: y = softmax(scale q k^T + bias) v, without the matrix of scores.
 *
 * A tile has QUERIES queries side by side, one in each lane of TILE_VECS vectors, and KEYS keys below each other:
 * largest score, sum and rescaling are then plain vector operations, and no lane ever looks at another.
 *
 *   forward    For each tile of queries, over the tiles of keys: scores S; the largest so far, m; P = e^(S - m);
 *              the sum l and the result y grow by P and P v, and are shrunk by e^(m before - m) whenever m rises
 *              (Milakov & Gimelshein 2018). In the end y / l, and lse = m + log l is kept for the backward.
 *   backward   The scores are computed again, P = e^(S - lse), and every gradient is a product of tiles (Dao et al.
 *              2022, algorithm 4; the sum of P dP over a row is that of dy y).
 *
 * Keys behind the last query of a tile are skipped where `causal` is set. Memory is linear in T and S. Each lane's
 * sums run over keys in order, in tiles cut at the same places always; so a row's bits depend neither on the other
 * rows nor on the threads, and keys that are masked add exact zeros.
 */
#include "exp.h"
#include "kernels.h"
#include "philox.h"
#include "tile.h"

#include <math.h>
#include <stdatomic.h>

enum {
    QUERIES = TILE_COLUMNS,
    KEYS = ATTENTION_KEYS,
    TILES_PER_TASK = 8,      /* of queries: so many share what is packed of k */
};

/* One head: where its matrices begin, and what is packed of them. */
typedef struct {
    const minilm_attention *x;
    const real *q, *k, *v, *dy, *bias;
    const uint8_t *mask;
    real *y, *lse, *dq, *dk, *dv, *dbias;
    uint64_t row;                   /* the number of its first row of weights */
    real *k_panels, *v_panels;      /* k^T and v^T, in panels of TILE_ROWS keys (depth, keys) */
    real *k_rows;                   /* k, each row filled up with zeros to whole tiles */
    real *q_columns, *dy_columns;   /* this tile's q^T scale (D, QUERIES) and dy^T (E, QUERIES) */
    real *q_rows, *dy_rows;         /* the same, untransposed (QUERIES, D or E filled up) */
    real *scores, *slopes;          /* S, then P;  dP, then dS: (KEYS, QUERIES) */
    real *sum;                      /* forward: y^T (E, QUERIES);  backward: dq (QUERIES, D filled up) */
} head;

static size_t filled(size_t n) { return parts(n, TILE_COLUMNS) * TILE_COLUMNS; }

/* Where matrix `index` of the batch begins, in elements behind the first one. */
static ptrdiff_t offset(const minilm_attention *x, const minilm_matrices *m, size_t index) {
    ptrdiff_t at = 0;
    for (int axis = x->axes - 1; axis >= 0; axis--) {
        at += (ptrdiff_t)(index % x->shape[axis]) * m->axis[axis];
        index /= x->shape[axis];
    }
    return at;
}

/* Which of the sequences that lie behind each other head `index` is of. */
static size_t sequence(const minilm_attention *x, size_t index) {
    for (int axis = x->axes - 1; axis > 0; axis--) index /= x->shape[axis];
    return index;
}

static void *start(const minilm_attention *x, const minilm_matrices *m, size_t index, size_t size) {
    if (!m->data) return NULL;
    ptrdiff_t at = offset(x, m, index);
    if (x->starts) at += (ptrdiff_t)x->starts[sequence(x, index)] * m->row;
    return (char *)m->data + at * (ptrdiff_t)size;
}

/* --- packing --------------------------------------------------------------------------------------------- */

/* to (columns, width) = from (rows, columns) transposed; the places behind `rows` are 0. */
static void transpose(real *to, size_t width, const real *from, ptrdiff_t from_row, size_t rows, size_t columns) {
    size_t squares = columns - columns % 4, i = 0;
    for (; i + 4 <= rows; i += 4) {
        const real *four = from + (ptrdiff_t)i * from_row;
        for (size_t j = 0; j < squares; j += 4) transpose_4x4(to + j * width + i, width, four + j, from_row);
        for (size_t j = squares; j < columns; j++)
            for (ptrdiff_t l = 0; l < 4; l++) to[j * width + i + (size_t)l] = four[l * from_row + (ptrdiff_t)j];
    }
    for (; i < width; i++)
        for (size_t j = 0; j < columns; j++) to[j * width + i] = i < rows ? from[(ptrdiff_t)i * from_row + (ptrdiff_t)j] : 0;
}

/* to (rows, filled(columns)) = from (rows, columns) scaled, zeros behind. */
static void copy_rows(real *to, const real *from, ptrdiff_t from_row, size_t rows, size_t columns, real scale) {
    size_t width = filled(columns);
    for (size_t i = 0; i < rows; i++, from += from_row, to += width)
        for (size_t j = 0; j < width; j++) to[j] = j < columns ? from[j] * scale : 0;
}

static void pack_panels(real *to, const real *from, ptrdiff_t from_row, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i += TILE_ROWS) {
        size_t count = smaller(TILE_ROWS, rows - i);
        transpose(to + i * columns, count, from + (ptrdiff_t)i * from_row, from_row, count, columns);
    }
}

/* --- products of tiles ------------------------------------------------------------------------------------- */

/* scores (keys, QUERIES) = panels of keys times columns of queries, summed over `depth` channels */
static void scores_of(size_t first, size_t keys, size_t all, size_t depth, const real *panels, const real *columns,
                      real *scores) {
    for (size_t i = 0; i < keys; i += TILE_ROWS) {
        size_t rows = smaller(TILE_ROWS, all - first - i); /* as the panel was packed */
        tile_of(rows, QUERIES, depth, panels + (first + i) * depth, (ptrdiff_t)rows, columns, QUERIES,
                scores + i * QUERIES, QUERIES, false);
    }
}

/* c (rows, columns) += a^T b: a (depth, rows) with a_k from one k to the next, b (depth, columns filled up) */
static void add_product(size_t rows, size_t columns, size_t depth, const real *a, ptrdiff_t a_k, const real *b,
                        ptrdiff_t b_k, real *c, ptrdiff_t c_row) {
    if (!rows) return; /* values without channels */
    size_t height = parts(rows, parts(rows, TILE_ROWS));
    for (size_t j = 0; j < columns; j += TILE_COLUMNS)
        for (size_t i = 0; i < rows; i += height)
            tile_of(smaller(height, rows - i), columns - j, depth, a + i, a_k, b + j, b_k,
                    c + (ptrdiff_t)i * c_row + (ptrdiff_t)j, c_row, true);
}

/* c (keys, columns) += p b: p (keys, QUERIES), b (QUERIES, columns filled up) */
static void add_to_keys(size_t keys, size_t columns, const real *p, const real *b, real *c, ptrdiff_t c_row) {
#define CASE(n)                                                                                             \
    case n:                                                                                                 \
        tile(n, TILE_VECS, false, columns - j, QUERIES, p + i * QUERIES, QUERIES, 1, b + j, (ptrdiff_t)filled(columns), \
             c + (ptrdiff_t)i * c_row + (ptrdiff_t)j, c_row, true);                                         \
        break;
    size_t height = parts(keys, parts(keys, TILE_ROWS));
    for (size_t j = 0; j < columns; j += TILE_COLUMNS)
        for (size_t i = 0; i < keys; i += height) {
            switch (smaller(height, keys - i)) { EACH_ROWS(CASE) }
        }
#undef CASE
}

/* --- what a query may see -------------------------------------------------------------------------------- */

static void add_bias(const head *h, size_t query, size_t queries, size_t key, size_t keys, real *scores) {
    const minilm_matrices *m = &h->x->bias;
    for (size_t i = 0; i < keys; i++)
        for (size_t j = 0; j < queries; j++)
            scores[i * QUERIES + j] += h->bias[(ptrdiff_t)(query + j) * m->row + (ptrdiff_t)(key + i) * m->column];
}

static void hide_masked(const head *h, size_t query, size_t queries, size_t key, size_t keys, real *scores) {
    const minilm_matrices *m = &h->x->mask;
    for (size_t i = 0; i < keys; i++) {
        const uint8_t *visible = h->mask + (ptrdiff_t)query * m->row + (ptrdiff_t)(key + i) * m->column;
        if (m->row == 0) { /* padding: the same for every query */
            for (size_t j = 0; !*visible && j < QUERIES; j++) scores[i * QUERIES + j] = -INFINITY;
            continue;
        }
        for (size_t j = 0; j < queries; j++)
            if (!visible[(ptrdiff_t)j * m->row]) scores[i * QUERIES + j] = -INFINITY;
    }
}

static void hide_later(size_t query, size_t key, size_t keys, real *scores) {
    for (size_t i = 0; i < keys; i++)
        for (size_t j = 0; j < QUERIES && query + j < key + i; j++) scores[i * QUERIES + j] = -INFINITY;
}

/* The scores of a tile, bias and masks included. */
static void tile_scores(const head *h, size_t query, size_t queries, size_t key, size_t keys) {
    scores_of(key, keys, h->x->keys, h->x->depth, h->k_panels, h->q_columns, h->scores);
    if (h->bias) add_bias(h, query, queries, key, keys, h->scores);
    if (h->mask) hide_masked(h, query, queries, key, keys, h->scores);
    if (h->x->causal && key + keys > query + 1) hide_later(query, key, keys, h->scores);
}

/* How many keys the queries up to `query` + QUERIES - 1 can see. */
static size_t keys_in_sight(const minilm_attention *x, size_t query) {
    return x->causal ? smaller(x->keys, query + QUERIES) : x->keys;
}

enum { AT_ONCE = (int)QUERIES < (int)AT_A_TIME ? (int)QUERIES : (int)AT_A_TIME }; /* queries that draw */

/* Multiply by what dropout does: 0, or 1 / (1 - p). Each query draws from a stream of its own (keep_rows): several at
 * once, which lie side by side, four keys with each counter. */
static void drop(const head *h, size_t query, size_t key, size_t keys, real *weights) {
    const minilm_attention *x = h->x;
    real kept = x->p < 1 ? (real)(1 / (1 - x->p)) : 0;
    float p = (float)x->p;
    for (size_t i = 0; i < keys; i += 4)
        for (size_t j = 0; j < QUERIES; j += AT_ONCE) {
            uint32_t drawn[4][AT_A_TIME];
            philox_across(x->key, h->row + query + j, (key + i) / 4, drawn);
            for (size_t word = 0; word < smaller(4, keys - i); word++) {
                real *w = weights + (i + word) * QUERIES + j;
                for (size_t lane = 0; lane < AT_ONCE; lane++)
                    w[lane] *= (real)(philox_uniform(drawn[word][lane]) >= p) * kept;
            }
        }
}

_Static_assert(KEYS % 4 == 0, "a tile begins with a new counter");
_Static_assert(QUERIES % AT_ONCE == 0, "a tile is whole groups of queries");

/* --- forward ------------------------------------------------------------------------------------------------- */

/* P = e^(S - largest), and what it does to the sums of each lane. */
static void weigh(size_t keys, real *scores, vec *largest, vec *total, vec *shrink) {
    for (int v = 0; v < TILE_VECS; v++) {
        real *s = scores + v * LANES;
        vec high = largest[v], sum = vec_zero();
        for (size_t i = 0; i < keys; i++) high = vec_max(vec_load(s + i * QUERIES), high);
        vec above = vec_max(high, vec_all(LEAST)); /* finite where nothing was seen, so that e^(-inf - above) is 0 */
        for (size_t i = 0; i < keys; i++) {
            vec e = vec_exp(vec_load(s + i * QUERIES) - above);
            vec_store(s + i * QUERIES, e);
            sum += e;
        }
        shrink[v] = vec_exp(vec_max(largest[v], vec_all(LEAST)) - above);
        total[v] = total[v] * shrink[v] + sum;
        largest[v] = high;
    }
}

static void forward_tile(head *h, size_t query) {
    const minilm_attention *x = h->x;
    size_t queries = smaller(QUERIES, x->queries - query), sight = keys_in_sight(x, query), E = x->width;
    vec largest[TILE_VECS], total[TILE_VECS], shrink[TILE_VECS];
    for (int v = 0; v < TILE_VECS; v++) largest[v] = vec_all(-INFINITY), total[v] = vec_zero();
    transpose(h->q_columns, QUERIES, h->q + (ptrdiff_t)query * x->q.row, x->q.row, queries, x->depth);
    for (size_t i = 0; i < x->depth * QUERIES; i++) h->q_columns[i] *= (real)x->scale;
    memset(h->sum, 0, E * QUERIES * sizeof(real));

    for (size_t key = 0; key < sight; key += KEYS) {
        size_t keys = smaller(KEYS, sight - key);
        tile_scores(h, query, queries, key, keys);
        weigh(keys, h->scores, largest, total, shrink);
        if (x->p > 0) drop(h, query, key, keys, h->scores);
        for (size_t e = 0; key && e < E; e++)
            for (int v = 0; v < TILE_VECS; v++) {
                real *y = h->sum + e * QUERIES + v * LANES;
                vec_store(y, vec_load(y) * shrink[v]);
            }
        add_product(E, QUERIES, keys, h->v + (ptrdiff_t)key * x->v.row, x->v.row, h->scores, QUERIES, h->sum, QUERIES);
    }

    real sum[QUERIES], top[QUERIES];
    for (int v = 0; v < TILE_VECS; v++) vec_store(sum + v * LANES, total[v]), vec_store(top + v * LANES, largest[v]);
    for (size_t j = 0; j < queries; j++) {
        real *y = h->y + (ptrdiff_t)(query + j) * x->y.row, scale = sum[j] == 0 ? 0 : 1 / sum[j];
        for (size_t e = 0; e < E; e++) y[e] = h->sum[e * QUERIES + j] * scale;
        h->lse[query + j] = sum[j] == 0 ? (real)-INFINITY : top[j] + (real)log((double)sum[j]);
    }
}

/* --- backward ------------------------------------------------------------------------------------------------ */

/* From the scores S and dP:  scores = o P, slopes = dS = P (o dP - a), o: what dropout multiplies by. */
static void slopes_of(const head *h, size_t query, size_t key, size_t keys, const real *lse, const real *along) {
    for (size_t i = 0; i < keys; i++)
        for (int v = 0; v < TILE_VECS; v++) {
            real *s = h->scores + i * QUERIES + v * LANES;
            vec_store(s, vec_exp(vec_load(s) - vec_load(lse + v * LANES)));
        }
    real kept[KEYS * QUERIES];
    if (h->x->p > 0) {
        for (size_t i = 0; i < keys * QUERIES; i++) kept[i] = 1;
        drop(h, query, key, keys, kept);
    }
    for (size_t i = 0; i < keys * QUERIES; i += LANES) {
        vec p = vec_load(h->scores + i), dp = vec_load(h->slopes + i), a = vec_load(along + i % QUERIES);
        if (h->x->p > 0) {
            vec_store(h->scores + i, p * vec_load(kept + i));
            dp *= vec_load(kept + i);
        }
        vec_store(h->slopes + i, p * (dp - a));
    }
}

static void backward_tile(head *h, size_t query) {
    const minilm_attention *x = h->x;
    size_t queries = smaller(QUERIES, x->queries - query), sight = keys_in_sight(x, query), D = x->depth, E = x->width;
    const real *q = h->q + (ptrdiff_t)query * x->q.row, *dy = h->dy + (ptrdiff_t)query * x->dy.row;
    memset(h->q_rows, 0, QUERIES * filled(D) * sizeof(real));
    memset(h->dy_rows, 0, QUERIES * filled(E) * sizeof(real));
    copy_rows(h->q_rows, q, x->q.row, queries, D, (real)x->scale);
    copy_rows(h->dy_rows, dy, x->dy.row, queries, E, 1);
    transpose(h->q_columns, QUERIES, h->q_rows, (ptrdiff_t)filled(D), QUERIES, D);
    transpose(h->dy_columns, QUERIES, h->dy_rows, (ptrdiff_t)filled(E), QUERIES, E);
    memset(h->sum, 0, QUERIES * filled(D) * sizeof(real));

    real lse[QUERIES], along[QUERIES]; /* lanes without a query: e^(0 - inf) = 0 */
    for (size_t j = 0; j < QUERIES; j++) lse[j] = INFINITY, along[j] = 0;
    for (size_t j = 0; j < queries; j++) {
        if (h->lse[query + j] != -INFINITY) lse[j] = h->lse[query + j];
        const real *y = h->y + (ptrdiff_t)(query + j) * x->y.row, *dy_j = dy + (ptrdiff_t)j * x->dy.row;
        for (size_t e = 0; e < E; e++) along[j] += y[e] * dy_j[e];
    }

    for (size_t key = 0; key < sight; key += KEYS) {
        size_t keys = smaller(KEYS, sight - key);
        tile_scores(h, query, queries, key, keys);
        scores_of(key, keys, x->keys, E, h->v_panels, h->dy_columns, h->slopes);
        slopes_of(h, query, key, keys, lse, along);
        add_to_keys(keys, E, h->scores, h->dy_rows, h->dv + (ptrdiff_t)key * x->dv.row, x->dv.row);
        add_to_keys(keys, D, h->slopes, h->q_rows, h->dk + (ptrdiff_t)key * x->dk.row, x->dk.row);
        add_product(queries, D, keys, h->slopes, QUERIES, h->k_rows + key * filled(D), (ptrdiff_t)filled(D), h->sum,
                    (ptrdiff_t)filled(D));
        for (size_t j = 0; h->dbias && j < queries; j++)
            for (size_t i = 0; i < keys; i++) h->dbias[(query + j) * x->keys + key + i] = h->slopes[i * QUERIES + j];
    }
    for (size_t j = 0; j < queries; j++)
        for (size_t d = 0; d < D; d++)
            h->dq[(ptrdiff_t)(query + j) * x->dq.row + (ptrdiff_t)d] = h->sum[j * filled(D) + d] * (real)x->scale;
}

/* --- heads shared among threads ------------------------------------------------------------------------------ */

typedef struct {
    const minilm_attention *x;
    bool backward;
    size_t tiles, chunks, bytes; /* of queries; in how many tasks each head is cut; of workspace */
    atomic_int status;
} work;

/* Cut the workspace into the parts of a head; how many elements that takes, if `memory` is NULL. */
static size_t lay_out(head *h, real *memory, bool backward) {
    const minilm_attention *x = h->x;
    size_t at = 0, line = 64 / sizeof(real), D = x->depth, E = x->width, S = x->keys;
#define PART(name, count)                                  \
    do {                                                   \
        if (memory) h->name = memory + at;                 \
        at += parts((size_t)(count), line) * line;         \
    } while (0)
    PART(k_panels, S * D);
    PART(q_columns, D * QUERIES);
    PART(scores, (KEYS + TILE_ROWS) * QUERIES);
    PART(sum, (backward ? filled(D) : E) * QUERIES);
    if (backward) {
        PART(v_panels, S * E);
        PART(k_rows, S * filled(D));
        PART(dy_columns, E * QUERIES);
        PART(q_rows, QUERIES * filled(D));
        PART(dy_rows, QUERIES * filled(E));
        PART(slopes, (KEYS + TILE_ROWS) * QUERIES);
    }
#undef PART
    return at;
}

/* How many keys there are up to the last that the mask shows, where all queries have the same mask: padding behind a
 * sentence is not looked at. It would add exact zeros. */
static size_t keys_shown(const head *h) {
    const minilm_matrices *m = &h->x->mask;
    size_t keys = h->x->keys;
    if (!h->mask || m->row != 0 || h->dbias) return keys; /* the rows of dbias have all keys */
    while (keys && !h->mask[(ptrdiff_t)(keys - 1) * m->column]) keys--;
    return keys;
}

static void head_task(void *context, size_t index) {
    work *w = context;
    const minilm_attention *x = w->x;
    size_t number = index / w->chunks, chunk = index % w->chunks;
    real *memory = minilm_workspace(w->bytes);
    if (!memory) {
        atomic_store(&w->status, MINILM_NO_MEMORY);
        return;
    }
#define AT(name) start(x, &x->name, number, sizeof(real))
    head h = {.x = x, .row = x->first_row + number * x->queries, .q = AT(q), .k = AT(k), .v = AT(v), .y = AT(y),
              .dy = AT(dy), .dq = AT(dq), .dk = AT(dk), .dv = AT(dv), .bias = AT(bias), .lse = AT(lse),
              .mask = start(x, &x->mask, number, 1),
              .dbias = x->dbias ? (real *)x->dbias + number * x->queries * x->keys : NULL};
#undef AT
    minilm_attention shown = *x; /* of this head */
    if (x->starts) {
        size_t b = sequence(x, number);
        shown.queries = shown.keys = (size_t)(x->starts[b + 1] - x->starts[b]);
    }
    for (size_t s = 0; w->backward && s < shown.keys; s++) {
        memset(h.dk + (ptrdiff_t)s * x->dk.row, 0, x->depth * sizeof(real));
        memset(h.dv + (ptrdiff_t)s * x->dv.row, 0, x->width * sizeof(real));
    }
    shown.keys = smaller(shown.keys, keys_shown(&h));
    h.x = &shown;
    lay_out(&h, memory, w->backward);
    pack_panels(h.k_panels, h.k, x->k.row, shown.keys, x->depth);
    if (w->backward) {
        pack_panels(h.v_panels, h.v, x->v.row, shown.keys, x->width);
        copy_rows(h.k_rows, h.k, x->k.row, shown.keys, x->depth, 1);
    }
    size_t end = smaller(parts(shown.queries, QUERIES), w->tiles * (chunk + 1) / w->chunks);
    for (size_t t = w->tiles * chunk / w->chunks; t < end; t++)
        (w->backward ? backward_tile : forward_tile)(&h, t * QUERIES);
}

static int run(const minilm_attention *x, bool backward) {
    size_t heads = 1;
    for (int axis = 0; axis < x->axes; axis++) heads *= x->shape[axis];
    if (heads == 0) return MINILM_OK;
    work w = {.x = x, .backward = backward, .tiles = parts(x->queries, QUERIES), .chunks = 1};
    /* The keys' gradients are sums over all queries, in their order: the backward gives a head to one thread. */
    if (!backward) w.chunks = parts(w.tiles, TILES_PER_TASK);
    head blank = {.x = x};
    w.bytes = lay_out(&blank, NULL, backward) * sizeof(real);
    minilm_parallel(heads * w.chunks, head_task, &w);
    return atomic_load(&w.status);
}

int EXPORTED(attention)(const minilm_attention *x) { return run(x, false); }

int EXPORTED(attention_backward)(const minilm_attention *x) { return run(x, true); }
