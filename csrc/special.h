/* tanh, the logistic function, erf and GELU of vectors. Errors are in units of the last place (ulp), measured by
 * tests/kernels/test_native_pointwise.py over the whole range. */
#ifndef SPECIAL_H
#define SPECIAL_H

#include <stdbool.h>

#include "exp.h"

#ifdef MINILM_DOUBLE
#define TANH_LIMIT 20.0 /* tanh rounds to 1 from here on */
#else
#define TANH_LIMIT 10.0f
#endif

/* tanh x to 3 ulp, near 0 too.
 *
 *     tanh x = m / (m + 2),    m = e^2x - 1 = (2^n - 1) + 2^n (e^r - 1) for x >= 0,  n and r as in vec_exp
 *
 * Where n = 0 nothing is left of e^2x but the small e^r - 1, exact in all its digits. */
INLINE vec vec_tanh(vec x) {
    vec n, r = exp_reduce(2 * vec_min(vec_all(TANH_LIMIT), vec_abs(x)), &n);
    vec power = vec_times_power_of_two(vec_all(1), n);
    vec m = vec_fma(power, vec_fma(r * r, exp_series(r), r), power - 1);
    return vec_signed(m / (m + 2), x);
}

/* 1 / (1 + e^-x) to 3 ulp, from e^-|x| so that nothing overflows */
INLINE vec vec_sigmoid(vec x) {
    vec e = vec_exp(-vec_abs(x));
    return vec_where(x < 0, e, vec_all(1)) / (1 + e);
}

/* erfc(z) e^(z^2) for 0 <= z is smooth and falls as 1 / z: a ratio of polynomials with positive coefficients, so that
 * nothing cancels. Interpolated in 60 digits at Chebyshev nodes of (z - 2) / (z + 2) up to z = 10.4 in float (relative
 * error 8e-9), of (z - 3) / (z + 3) up to 27.5 in double (2e-18); e^(-z^2) is 0 behind that. */
static const real ERFC_ABOVE[] = {
#ifdef MINILM_DOUBLE
    1.0,
    2.346539071552688854,
    2.729006308105710933,
    2.032924824392971015,
    1.064285031351004491,
    0.4073194522104119179,
    0.1152612090026749439,
    0.02384335277034274248,
    0.003464147385781019212,
    0.0003214757247410964268,
    0.00001465122340589044408,
#else
    1.0f,
    1.23375025f,
    0.7264052225f,
    0.2266137238f,
    0.03220105752f,
#endif
};
static const real ERFC_BELOW[] = {
#ifdef MINILM_DOUBLE
    1.0,
    3.474918238648201642,
    5.650031655956562133,
    5.685637377820255955,
    3.943825042750584699,
    1.985506092562916187,
    0.7428006544533724472,
    0.207352210046964517,
    0.04254614288219932937,
    0.006153025682645763964,
    0.0005698008862907700537,
    0.00002596861734624295378,
#else
    1.0f,
    2.362129782f,
    2.391776665f,
    1.315613037f,
    0.4016895283f,
    0.05707417372f,
#endif
};

/* erf(z) / z - 1 for 0 <= z <= 1, in powers of z^2; interpolated likewise (1e-9, 1e-19) */
static const real ERF_NEAR[] = {
#ifdef MINILM_DOUBLE
    0.1283791670955125738,
    -0.3761263890318374806,
    0.1128379167095487867,
    -0.02686617064507679325,
    0.005223977624818014467,
    -8.548326980833789905e-4,
    1.205533111164271092e-4,
    -1.492559526683118157e-5,
    1.646100048412136803e-6,
    -1.635031270105469501e-7,
    1.465977527404743581e-8,
    -1.137284885679167367e-9,
    5.957176147748911404e-11,
#else
    0.1283791658f,
    -0.3761262667f,
    0.1128359472f,
    -0.02685421201f,
    0.005189087423f,
    -0.0008016864287f,
    7.875875063e-5f,
#endif
};

/* c[0] + c[1] x + ... by Horner's rule */
#define COUNT(array) (int)(sizeof(array) / sizeof(*(array)))
INLINE vec polynomial(const real *c, int count, vec x) {
    vec sum = vec_all(c[count - 1]);
#pragma GCC unroll 16
    for (int i = count - 2; i >= 0; i--) sum = vec_fma(sum, x, vec_all(c[i]));
    return sum;
}

INLINE vec scaled_erfc(vec z) {
    return polynomial(ERFC_ABOVE, COUNT(ERFC_ABOVE), z) / polynomial(ERFC_BELOW, COUNT(ERFC_BELOW), z);
}

/* erf x to 2 ulp: x times a polynomial up to 1, and 1 - erfc beyond */
INLINE vec vec_erf(vec x) {
    vec z = vec_min(vec_all(6), vec_abs(x)); /* 1 - erfc(6) rounds to 1 */
    vec t = z * z;
    vec near = vec_fma(polynomial(ERF_NEAR, COUNT(ERF_NEAR), t), z, z);
    vec far = 1 - scaled_erfc(z) * vec_exp(-t);
    return vec_signed(vec_where(z < 1, near, far), x);
}

/* --- GELU: y = x P(x), P the share of the normal distribution below x ----------------------------------- */

#define SQRT_HALF ((real)0.7071067811865475244)
#define NORMAL_PEAK ((real)0.3989422804014326779) /* 1 / sqrt(2 pi), the normal density at 0 */
#define TANH_SCALE ((real)0.7978845608028653559)  /* sqrt(2 / pi) */
#define TANH_CUBE ((real)0.044715)
#define GELU_LIMIT ((real)40) /* e^(-x^2 / 2) is 0 from here on */

/* P(x) to 5 ulp, however small (a normal number), from erfc rather than 1 + erf; *density = e^(-x^2 / 2).
 *
 *     P(-t) = e^(-t^2 / 2) (erfc(z) e^(z^2)) / 2,  z = t / sqrt 2        P(t) = 1 - P(-t)
 *
 * What is lost in rounding t^2 would be magnified by the exponential: `low` brings it back. (Without fused
 * multiply-adds it is 0, and the error up to 5 + x^2 / 2 ulp.) */
INLINE vec normal_share(vec x, vec *density) {
    vec t = vec_min(vec_all(GELU_LIMIT), vec_abs(x));
    vec square = t * t, low = vec_fma(t, t, -square);
    vec e = vec_exp(square * (real)-0.5);
    e = vec_fma(e * low, vec_all((real)-0.5), e);
    vec below = e * scaled_erfc(t * SQRT_HALF) * (real)0.5;
    *density = e;
    return vec_where(x < 0, below, 1 - below);
}

/* u of P(x) = (1 + tanh u) / 2 = 1 / (1 + e^-2u), the approximation by tanh: returns 2 u */
INLINE vec twice_tanh_argument(vec x) {
    return x * vec_fma(x * x, vec_all(2 * TANH_SCALE * TANH_CUBE), vec_all(2 * TANH_SCALE));
}

/* x P(x), by erf, or by the approximation with tanh (Hendrycks & Gimpel 2016): to 7 ulp, or 4 + 2 |2u| ulp */
INLINE vec vec_gelu(vec x, bool tanh_formula) {
    vec density;
    if (tanh_formula) return x * vec_sigmoid(twice_tanh_argument(x));
    return x * normal_share(x, &density);
}

/* The derivative of x P(x): P(x) + x P'(x) */
INLINE vec vec_gelu_slope(vec x, bool tanh_formula) {
    vec share, slope; /* P and P' */
    vec near = vec_max(vec_all(-GELU_LIMIT), vec_min(vec_all(GELU_LIMIT), x)); /* P' is 0 beyond, and x P' not NaN */
    if (tanh_formula) {
        /* P (1 - P) from e^-|2u| rather than from P, which may have rounded to 1 already */
        vec e = vec_exp(-vec_abs(twice_tanh_argument(near))), scale = 1 / (1 + e);
        share = vec_where(x < 0, e, vec_all(1)) * scale;
        /* (2 u)' = 2 sqrt(2 / pi) (1 + 3 0.044715 x^2), and P' = P (1 - P) (2 u)' */
        slope = vec_fma(near * near, vec_all(6 * TANH_SCALE * TANH_CUBE), vec_all(2 * TANH_SCALE));
        slope *= e * scale * scale;
    } else {
        share = normal_share(near, &slope);
        slope *= NORMAL_PEAK;
    }
    return vec_fma(near, slope, share);
}

#endif
