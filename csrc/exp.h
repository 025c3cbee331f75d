/* Exponentials of vectors, for every kernel that needs them. */
#ifndef EXP_H
#define EXP_H

#include "simd.h"

#ifdef MINILM_DOUBLE
#define LOWEST (-746.0) /* e^x rounds to 0 from here on */
#define HIGHEST 710.0   /* and is too large for a `real` here */
#define LN2_HIGH 6.93145751953125e-1
#define LN2_LOW 1.42860682030941723212e-6
#define TERMS 13
#else
#define LOWEST (-104.0f)
#define HIGHEST 89.0f
#define LN2_HIGH 0.693359375f
#define LN2_LOW (-2.12194440e-4f)
#define TERMS 7
#endif

/* 1/2!, 1/3! ... */
static const real INVERSE_FACTORIAL[] = {
    1.0 / 2,       1.0 / 6,        1.0 / 24,        1.0 / 120,         1.0 / 720,         1.0 / 5040,
    1.0 / 40320.0, 1.0 / 362880.0, 1.0 / 3628800.0, 1.0 / 39916800.0, 1.0 / 479001600.0, 1.0 / 6227020800.0,
};

/* 1/2! + r/3! + r^2/4! ...: all of e^r but 1 + r, for |r| <= ln 2 / 2 */
INLINE vec exp_series(vec r) {
    vec series = vec_all(INVERSE_FACTORIAL[TERMS - 2]);
#pragma GCC unroll 13
    for (int i = TERMS - 3; i >= 0; i--) series = vec_fma(series, r, vec_all(INVERSE_FACTORIAL[i]));
    return series;
}

/* x = n ln 2 + r for whole n, |r| <= ln 2 / 2: returns r.
 *
 * ln 2 is split in two so that n LN2_HIGH is exact (Cody & Waite 1980). */
INLINE vec exp_reduce(vec x, vec *n) {
    /* adding and taking away 1.5 2^MANTISSA_BITS pushes the fraction out of the mantissa: x / ln 2, rounded */
    const vec shift = vec_all((real)1.5 * (real)((integer)1 << MANTISSA_BITS));
    *n = vec_fma(x, vec_all((real)1.44269504088896340736), shift) - shift;
    return vec_fma(*n, vec_all(-LN2_LOW), vec_fma(*n, vec_all(-LN2_HIGH), x));
}

/* e^x to about one unit in the last place, subnormal results included; infinity beyond the largest number.
 *
 *     x = n ln 2 + r,  |r| <= ln 2 / 2:     e^x = 2^n e^r,     e^r = 1 + r + r^2 (1/2! + r/3! + ...) */
INLINE vec vec_exp(vec x) {
    vec n, r = exp_reduce(vec_min(vec_all(HIGHEST), vec_max(vec_all(LOWEST), x)), &n);
    vec e = vec_fma(r * r, exp_series(r), r) + (real)1;
    return vec_times_power_of_two(e, n);
}

#endif
