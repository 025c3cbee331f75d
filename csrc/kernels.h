/* What every numeric file includes: the interface, the vectors, and its kernels declared as the table has them, so
 * that the compiler compares each definition with the prototype in minilm.h. */
#ifndef KERNELS_H
#define KERNELS_H

#include "minilm.h"
#include "simd.h"

/* Every kernel of minilm_reals. A new one is added there, here, and in a numeric file. */
#define EACH_KERNEL(DO)        \
    DO(gemm)                   \
    DO(gemm_panels)            \
    DO(gemm_pack)              \
    DO(softmax)                \
    DO(softmax_backward)       \
    DO(attention)              \
    DO(attention_backward)     \
    DO(cached_attention)       \
    DO(largest)                \
    DO(recurrent)              \
    DO(recurrent_backward)     \
    DO(log_softmax)            \
    DO(log_softmax_backward)   \
    DO(layer_norm)             \
    DO(layer_norm_backward)    \
    DO(rms_norm)               \
    DO(rms_norm_backward)      \
    DO(sum_rows)               \
    DO(scatter_rows)           \
    DO(drop_rows)              \
    DO(cross_entropy)          \
    DO(cross_entropy_backward) \
    DO(adamw)                  \
    DO(square_sum)             \
    DO(pointwise)              \
    DO(gelu_backward)          \
    DO(relu_backward)

#define DECLARE(name) __typeof__(*((minilm_reals *)0)->name) EXPORTED(name);
EACH_KERNEL(DECLARE)
#undef DECLARE

#endif
