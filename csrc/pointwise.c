/* Functions of single elements: each result depends on its own element alone, wherever that lies. */
#include "rows.h"
#include "special.h"

typedef struct {
    const real *x, *dy;
    real *y;
} work;

/* y = f(x) for the elements from ... to - 1; `f` is an expression of the vectors x and dy. */
#define APPLY(f)                                                          \
    {                                                                     \
        const work *w = context;                                          \
        size_t i = from, rest = (to - from) % LANES;                      \
        vec x, dy = vec_zero();                                           \
        for (; i + LANES <= to; i += LANES) {                             \
            x = vec_load(w->x + i);                                       \
            if (w->dy) dy = vec_load(w->dy + i);                          \
            vec_store(w->y + i, f);                                       \
        }                                                                 \
        if (rest) {                                                       \
            x = vec_load_first(w->x + i, rest, 0);                        \
            if (w->dy) dy = vec_load_first(w->dy + i, rest, 0);           \
            vec_store_first(w->y + i, f, rest);                           \
        }                                                                 \
        (void)dy;                                                         \
    }

static void exp_some(const void *context, size_t from, size_t to) APPLY(vec_exp(x))
static void tanh_some(const void *context, size_t from, size_t to) APPLY(vec_tanh(x))
static void sigmoid_some(const void *context, size_t from, size_t to) APPLY(vec_sigmoid(x))
static void erf_some(const void *context, size_t from, size_t to) APPLY(vec_erf(x))
static void gelu_some(const void *context, size_t from, size_t to) APPLY(vec_gelu(x, false))
static void gelu_tanh_some(const void *context, size_t from, size_t to) APPLY(vec_gelu(x, true))
static void relu_some(const void *context, size_t from, size_t to) APPLY(vec_relu(x, x))
static void slope_some(const void *context, size_t from, size_t to) APPLY(dy * vec_gelu_slope(x, false))
static void slope_tanh_some(const void *context, size_t from, size_t to) APPLY(dy * vec_gelu_slope(x, true))
static void kept_some(const void *context, size_t from, size_t to) APPLY(vec_relu(x, dy))

void EXPORTED(pointwise)(minilm_function function, size_t count, const void *x, void *y) {
    static some_rows *const functions[] = {
        [MINILM_EXP] = exp_some,   [MINILM_TANH] = tanh_some, [MINILM_SIGMOID] = sigmoid_some,
        [MINILM_ERF] = erf_some,   [MINILM_GELU] = gelu_some, [MINILM_GELU_TANH] = gelu_tanh_some,
        [MINILM_RELU] = relu_some,
    };
    work w = {.x = x, .y = y};
    share_rows(count, 1, 0, functions[function], &w);
}

void EXPORTED(gelu_backward)(bool tanh_formula, size_t count, const void *dy, const void *x, void *dx) {
    work w = {.x = x, .dy = dy, .y = dx};
    share_rows(count, 1, 0, tanh_formula ? slope_tanh_some : slope_some, &w);
}

void EXPORTED(relu_backward)(size_t count, const void *dy, const void *y, void *dx) {
    work w = {.x = y, .dy = dy, .y = dx};
    share_rows(count, 1, 0, kept_some, &w);
}
