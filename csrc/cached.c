/* Attention of single queries to keys and values that lie where earlier steps, or other rows, left them.
 *
 * Lanes are keys here: of as many keys as a vector has lanes, transposed, one channel after the other is multiplied by
 * the query's. The sums run as in attention.c, over channels in order and over keys in order, in the same tiles, so
 * that the bits are the same. Of the keys that the row before looked at too, nothing is packed again: beams share most
 * of what they wrote. Keys that lie in memory channel by channel, as those of a source may, are read where they are.
 */
#include "exp.h"
#include "kernels.h"
#include "tile.h"

#include <math.h>
#include <stdatomic.h>

enum {
    ROWS_PER_TASK = 10, /* with all heads, whose channels lie side by side; where that makes too few tasks, with one */
    AT_ONCE = 4,        /* vectors of scores, or of values, whose sums grow side by side */
};

/* What some heads look at for one row. */
typedef struct {
    const minilm_cached_attention *x;
    size_t first, heads;  /* which heads */
    size_t count;         /* how many keys are looked at */
    size_t *key;          /* (count): their positions, which rise, */
    const real **k, **v;  /* and where each lies for the first head; k filled up to whole vectors with the last one */
    const real **packed;  /* those of k that are in the panels, from the row before; NULL for none */
    real *panels;         /* the keys, transposed: for each head, and each LANES of them, (D, LANES); */
    bool in_place;        /* or they are not packed, since they lie side by side from k[0] on */
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
    PART(packed, keys);
    PART(panels, s->heads * keys * x->depth);
    PART(query, x->depth);
    PART(scores, keys);
    PART(sum, x->width);
#undef PART
    return at;
}

/* Pack those of the keys that are not where they were for the row before. */
static void pack(sight *s) {
    const minilm_cached_attention *x = s->x;
    ptrdiff_t channel = x->k.column;
    for (size_t i = s->count; i < filled(s->count); i++) s->k[i] = s->k[s->count - 1];
    size_t together = smaller(4, LANES), squares = LANES % 4 || channel != 1 ? 0 : x->depth - x->depth % 4;
    for (size_t i = 0; i < filled(s->count); i += together) {
        if (!memcmp(s->packed + i, s->k + i, together * sizeof *s->k)) continue;
        memcpy(s->packed + i, s->k + i, together * sizeof *s->k);
        for (size_t h = 0; h < s->heads; h++) {
            real *panel = s->panels + (h * filled(x->keys) + i / LANES * LANES) * x->depth + i % LANES;
            const real *from[4];
            for (size_t l = 0; l < together; l++) from[l] = s->k[i + l] + (ptrdiff_t)h * x->k.axis[0];
            for (size_t d = 0; d < squares; d += 4) transpose_four(panel + d * LANES, LANES, from, d);
            for (size_t d = squares; d < x->depth; d++)
                for (size_t l = 0; l < together; l++) panel[d * LANES + l] = from[l][(ptrdiff_t)d * channel];
        }
    }
}

/* Find the keys that a row looks at. */
static void look(sight *s, size_t row) {
    const minilm_cached_attention *x = s->x;
    const int64_t *places = x->places + (ptrdiff_t)row * x->place_row;
    const real *k = (const real *)x->k.data + (ptrdiff_t)s->first * x->k.axis[0];
    const real *v = (const real *)x->v.data + (ptrdiff_t)s->first * x->v.axis[0];
    s->count = 0;
    for (size_t key = 0; key < x->keys; key++) {
        ptrdiff_t place = (ptrdiff_t)places[(ptrdiff_t)key * x->place_key];
        if (place < 0) continue;
        s->key[s->count] = key;
        s->k[s->count] = k + place * x->k.axis[1] + (ptrdiff_t)key * x->k.row;
        s->v[s->count++] = v + place * x->v.axis[1] + (ptrdiff_t)key * x->v.row;
    }
    s->in_place = x->k.row == 1;
    for (size_t i = 1; s->in_place && i < s->count; i++) s->in_place = s->k[i] == s->k[0] + i;
    if (!s->in_place) pack(s);
}

/* S: the product of the query with each key, of up to AT_ONCE vectors of keys side by side. */
static void scores_of(const sight *s, size_t h) {
    const minilm_cached_attention *x = s->x;
    size_t D = x->depth, vectors = parts(s->count, LANES);
    ptrdiff_t channel = s->in_place ? x->k.column : (ptrdiff_t)LANES, next = LANES * (s->in_place ? 1 : (ptrdiff_t)D);
    for (size_t i = 0; i < vectors; i += AT_ONCE) {
        size_t n = smaller(AT_ONCE, vectors - i), last = s->in_place ? smaller(s->count - (i + n - 1) * LANES, LANES) : LANES;
        const real *keys = s->in_place ? s->k[i * LANES] + (ptrdiff_t)h * x->k.axis[0]
                                       : s->panels + (h * filled(x->keys) + i * LANES) * D;
        vec sum[AT_ONCE] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
#define CASE(count, load_last)                                                                                 \
    case count:                                                                                                \
        for (size_t d = 0; d < D; d++) {                                                                       \
            vec q = vec_all(s->query[d]);                                                                      \
            const real *k = keys + (ptrdiff_t)d * channel;                                                     \
            for (ptrdiff_t j = 0; j < count - 1; j++) sum[j] = vec_fma(vec_load(k + j * next), q, sum[j]);     \
            const real *end = k + (count - 1) * next;                                                          \
            sum[count - 1] = vec_fma(load_last, q, sum[count - 1]);                                            \
        }                                                                                                      \
        break;
#define CASES(load_last) switch (n) { CASE(1, load_last) CASE(2, load_last) CASE(3, load_last) CASE(4, load_last) }
        if (last == LANES) {
            CASES(vec_load(end))
        } else {
            CASES(vec_load_first(end, last, 0))
        }
#undef CASES
#undef CASE
        for (size_t j = 0; j < n; j++) vec_store(s->scores + (i + j) * LANES, sum[j]);
    }
}

/* sum = sum shrink + P v over the keys from ... to - 1. */
static void add_values(const sight *s, size_t h, size_t from, size_t to, bool first, real shrink) {
    ptrdiff_t head = (ptrdiff_t)h * s->x->v.axis[0];
    for (size_t e = 0; e < s->x->width; e += AT_ONCE * LANES) {
        size_t left = s->x->width - e, vectors = parts(smaller(left, AT_ONCE * LANES), LANES);
        vec sum[AT_ONCE] = {vec_zero(), vec_zero(), vec_zero(), vec_zero()};
        if (left >= AT_ONCE * LANES) {
            for (size_t i = from; i < to; i++) {
                vec p = vec_all(s->scores[i]);
                for (size_t j = 0; j < AT_ONCE; j++) sum[j] = vec_fma(vec_load(s->v[i] + head + e + j * LANES), p, sum[j]);
            }
        } else {
            for (size_t i = from; i < to; i++) {
                vec p = vec_all(s->scores[i]);
                for (size_t j = 0; j < vectors; j++) {
                    size_t n = smaller(left - j * LANES, LANES);
                    const real *v = s->v[i] + head + e + j * LANES;
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

/* One head for one row. */
static void attend(sight *s, size_t h, size_t row) {
    const minilm_cached_attention *x = s->x;
    size_t head = s->first + h;
    const real *q = (const real *)x->q.data + (ptrdiff_t)row * x->q.row + (ptrdiff_t)head * x->q.axis[0];
    const real *bias = x->bias.data ? (const real *)x->bias.data + (ptrdiff_t)head * x->bias.row : NULL;
    real *y = (real *)x->y + (row * x->heads + head) * x->width;
    for (size_t d = 0; d < x->depth; d++) s->query[d] = q[d] * (real)x->scale;
    memset(s->sum, 0, x->width * sizeof(real));
    scores_of(s, h);
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
        add_values(s, h, from, to, from == 0, shrink[0]);
    }
    real scale = total == 0 ? 0 : 1 / total;
    for (size_t e = 0; e < x->width; e++) y[e] = s->sum[e] * scale;
}

typedef struct {
    const minilm_cached_attention *x;
    size_t groups, bytes; /* in how many tasks the heads are cut; of workspace */
    atomic_int status;
} work;

static void rows_task(void *context, size_t index) {
    work *w = context;
    const minilm_cached_attention *x = w->x;
    size_t heads = x->heads / w->groups;
    sight s = {.x = x, .first = index % w->groups * heads, .heads = heads};
    char *memory = minilm_workspace(w->bytes);
    if (!memory) {
        atomic_store(&w->status, MINILM_NO_MEMORY);
        return;
    }
    lay_out(&s, memory);
    memset(s.packed, 0, filled(x->keys) * sizeof *s.packed);
    size_t first = index / w->groups * ROWS_PER_TASK, end = smaller(first + ROWS_PER_TASK, x->rows);
    for (size_t row = first; row < end; row++) {
        look(&s, row);
        for (size_t h = 0; h < heads; h++) attend(&s, h, row);
    }
}

int EXPORTED(cached_attention)(const minilm_cached_attention *x) {
    size_t tasks = parts(x->rows, ROWS_PER_TASK);
    if (!x->heads) return MINILM_OK;
    work w = {.x = x, .groups = tasks < 4 * (size_t)minilm_get_num_threads() ? x->heads : 1};
    sight blank = {.x = x, .heads = x->heads / w.groups};
    w.bytes = lay_out(&blank, NULL);
    minilm_parallel(tasks * w.groups, rows_task, &w);
    return atomic_load(&w.status);
}
