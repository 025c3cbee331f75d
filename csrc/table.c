/* The table of one instruction set: compiled once for each, with MINILM_SET its name in C (x86_64_v3) and
 * MINILM_SET_NAME its name for people ("x86-64-v3"). */
#include "minilm.h"

#define JOIN_EXPANDED(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_EXPANDED(a, b, c)
#define F32(name) JOIN(name, _f32_, MINILM_SET)
#define F64(name) JOIN(name, _f64_, MINILM_SET)

int F32(gemm)(const minilm_product *, const float *, const float *, float *);
int F64(gemm)(const minilm_product *, const double *, const double *, double *);
void F32(softmax)(size_t, size_t, const float *, ptrdiff_t, float *);
void F64(softmax)(size_t, size_t, const double *, ptrdiff_t, double *);
void F32(softmax_backward)(size_t, size_t, const float *, ptrdiff_t, const float *, ptrdiff_t, float *);
void F64(softmax_backward)(size_t, size_t, const double *, ptrdiff_t, const double *, ptrdiff_t, double *);
double F32(peak)(size_t);

const minilm_kernels JOIN(minilm_kernels, _, MINILM_SET) = {
    .name = MINILM_SET_NAME,
    .gemm_f32 = F32(gemm),
    .gemm_f64 = F64(gemm),
    .softmax_f32 = F32(softmax),
    .softmax_f64 = F64(softmax),
    .softmax_backward_f32 = F32(softmax_backward),
    .softmax_backward_f64 = F64(softmax_backward),
    .peak_f32 = F32(peak),
};
