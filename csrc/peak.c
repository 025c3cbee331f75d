/* What the processor can do at most: multiply-adds that wait for nothing but the units that compute them. */
#include "minilm.h"
#include "simd.h"

/* Enough independent chains to hide the latency of one operation, few enough to stay in registers. */
enum { CHAINS = VEC_REGISTERS == 32 ? 24 : 12 };

double EXPORTED(peak)(size_t steps) {
    vec chain[CHAINS];
    const vec half = vec_all((real)0.5), one = vec_all(1);
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) chain[i] = vec_all((real)i);
    for (size_t step = 0; step < steps; step++) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) chain[i] = vec_fma(chain[i], half, one); /* goes to 2, stays finite */
        __asm__ volatile("");
    }
    vec sum = vec_zero();
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) sum += chain[i];
    volatile real used = vec_sum(sum); /* or the compiler would leave all of it out */
    (void)used;
    return 2.0 * (double)steps * CHAINS * LANES;
}
