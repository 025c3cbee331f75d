/* AdamW over all parameters at once, and the sum of all squares.
 *
 * The arrays are cut into chunks, one after the other, which threads share; an element's result does not depend on
 * where its chunk begins, and the chunks' sums of squares are added in order.
 */
#include "rows.h"

#include <math.h>

enum { CHUNK = 1 << 14 };

static size_t chunks_of(size_t size) { return (size + CHUNK - 1) / CHUNK; }

/* The number of the array's first chunk among all, for each array, and behind the last: the number of chunks. */
static size_t number_chunks(size_t count, const size_t *sizes, size_t *first) {
    first[0] = 0;
    for (size_t i = 0; i < count; i++) first[i + 1] = first[i] + chunks_of(sizes[i]);
    return first[count];
}

/* The array that a chunk belongs to, by bisection. */
static size_t array_of(size_t chunk, size_t count, const size_t *first) {
    size_t low = 0, high = count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (first[middle] <= chunk)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* --- AdamW ------------------------------------------------------------------------------------------- */

typedef struct {
    const minilm_adamw *given;
    const size_t *first;
    real beta1, beta2, of_g, of_g2;   /* the last two: 1 - beta1, 1 - beta2 */
    real scale, eps, step_size, keep; /* 1 / sqrt(1 - beta2^step), eps, lr / (1 - beta1^step), 1 - lr weight_decay */
} adamw_work;

/*     m = beta1 m + (1 - beta1) g          v = beta2 v + (1 - beta2) g^2
 *     w = keep w - step_size m / (scale sqrt(v) + eps) */
static void adamw_some(const void *context, size_t from, size_t to) {
    const adamw_work *a = context;
    const vec beta1 = vec_all(a->beta1), beta2 = vec_all(a->beta2), of_g = vec_all(a->of_g), of_g2 = vec_all(a->of_g2);
    const vec scale = vec_all(a->scale), eps = vec_all(a->eps), keep = vec_all(a->keep);
    const vec minus_step = vec_all(-a->step_size);
    for (size_t chunk = from; chunk < to; chunk++) {
        size_t i = array_of(chunk, a->given->count, a->first), start = (chunk - a->first[i]) * CHUNK;
        size_t left = a->given->sizes[i] - start;
        real *w = (real *)a->given->params[i] + start, *m = (real *)a->given->exp_avgs[i] + start;
        real *v = (real *)a->given->exp_avg_sqs[i] + start;
        const real *grad = (const real *)a->given->grads[i] + start;
        EACH_VECTOR(left < CHUNK ? left : CHUNK, {
            vec g = load_lanes(grad + j, n, 0);
            vec mean = vec_fma(load_lanes(m + j, n, 0), beta1, g * of_g);
            vec square = vec_fma(load_lanes(v + j, n, 0), beta2, g * g * of_g2);
            store_lanes(m + j, mean, n);
            store_lanes(v + j, square, n);
            vec ratio = mean / vec_fma(vec_sqrt(square), scale, eps);
            store_lanes(w + j, vec_fma(load_lanes(w + j, n, 0), keep, ratio * minus_step), n);
        })
    }
}

int EXPORTED(adamw)(const minilm_adamw *given) {
    size_t *first = minilm_workspace((given->count + 1) * sizeof *first);
    if (!first) return MINILM_NO_MEMORY;
    size_t chunks = number_chunks(given->count, given->sizes, first);
    adamw_work a = {
        .given = given,
        .first = first,
        .beta1 = (real)given->beta1,
        .beta2 = (real)given->beta2,
        .of_g = (real)(1 - given->beta1),
        .of_g2 = (real)(1 - given->beta2),
        .scale = (real)(1 / sqrt(1 - pow(given->beta2, given->step))),
        .eps = (real)given->eps,
        .step_size = (real)(given->lr / (1 - pow(given->beta1, given->step))),
        .keep = (real)(1 - given->lr * given->weight_decay),
    };
    share_rows(chunks, 1, 1, adamw_some, &a);
    return MINILM_OK;
}

/* --- the sum of squares ------------------------------------------------------------------------------ */

typedef double doubles __attribute__((vector_size(VEC_BYTES)));
enum { DOUBLES = VEC_BYTES / sizeof(double), SUMS = 4 };
typedef real few __attribute__((vector_size(DOUBLES * sizeof(real)))); /* as many as a vector of doubles has */

typedef struct {
    size_t count;
    const size_t *sizes, *first;
    const void *const *arrays;
    double *sums; /* of each chunk */
} squares_work;

INLINE doubles widened(const real *x) {
    few v;
    memcpy(&v, x, sizeof v);
    return __builtin_convertvector(v, doubles);
}

static double square_sum_of(const real *x, size_t size) {
    doubles sum[SUMS] = {{0}};
    real end[SUMS * DOUBLES] = {0}; /* what is left, with zeros behind */
    size_t i = 0, step = SUMS * DOUBLES;
    for (;; i += step) {
        if (size - i < step) {
            memcpy(end, x + i, (size - i) * sizeof(real));
            x = end;
        }
        const real *from = x == end ? x : x + i;
        for (size_t s = 0; s < SUMS; s++) {
            doubles v = widened(from + s * DOUBLES);
            sum[s] += v * v;
        }
        if (x == end) break;
    }
    doubles all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double total = 0;
    for (size_t lane = 0; lane < DOUBLES; lane++) total += all[lane];
    return total;
}

static void square_some(const void *context, size_t from, size_t to) {
    const squares_work *w = context;
    for (size_t chunk = from; chunk < to; chunk++) {
        size_t i = array_of(chunk, w->count, w->first), start = (chunk - w->first[i]) * CHUNK;
        size_t left = w->sizes[i] - start;
        w->sums[chunk] = square_sum_of((const real *)w->arrays[i] + start, left < CHUNK ? left : CHUNK);
    }
}

int EXPORTED(square_sum)(size_t count, const size_t *sizes, const void *const *arrays, double *sum) {
    size_t chunks = 0;
    for (size_t i = 0; i < count; i++) chunks += chunks_of(sizes[i]);
    double *sums = minilm_workspace(chunks * sizeof *sums + (count + 1) * sizeof(size_t));
    if (!sums) return MINILM_NO_MEMORY;
    size_t *first = (size_t *)(sums + chunks);
    number_chunks(count, sizes, first);
    squares_work w = {count, sizes, first, arrays, sums};
    share_rows(chunks, 1, chunks > 4 ? 1 : chunks, square_some, &w);
    *sum = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++) *sum += sums[chunk];
    return MINILM_OK;
}
