/* cross_entropy of rows of scores, forward and backward; sums as in rows.h.
 *
 * Everything is measured from the row's largest score: a score of 10000 has three digits behind the point in float,
 * its distance from the largest has them all. So lse is a double, and is taken from x in two steps.
 */
#include "exp.h"
#include "rows.h"

#include <math.h>

typedef struct {
    const minilm_scores *scores;
    const real *x, *weight, *dloss;
    real *loss, *dx;
    double *lse;           /* forward: written */
    const double *lse_was; /* backward: read */
} work;

static void loss_row(const work *w, size_t i) {
    const minilm_scores *s = w->scores;
    const real *x = w->x + (ptrdiff_t)i * s->x_row, *weight = w->weight;

    vec high[2] = {vec_all(-INFINITY), vec_all(-INFINITY)};
    EACH_VECTOR(s->columns, { high[k] = vec_max(high[k], load_lanes(x + j, n, -INFINITY)); })
    const real top = vec_greatest(vec_max(high[0], high[1])); /* a NaN that got lost here comes back through the sum */
    vec sum[2] = {vec_zero(), vec_zero()};
    EACH_VECTOR(s->columns, { sum[k] += vec_exp(load_lanes(x + j, n, -INFINITY) - top); })
    double log_sum = log((double)vec_sum(sum[0] + sum[1]));
    w->lse[i] = log_sum + (double)top;

    if (s->target[i] == s->ignore_index) {
        w->loss[i] = 0;
        return;
    }
    double loss = ((double)top - (double)x[s->target[i]]) + log_sum;
    if (weight) loss *= (double)weight[s->target[i]];
    if (s->label_smoothing != 0) {
        /* the sum of weight_c (lse - x_c) over all c */
        vec below[2] = {vec_zero(), vec_zero()};
        EACH_VECTOR(s->columns, {
            vec distance = top - load_lanes(x + j, n, top);
            below[k] += weight ? distance * load_lanes(weight + j, n, 0) : distance;
        })
        double mixed = log_sum * s->weight_sum + (double)vec_sum(below[0] + below[1]);
        loss = loss * (1 - s->label_smoothing) + mixed * (s->label_smoothing / (double)s->columns);
    }
    w->loss[i] = (real)loss;
}

/* dx_c = dloss ((1 - s) weight_t (p_c - [c = t]) + s / V (p_c sum of weights - weight_c)) */
static void loss_backward_row(const work *w, size_t i) {
    const minilm_scores *s = w->scores;
    const real *x = w->x + (ptrdiff_t)i * s->x_row, *weight = w->weight;
    real *dx = w->dx + i * s->columns;
    if (s->target[i] == s->ignore_index) {
        memset(dx, 0, s->columns * sizeof(real));
        return;
    }
    const real high = (real)w->lse_was[i], low = isfinite(high) ? (real)(w->lse_was[i] - (double)high) : 0;
    double dloss = (double)w->dloss[i], weight_t = weight ? (double)weight[s->target[i]] : 1;
    double of_target = dloss * (1 - s->label_smoothing) * weight_t;
    double of_all = dloss * (s->label_smoothing / (double)s->columns);
    const real of_p = (real)(of_target + of_all * s->weight_sum), of_each = (real)of_all;
    if (s->label_smoothing != 0) {
        EACH_VECTOR(s->columns, {
            vec p = vec_exp(load_lanes(x + j, n, 0) - high - low);
            vec each = of_each * (weight ? load_lanes(weight + j, n, 0) : vec_all(1));
            store_lanes(dx + j, p * of_p - each, n);
        })
    } else {
        EACH_VECTOR(s->columns, {
            store_lanes(dx + j, vec_exp(load_lanes(x + j, n, 0) - high - low) * of_p, n);
        })
    }
    dx[s->target[i]] -= (real)of_target;
}

static void loss_some(const void *context, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) loss_row(context, i);
}

static void loss_backward_some(const void *context, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) loss_backward_row(context, i);
}

void EXPORTED(cross_entropy)(const minilm_scores *scores, void *loss, double *lse) {
    work w = {.scores = scores, .x = scores->x, .weight = scores->weight, .loss = loss, .lse = lse};
    share_rows(scores->rows, scores->columns, 0, loss_some, &w);
}

void EXPORTED(cross_entropy_backward)(const minilm_scores *scores, const void *dloss, const double *lse, void *dx) {
    work w = {.scores = scores, .x = scores->x, .weight = scores->weight, .dloss = dloss, .dx = dx, .lse_was = lse};
    share_rows(scores->rows, scores->columns, 0, loss_backward_some, &w);
}
