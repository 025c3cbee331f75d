/* Attention of single queries to keys and values that lie where earlier steps, or other rows, left them.
 *
 * Lanes are keys here: of as many keys as a vector has lanes, transposed, one channel after the other is multiplied by
 * the query's. The sums run as in attention.c, over channels in order and over keys in order, in the same tiles, so
 * that the bits are the same. Rows that look at the same keys as the row before, as the beams of one sentence do,
 * share what is packed of them.
 */
#include "exp.h"
#include "kernels.h"
#include "tile.h"

#include <float.h>
#include <math.h>
#include <stdatomic.h>

enum {
    ROWS_PER_TASK = 16, /* of one head */
    AT_ONCE = 4,        /* vectors of scores, or of values, whose sums grow side by side */
};

#ifdef MINILM_DOUBLE
#define LEAST (-DBL_MAX)
#else
#define LEAST (-FLT_MAX)
#endif

/* What one head looks at for one row. */
typedef struct {
    const minilm_cached_attention *x;
    size_t head, count;   /* how many keys are looked at */
    size_t *key;          /* (count): their positions, which rise, */
    const real **k, **v;  /* and where each lies; k filled up to whole vectors with the last one */
    real *panels;         /* the keys, transposed: for each LANES of them (D, LANES) */
    real *query, *scores; /* the query scaled (D);  S, then P (count filled up) */
    real *sum;            /* of P v (E) */
} sight;

static size_t filled(size_t n) { return parts(n, LANES) * LANES; }

/* Cut the workspace into the parts of a sight; how many bytes that takes, if `memory` is NULL. */
static size_t lay_out(sight *s, char *memory) {
    const minilm_cached_attention *x = s->x;
    size_t at = 0, keys = filled(x->keys);
#define PART(name, count)                                          \
    do {                                                           \
        if (memory) s->name = (void *)(memory + at);               \
        at += parts((count) * sizeof *s->name, 64) * 64;           \
    } while (0)
    PART(key, keys);
    PART(k, keys);
    PART(v, keys);
    PART(panels, keys * x->depth);
    PART(query, x->depth);
    PART(scores, keys);
    PART(sum, x->width);
#undef PART
    return at;
}

static bool same_places(const minilm_cached_attention *x, size_t row, size_t other) {
    const int64_t *a = x->places + (ptrdiff_t)row * x->place_row, *b = x->places + (ptrdiff_t)other * x->place_row;
    for (size_t s = 0; s < x->keys; s++)
        if (a[(ptrdiff_t)s * x->place_key] != b[(ptrdiff_t)s * x->place_key]) return false;
    return true;
}

/* Find the keys that a row looks at, and pack them. */
static void look(sight *s, size_t row) {
    const minilm_cached_attention *x = s->x;
    const int64_t *places = x->places + (ptrdiff_t)row * x->place_row;
    const real *k = (const real *)x->k.data + (ptrdiff_t)s->head * x->k.axis[0];
    const real *v = (const real *)x->v.data + (ptrdiff_t)s->head * x->v.axis[0];
    s->count = 0;
    for (size_t key = 0; key < x->keys; key++) {
        ptrdiff_t place = (ptrdiff_t)places[(ptrdiff_t)key * x->place_key];
        if (place < 0) continue;
        s->key[s->count] = key;
        s->k[s->count] = k + place * x->k.axis[1] + (ptrdiff_t)key * x->k.row;
        s->v[s->count++] = v + place * x->v.axis[1] + (ptrdiff_t)key * x->v.row;
    }
    for (size_t i = s->count; i < filled(s->count); i++) s->k[i] = s->k[s->count - 1];
    size_t together = smaller(4, LANES), squares = LANES % 4 ? 0 : x->depth - x->depth % 4;
    for (size_t i = 0; i < s->count; i += LANES) {
        real *panel = s->panels + i * x->depth;
        for (size_t lane = 0; lane < LANES; lane += together) {
            const real *const *from = s->k + i + lane;
            for (size_t d = 0; d < squares; d += 4) transpose_four(panel + d * LANES + lane, LANES, from, d);
            for (size_t d = squares; d < x->depth; d++)
                for (size_t l = 0; l < together; l++) panel[d * LANES + lane + l] = from[l][d];
        }
    }
}

/* S: the product of the query with each key, of up to AT_ONCE vectors of keys side by side. */
static void scores_of(const sight *s) {
    size_t D = s->x->depth, vectors = parts(s->count, LANES);
    for (size_t i = 0; i < vectors; i += AT_ONCE) {
        size_t n = smaller(AT_ONCE, vectors - i);
        const real *panel = s->panels + i * LANES * D;
        vec sum[AT_ONCE] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
#define CASE(count)                                                                                      \
    case count:                                                                                          \
        for (size_t d = 0; d < D; d++) {                                                                 \
            vec q = vec_all(s->query[d]);                                                                \
            for (size_t j = 0; j < count; j++) sum[j] = vec_fma(vec_load(panel + (j * D + d) * LANES), q, sum[j]); \
        }                                                                                                \
        break;
        switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) }
#undef CASE
        for (size_t j = 0; j < n; j++) vec_store(s->scores + (i + j) * LANES, sum[j]);
    }
}

/* sum = sum shrink + P v over the keys from ... to - 1. */
static void add_values(const sight *s, size_t from, size_t to, bool first, real shrink) {
    for (size_t e = 0; e < s->x->width; e += AT_ONCE * LANES) {
        size_t left = s->x->width - e, vectors = parts(smaller(left, AT_ONCE * LANES), LANES);
        vec sum[AT_ONCE] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
        if (left >= AT_ONCE * LANES) {
            for (size_t i = from; i < to; i++) {
                vec p = vec_all(s->scores[i]);
                for (size_t j = 0; j < AT_ONCE; j++) sum[j] = vec_fma(vec_load(s->v[i] + e + j * LANES), p, sum[j]);
            }
        } else {
            for (size_t i = from; i < to; i++) {
                vec p = vec_all(s->scores[i]);
                for (size_t j = 0; j < vectors; j++) {
                    size_t n = smaller(left - j * LANES, LANES);
                    const real *v = s->v[i] + e + j * LANES;
                    sum[j] = vec_fma(n == LANES ? vec_load(v) : vec_load_first(v, n, 0), p, sum[j]);
                }
            }
        }
        for (size_t j = 0; j < vectors; j++) {
            real *y = s->sum + e + j * LANES;
            size_t n = smaller(left - j * LANES, LANES);
            vec before = n == LANES ? vec_load(y) : vec_load_first(y, n, 0);
            if (!first) before *= vec_all(shrink);
            if (n == LANES)
                vec_store(y, before + sum[j]);
            else
                vec_store_first(y, before + sum[j], n);
        }
    }
}

static void attend(sight *s, size_t row) {
    const minilm_cached_attention *x = s->x;
    const real *q = (const real *)x->q.data + (ptrdiff_t)row * x->q.row + (ptrdiff_t)s->head * x->q.axis[0];
    const real *bias = x->bias.data ? (const real *)x->bias.data + (ptrdiff_t)s->head * x->bias.row : NULL;
    real *y = (real *)x->y + (row * x->heads + s->head) * x->width;
    for (size_t d = 0; d < x->depth; d++) s->query[d] = q[d] * (real)x->scale;
    memset(s->sum, 0, x->width * sizeof(real));
    scores_of(s);
    for (size_t i = 0; bias && i < s->count; i++) s->scores[i] += bias[(ptrdiff_t)s->key[i] * x->bias.column];

    vec largest = vec_all(-INFINITY);
    real total = 0;
    for (size_t from = 0, to; from < s->count; from = to) {
        size_t end = (s->key[from] / ATTENTION_KEYS + 1) * ATTENTION_KEYS; /* of the tile of attention.c */
        vec high = largest, peak = vec_all(-INFINITY);
        for (to = from; to < s->count && s->key[to] < end; to++) continue;
        for (size_t i = from; i < to; i += LANES) {
            size_t n = smaller(to - i, LANES);
            peak = vec_max(n == LANES ? vec_load(s->scores + i) : vec_load_first(s->scores + i, n, -INFINITY), peak);
        }
        high = vec_max(vec_all(vec_greatest(peak)), high);
        vec above = vec_max(high, vec_all(LEAST));
        for (size_t i = from; i < to; i += LANES) {
            size_t n = smaller(to - i, LANES);
            if (n == LANES)
                vec_store(s->scores + i, vec_exp(vec_load(s->scores + i) - above));
            else
                vec_store_first(s->scores + i, vec_exp(vec_load_first(s->scores + i, n, -INFINITY) - above), n);
        }
        real sum = 0;
        for (size_t i = from; i < to; i++) sum += s->scores[i];
        vec shrink = vec_exp(vec_max(largest, vec_all(LEAST)) - above);
        total = total * shrink[0] + sum;
        largest = high;
        add_values(s, from, to, from == 0, shrink[0]);
    }
    real scale = total == 0 ? 0 : 1 / total;
    for (size_t e = 0; e < x->width; e++) y[e] = s->sum[e] * scale;
}

typedef struct {
    const minilm_cached_attention *x;
    size_t bytes;
    atomic_int status;
} work;

static void rows_task(void *context, size_t index) {
    work *w = context;
    const minilm_cached_attention *x = w->x;
    sight s = {.x = x, .head = index % x->heads};
    char *memory = minilm_workspace(w->bytes);
    if (!memory) {
        atomic_store(&w->status, MINILM_NO_MEMORY);
        return;
    }
    lay_out(&s, memory);
    size_t first = index / x->heads * ROWS_PER_TASK, end = smaller(first + ROWS_PER_TASK, x->rows);
    for (size_t row = first; row < end; row++) {
        if (row == first || !same_places(x, row, row - 1)) look(&s, row);
        attend(&s, row);
    }
}

int EXPORTED(cached_attention)(const minilm_cached_attention *x) {
    work w = {.x = x};
    sight blank = {.x = x};
    w.bytes = lay_out(&blank, NULL);
    if (x->heads) minilm_parallel(parts(x->rows, ROWS_PER_TASK) * x->heads, rows_task, &w);
    return atomic_load(&w.status);
}
