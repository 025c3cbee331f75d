/* The table of one instruction set: compiled once for each, with MINILM_SET its name in C (x86_64_v3) and
 * MINILM_SET_NAME its name for people ("x86-64-v3"). */
#include "minilm.h"

#define JOIN_EXPANDED(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_EXPANDED(a, b, c)

extern const minilm_reals JOIN(minilm_reals, _f32_, MINILM_SET), JOIN(minilm_reals, _f64_, MINILM_SET);

/* without a `real`, or with float alone */
#define DECLARE(name) extern __typeof__(*((minilm_kernels *)0)->name) JOIN(name, _f32_, MINILM_SET)
DECLARE(peak);
DECLARE(philox);
DECLARE(keep_rows);

const minilm_kernels JOIN(minilm_kernels, _, MINILM_SET) = {
    .name = MINILM_SET_NAME,
    .f32 = &JOIN(minilm_reals, _f32_, MINILM_SET),
    .f64 = &JOIN(minilm_reals, _f64_, MINILM_SET),
    .peak = JOIN(peak, _f32_, MINILM_SET),
    .philox = JOIN(philox, _f32_, MINILM_SET),
    .keep_rows = JOIN(keep_rows, _f32_, MINILM_SET),
};
