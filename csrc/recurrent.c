/* One recurrent layer's walk over time, forward and back: the product with the state, and the gates, in one pass.
 *
 * At each time every unit needs the whole state before it, so there is one meeting of the threads per time and no more:
 *
 *   1. The weights are packed into panels of TILE_COLUMNS columns once, and stay so for all times (see gemm.c).
 *   2. A task has some units, all gates of them: it multiplies, then computes gates and states of its units.
 *   3. It writes the new state of its units as the next time's product reads it: for each unit the sequences side by
 *      side. Two such copies of the state take turns, as others may still read the one before.
 *
 * The way back is the same with the gradients of all gates in the place of the state: a task first makes the gradient
 * of its units' states from those of the time after, then those of its gates.
 *
 * Sums go over the channels in blocks whose size depends on their number alone, so the bits depend neither on the
 * threads nor on the other sequences. What is the same for all times, the product with the input and the gradient of
 * the weights, is left to gemm.
 */
#include "rows.h"
#include "special.h"
#include "tile.h"

enum { DEPTH = 512 * 4 / sizeof(real) }; /* of a block: a panel of it stays in the second cache (256: 1 % slower) */

static const double WORTH_MEETING = 1 << 20; /* multiply-adds of a time from which another thread is worth it */

typedef struct {
    const minilm_recurrent *r;
    size_t gates, depth;       /* G; how many channels go into a product: H, on the way back G H */
    size_t panel_rows, panels; /* sequences in each panel of the packed state, and how many panels */
    size_t blocks, chunks;     /* of TILE_COLUMNS units, and how many tasks share them */
    real *weights, *from, *to; /* packed: for this time, for the next */
    ptrdiff_t time, last;      /* which time; the one before it on the walk, -1: there is none */
    bool ends;                 /* on the way back, after all times: only the gradient of the first state is left */
} walk;

/* to[k to_row + i] = from[i from_row + k] for i < n, k < depth */
static void transpose(real *to, size_t to_row, const real *from, size_t from_row, size_t n, size_t depth) {
    for (size_t i = 0; i < n; i += 4)
        for (size_t k = 0; k < depth; k += 4) {
            const real *here = from + i * from_row + k;
            real *there = to + k * to_row + i;
            if (n - i >= 4 && depth - k >= 4) {
                transpose_4x4(there, to_row, here, (ptrdiff_t)from_row);
                continue;
            }
            for (size_t a = 0; a < smaller(4, n - i); a++)
                for (size_t b = 0; b < smaller(4, depth - k); b++) there[b * to_row + a] = here[a * from_row + b];
        }
}

/* The channels at, at + 1, ... of a time's rows (b, row), as the next product reads them. */
static void pack(const walk *w, real *to, const real *rows, size_t row, size_t b, size_t at, size_t count) {
    for (size_t first = 0; first < b; first += w->panel_rows)
        transpose(to + first * w->depth + at * w->panel_rows, w->panel_rows, rows + first * row + at, row,
                  smaller(w->panel_rows, b - first), count);
}

/* c (b, columns) = or += the packed state (b, depth) times a panel (depth, columns) of weights */
static void multiply(const walk *w, size_t b, size_t panel, size_t columns, real *c, size_t c_row, bool add) {
    const real *weights = w->weights + panel * w->depth * TILE_COLUMNS;
    size_t deep = parts(w->depth, parts(w->depth, DEPTH));
    for (size_t k = 0; k < w->depth; k += deep)
        for (size_t first = 0; first < b; first += w->panel_rows)
            tile_of(smaller(w->panel_rows, b - first), columns, smaller(deep, w->depth - k),
                    w->from + first * w->depth + k * w->panel_rows, (ptrdiff_t)w->panel_rows, weights + k * TILE_COLUMNS,
                    TILE_COLUMNS, c + first * c_row, (ptrdiff_t)c_row, add || k > 0);
}

/* The weights of one panel: forward those of a gate's units, on the way back those that a unit's state goes into. */
static void pack_weights(void *context, size_t panel) {
    const walk *w = context;
    size_t H = w->r->hidden, unit = panel % w->blocks * TILE_COLUMNS, gate = panel / w->blocks;
    size_t columns = smaller(TILE_COLUMNS, H - unit);
    real *to = w->weights + panel * w->depth * TILE_COLUMNS;
    if (columns < TILE_COLUMNS) memset(to, 0, w->depth * TILE_COLUMNS * sizeof(real));
    if (!w->r->dgiven)
        transpose(to, TILE_COLUMNS, (const real *)w->r->weight + (gate * H + unit) * H, H, columns, H);
    else
        for (size_t k = 0; k < w->depth; k++)
            memcpy(to + k * TILE_COLUMNS, (const real *)w->r->weight + k * H + unit, columns * sizeof(real));
}

/* --- one sequence at one time: the units from ... to - 1 ------------------------------------------------ */

#define EACH_UNIT(...)                                     \
    for (size_t u = from; u < to; u += LANES) {            \
        const size_t n = smaller(LANES, to - u);           \
        __VA_ARGS__                                        \
    }
#define LOAD(p) load_lanes((p) + u, n, 0)
#define STORE(p, value) store_lanes((p) + u, value, n)

/* y = tanh(given + y), or relu; h = y */
static void rnn_row(bool relu, size_t from, size_t to, const real *given, real *y, real *h) {
    EACH_UNIT({
        vec total = LOAD(given) + LOAD(y), new = relu ? vec_max(vec_zero(), total) : vec_tanh(total);
        STORE(y, new);
        STORE(h, new);
    })
}

/* gates (4, H): the products, then the gates; c and h: the states before, then those after */
static void lstm_row(size_t H, size_t from, size_t to, const real *given, real *gates, real *c, real *h, real *cell,
                     real *y) {
    EACH_UNIT({
        vec i = vec_sigmoid(LOAD(given) + LOAD(gates)), f = vec_sigmoid(LOAD(given + H) + LOAD(gates + H));
        vec g = vec_tanh(LOAD(given + 2 * H) + LOAD(gates + 2 * H));
        vec o = vec_sigmoid(LOAD(given + 3 * H) + LOAD(gates + 3 * H));
        vec new_c = vec_fma(f, LOAD(c), i * g), new_h = o * vec_tanh(new_c);
        STORE(gates, i);
        STORE(gates + H, f);
        STORE(gates + 2 * H, g);
        STORE(gates + 3 * H, o);
        STORE(c, new_c);
        STORE(h, new_h);
        STORE(cell, new_c);
        STORE(y, new_h);
    })
}

/* gates (3, H): the products, then r, z, n; kept: what n holds of the state, before r */
static void gru_row(size_t H, size_t from, size_t to, const real *given, const real *bias, real *gates, real *kept,
                    real *h, real *y) {
    EACH_UNIT({
        vec held_r = LOAD(gates), held_z = LOAD(gates + H), held_n = LOAD(gates + 2 * H), old = LOAD(h);
        if (bias) {
            held_r += LOAD(bias);
            held_z += LOAD(bias + H);
            held_n += LOAD(bias + 2 * H);
        }
        vec r = vec_sigmoid(LOAD(given) + held_r), z = vec_sigmoid(LOAD(given + H) + held_z);
        vec new_n = vec_tanh(vec_fma(r, held_n, LOAD(given + 2 * H))), new_h = vec_fma(z, old - new_n, new_n);
        STORE(gates, r);
        STORE(gates + H, z);
        STORE(gates + 2 * H, new_n);
        STORE(kept, held_n);
        STORE(h, new_h);
        STORE(y, new_h);
    })
}

static void rnn_row_backward(bool relu, size_t from, size_t to, const real *dy, const real *dh, const real *y,
                             real *dgiven) {
    EACH_UNIT({
        vec out = LOAD(y), above = LOAD(dy) + LOAD(dh);
        STORE(dgiven, relu ? vec_where(out > 0, above, vec_zero()) : above * (1 - out * out));
    })
}

static void lstm_row_backward(size_t H, size_t from, size_t to, const real *dy, const real *dh, real *dc,
                              const real *gates, const real *cell, const real *cell_before, real *dgiven) {
    EACH_UNIT({
        vec i = LOAD(gates), f = LOAD(gates + H), g = LOAD(gates + 2 * H), o = LOAD(gates + 3 * H);
        vec above = LOAD(dy) + LOAD(dh), tanh_c = vec_tanh(LOAD(cell));
        vec dcell = vec_fma(above * o, 1 - tanh_c * tanh_c, LOAD(dc));
        STORE(dgiven, dcell * g * i * (1 - i));
        STORE(dgiven + H, dcell * LOAD(cell_before) * f * (1 - f));
        STORE(dgiven + 2 * H, dcell * i * (1 - g * g));
        STORE(dgiven + 3 * H, above * tanh_c * o * (1 - o));
        STORE(dc, dcell * f);
    })
}

/* dheld: of the products, which for n is less than dgiven by r; dh: what goes past the gates to the state before */
static void gru_row_backward(size_t H, size_t from, size_t to, const real *dy, real *dh, const real *gates,
                             const real *kept, const real *before, real *dgiven, real *dheld) {
    EACH_UNIT({
        vec r = LOAD(gates), z = LOAD(gates + H), new_n = LOAD(gates + 2 * H), above = LOAD(dy) + LOAD(dh);
        vec dn = above * (1 - z) * (1 - new_n * new_n), dz = above * (LOAD(before) - new_n) * z * (1 - z);
        vec dr = dn * LOAD(kept) * r * (1 - r);
        STORE(dgiven, dr);
        STORE(dgiven + H, dz);
        STORE(dgiven + 2 * H, dn);
        STORE(dheld, dr);
        STORE(dheld + H, dz);
        STORE(dheld + 2 * H, dn * r);
        STORE(dh, above * z);
    })
}

/* --- one time ------------------------------------------------------------------------------------------- */

/* Row i of the values (N, H) of a time. */
static real *at(const walk *w, const void *values, ptrdiff_t time, size_t i) {
    return (real *)values + ((size_t)w->r->first[time] + i) * w->r->hidden;
}

/* The state of sequence i before this time: among the values of the time before, or the first of all. */
static const real *before(const walk *w, const void *values, const void *first, size_t i) {
    if (w->last >= 0 && i < (size_t)w->r->sizes[w->last]) return at(w, values, w->last, i);
    return (const real *)first + i * w->r->hidden;
}

static void forward_task(void *context, size_t task) {
    const walk *w = context;
    const minilm_recurrent *r = w->r;
    size_t H = r->hidden, G = w->gates, b = (size_t)r->sizes[w->time];
    size_t block = w->blocks * task / w->chunks, end = w->blocks * (task + 1) / w->chunks;
    size_t from = block * TILE_COLUMNS, to = smaller(end * TILE_COLUMNS, H);
    real *products = (real *)(r->gates ? r->gates : r->y) + (size_t)r->first[w->time] * G * H;
    for (; block < end; block++)
        for (size_t gate = 0; gate < G; gate++)
            multiply(w, b, gate * w->blocks + block, smaller(TILE_COLUMNS, H - block * TILE_COLUMNS),
                     products + gate * H + block * TILE_COLUMNS, G * H, false);
    for (size_t i = 0; i < b; i++) {
        const real *given = (const real *)r->given + ((size_t)r->first[w->time] + i) * G * H;
        real *gates = products + i * G * H, *h = (real *)r->h + i * H, *y = at(w, r->y, w->time, i);
        if (r->cell == MINILM_LSTM)
            lstm_row(H, from, to, given, gates, (real *)r->c + i * H, h, at(w, r->cells, w->time, i), y);
        else if (r->cell == MINILM_GRU)
            gru_row(H, from, to, given, r->bias, gates, at(w, r->cells, w->time, i), h, y);
        else
            rnn_row(r->cell == MINILM_RNN_RELU, from, to, given, y, h);
    }
    pack(w, w->to, r->h, H, b, from, to - from);
}

static void backward_task(void *context, size_t task) {
    const walk *w = context;
    const minilm_recurrent *r = w->r;
    size_t H = r->hidden, G = w->gates, block = w->blocks * task / w->chunks, end = w->blocks * (task + 1) / w->chunks;
    size_t from = block * TILE_COLUMNS, to = smaller(end * TILE_COLUMNS, H);
    ptrdiff_t after = w->ends ? w->time : r->reverse ? w->time - 1 : w->time + 1;
    if (after >= 0 && (size_t)after < r->times)
        for (; block < end; block++)
            multiply(w, (size_t)r->sizes[after], block, smaller(TILE_COLUMNS, H - block * TILE_COLUMNS),
                     (real *)r->h + block * TILE_COLUMNS, H, r->cell == MINILM_GRU);
    if (w->ends) return;
    size_t b = (size_t)r->sizes[w->time], row = (size_t)r->first[w->time] * G * H;
    real *dproducts = (real *)(r->dheld ? r->dheld : r->dgiven) + row;
    for (size_t i = 0; i < b; i++) {
        const real *dy = at(w, r->dy, w->time, i), *y = at(w, r->y, w->time, i);
        const real *gates = r->gates ? (const real *)r->gates + row + i * G * H : NULL;
        real *dh = (real *)r->h + i * H, *dgiven = (real *)r->dgiven + row + i * G * H;
        if (r->cell == MINILM_LSTM)
            lstm_row_backward(H, from, to, dy, dh, (real *)r->c + i * H, gates, at(w, r->cells, w->time, i),
                              before(w, r->cells, r->first_c, i), dgiven);
        else if (r->cell == MINILM_GRU)
            gru_row_backward(H, from, to, dy, dh, gates, at(w, r->cells, w->time, i), before(w, r->y, r->first_h, i),
                             dgiven, dproducts + i * G * H);
        else
            rnn_row_backward(r->cell == MINILM_RNN_RELU, from, to, dy, dh, y, dgiven);
    }
    for (size_t gate = 0; gate < G; gate++) pack(w, w->to, dproducts, G * H, b, gate * H + from, to - from);
}

/* --- all times ------------------------------------------------------------------------------------------ */

static int prepare(walk *w, const minilm_recurrent *r, size_t depth, size_t panels) {
    size_t B = r->batch, rows = parts(B, parts(B, TILE_ROWS));
    w->panel_rows = rows;
    w->panels = parts(B, rows);
    w->depth = depth;
    size_t state = w->panels * rows * depth, weights = panels * depth * TILE_COLUMNS;
    w->weights = minilm_workspace((weights + 2 * state + 1) * sizeof(real));
    if (!w->weights) return MINILM_NO_MEMORY;
    w->from = w->weights + weights;
    w->to = w->from + state;
    double once = (double)B * (double)depth * (double)(panels * TILE_COLUMNS);
    w->chunks = once < WORTH_MEETING ? 1 : smaller((size_t)minilm_get_num_threads(), w->blocks);
    if (w->chunks > 1)
        minilm_parallel(panels, pack_weights, w);
    else
        for (size_t i = 0; i < panels; i++) pack_weights(w, i);
    return MINILM_OK;
}

static void take_turns(walk *w) {
    real *from = w->from;
    w->from = w->to;
    w->to = from;
}

static size_t gates_of(const minilm_recurrent *r) {
    return r->cell == MINILM_LSTM ? 4 : r->cell == MINILM_GRU ? 3 : 1;
}

/* The time number `step` of the walk forward. */
static ptrdiff_t time_of(const minilm_recurrent *r, size_t step) {
    return (ptrdiff_t)(r->reverse ? r->times - 1 - step : step);
}

int EXPORTED(recurrent)(const minilm_recurrent *r) {
    walk w = {.r = r, .gates = gates_of(r), .blocks = parts(r->hidden, TILE_COLUMNS)};
    if (r->times == 0 || r->batch == 0 || r->hidden == 0) return MINILM_OK;
    if (prepare(&w, r, r->hidden, w.gates * w.blocks)) return MINILM_NO_MEMORY;
    pack(&w, w.from, r->h, r->hidden, r->batch, 0, r->hidden); /* both: who comes later has the first state still */
    pack(&w, w.to, r->h, r->hidden, r->batch, 0, r->hidden);
    for (size_t step = 0; step < r->times; step++) {
        w.time = time_of(r, step);
        minilm_parallel(w.chunks, forward_task, &w);
        take_turns(&w);
    }
    return MINILM_OK;
}

int EXPORTED(recurrent_backward)(const minilm_recurrent *r) {
    walk w = {.r = r, .gates = gates_of(r), .blocks = parts(r->hidden, TILE_COLUMNS)};
    if (r->times == 0 || r->batch == 0 || r->hidden == 0) return MINILM_OK;
    if (prepare(&w, r, w.gates * r->hidden, w.blocks)) return MINILM_NO_MEMORY;
    for (size_t step = r->times; step-- > 0;) {
        w.time = time_of(r, step);
        w.last = step > 0 ? time_of(r, step - 1) : -1;
        minilm_parallel(w.chunks, backward_task, &w);
        take_turns(&w);
    }
    w.ends = true;
    minilm_parallel(w.chunks, backward_task, &w);
    return MINILM_OK;
}
