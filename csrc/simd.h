/* The vector of `real`: the same few operations for every instruction set.
 *
 * The build compiles each numeric file once for every instruction set (by compiler flags, which define
 * __AVX2__ and the like) and once for each element type:
 *
 *     MINILM_DOUBLE      `real` is double, else float
 *     MINILM_SUFFIX      ends the name of every exported function: _f32_x86_64_v3
 *     MINILM_PORTABLE    nothing beyond what every compiler can do for every processor
 *
 * `vec` is a vector in the sense of GCC and Clang: + - * and comparisons work lane by lane. Only what they
 * cannot say is written with intrinsics below. A fused multiply-add happens where vec_fma is written and
 * nowhere else (-ffp-contract=off).
 */
#ifndef MINILM_SIMD_H
#define MINILM_SIMD_H

#include <float.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define JOIN_EXPANDED(a, b) a##b
#define JOIN(a, b) JOIN_EXPANDED(a, b)
#define EXPORTED(name) JOIN(name, MINILM_SUFFIX)
#define INLINE static inline __attribute__((always_inline))

#ifdef MINILM_DOUBLE
typedef double real;
#define LEAST (-DBL_MAX) /* of the finite ones */
typedef int64_t integer;
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#else
typedef float real;
#define LEAST (-FLT_MAX)
typedef int32_t integer;
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#endif

#if !defined(MINILM_PORTABLE) && defined(__AVX512F__)
#include <immintrin.h>
#define VEC_BYTES 64
#define VEC_REGISTERS 32
#ifdef MINILM_DOUBLE
#define MM(operation) _mm512_##operation##_pd
typedef __mmask8 lane_mask;
#else
#define MM(operation) _mm512_##operation##_ps
typedef __mmask16 lane_mask;
#endif

#elif !defined(MINILM_PORTABLE) && defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define VEC_BYTES 32
#define VEC_REGISTERS 16
#ifdef MINILM_DOUBLE
#define MM(operation) _mm256_##operation##_pd
#else
#define MM(operation) _mm256_##operation##_ps
#endif

#elif !defined(MINILM_PORTABLE) && defined(__SSE2__)
#include <emmintrin.h>
#define VEC_BYTES 16
#define VEC_REGISTERS 16
#ifdef MINILM_DOUBLE
#define MM(operation) _mm_##operation##_pd
#else
#define MM(operation) _mm_##operation##_ps
#endif

#elif !defined(MINILM_PORTABLE) && defined(__aarch64__)
#include <arm_neon.h>
#define VEC_BYTES 16
#define VEC_REGISTERS 32
#ifdef MINILM_DOUBLE
#define NEON(operation) operation##_f64
#else
#define NEON(operation) operation##_f32
#endif

#else
#define VEC_BYTES 16
#define VEC_REGISTERS 16
#endif

typedef real vec __attribute__((vector_size(VEC_BYTES)));
typedef integer ivec __attribute__((vector_size(VEC_BYTES)));

#define LANES (VEC_BYTES / (int)sizeof(real))

INLINE vec vec_load(const real *p) {
    vec v;
    memcpy(&v, p, sizeof v); /* becomes one unaligned load */
    return v;
}

INLINE void vec_store(real *p, vec v) { memcpy(p, &v, sizeof v); }

INLINE vec vec_zero(void) { return (vec){0}; }

/* x in every lane */
INLINE vec vec_all(real x) {
#if defined(MM)
    return MM(set1)(x);
#elif defined(NEON)
    return NEON(vdupq_n)(x);
#else
    return x - vec_zero();
#endif
}

/* a b + c, rounded once where the processor can, else after each of the two */
INLINE vec vec_fma(vec a, vec b, vec c) {
#if defined(MM) && VEC_BYTES > 16
    return MM(fmadd)(a, b, c);
#elif defined(NEON)
    return NEON(vfmaq)(c, a, b);
#else
    return a * b + c;
#endif
}

/* --- pairs of bfloat16 in the place of a float ------------------------------------------------------------- */

/* A bfloat16 is the upper half of a float: its exponent, and 7 of its 23 bits of fraction. Where the processor
 * multiplies them, two by two and with sums in float, twice as much is computed in the same time. */
#if VEC_BYTES == 64 && defined(__AVX512BF16__) && !defined(MINILM_DOUBLE)
#define HAS_PAIRS true

/* c + a.low b.low + a.high b.high for the pairs in each lane */
INLINE vec vec_fma_pairs(vec a, vec b, vec c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }

/* 2 LANES floats, rounded to the nearest bfloat16, as LANES pairs of neighbours */
INLINE vec vec_pair_neighbours(vec first, vec second) { return (vec)_mm512_cvtne2ps_pbh(second, first); }

/* Pairs of low and high, lane by lane */
INLINE vec vec_pair(vec low, vec high) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return (vec)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
#else
#define HAS_PAIRS false
INLINE vec vec_fma_pairs(vec a, vec b, vec c) { return vec_fma(a, b, c); } /* never called */
INLINE vec vec_pair_neighbours(vec first, vec second) { return first + second; }
INLINE vec vec_pair(vec low, vec high) { return low + high; }
#endif

/* The larger of a and b, lane by lane; b where either is NaN (NEON: NaN, which callers must not mind). */
INLINE vec vec_max(vec a, vec b) {
#if defined(MM)
    return MM(max)(a, b);
#elif defined(NEON)
    return NEON(vmaxq)(a, b);
#else
    ivec larger = a > b;
    return (vec)((larger & (ivec)a) | (~larger & (ivec)b));
#endif
}

/* The smaller of a and b, lane by lane; NaN as in vec_max. */
INLINE vec vec_min(vec a, vec b) {
#if defined(MM)
    return MM(min)(a, b);
#elif defined(NEON)
    return NEON(vminq)(a, b);
#else
    ivec smaller = a < b;
    return (vec)((smaller & (ivec)a) | (~smaller & (ivec)b));
#endif
}

/* a where `mask`, a comparison of vectors, holds, else b */
INLINE vec vec_where(ivec mask, vec a, vec b) { return (vec)((mask & (ivec)a) | (~mask & (ivec)b)); }

/* y where x is above 0 or NaN, else 0: of y = x relu, of y its gradient that of x */
INLINE vec vec_relu(vec x, vec y) { return vec_where(x <= 0, vec_zero(), y); }

#define SIGN_BIT ((integer)((uint64_t)1 << (8 * sizeof(real) - 1)))

INLINE vec vec_abs(vec v) { return (vec)((ivec)v & ~SIGN_BIT); }

/* size, which is not negative, with the sign of v */
INLINE vec vec_signed(vec size, vec v) { return (vec)((ivec)size | ((ivec)v & SIGN_BIT)); }

INLINE vec vec_sqrt(vec v) {
#if defined(MM)
    return MM(sqrt)(v);
#elif defined(NEON)
    return NEON(vsqrtq)(v);
#else
    for (int i = 0; i < LANES; i++) v[i] = (real)__builtin_sqrt(v[i]); /* of a float: the same, rounded twice or not */
    return v;
#endif
}

#if VEC_BYTES == 64
INLINE lane_mask vec_mask(size_t n) { return (lane_mask)((1u << n) - 1); }
#elif VEC_BYTES == 32
/* All bits in the first n lanes: the end of a row of ones followed by zeros. */
INLINE __m256i vec_mask(size_t n) {
    static const integer ones_zeros[2 * LANES] = {
        -1, -1, -1, -1,
#ifndef MINILM_DOUBLE
        -1, -1, -1, -1,
#endif
    };
    return _mm256_loadu_si256((const __m256i *)(ones_zeros + LANES - n));
}
#endif

/* AddressSanitizer does not see what masked instructions read and write: it is shown the last of the n reals at p. */
#ifdef __SANITIZE_ADDRESS__
#define SHOW_LAST(p, n) ((n) ? (void)((const volatile real *)(p))[(n) - 1] : (void)0)
#else
#define SHOW_LAST(p, n) ((void)0)
#endif

/* The first n reals at p, n < LANES, and `rest` in the other lanes; memory behind them is not touched. */
INLINE vec vec_load_first(const real *p, size_t n, real rest) {
    SHOW_LAST(p, n);
#if VEC_BYTES == 64
    return MM(mask_loadu)(vec_all(rest), vec_mask(n), p);
#elif VEC_BYTES == 32
    return MM(blendv)(vec_all(rest), MM(maskload)(p, vec_mask(n)), (vec)vec_mask(n));
#else
    vec v = vec_all(rest);
    for (size_t i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}

/* Store the first n lanes, n < LANES. */
INLINE void vec_store_first(real *p, vec v, size_t n) {
    SHOW_LAST(p, n);
#if VEC_BYTES == 64
    MM(mask_storeu)(p, vec_mask(n), v);
#elif VEC_BYTES == 32
    MM(maskstore)(p, vec_mask(n), v);
#else
    for (size_t i = 0; i < n; i++) p[i] = v[i];
#endif
}

/* to[j][i] = from[i][first + j] for i, j < 4; rows of `to` are `to_row` apart. */
INLINE void transpose_four(real *to, size_t to_row, const real *const *from, size_t first) {
    typedef real four __attribute__((vector_size(4 * sizeof(real))));
#ifdef __clang__
#define PICK(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#else
    typedef integer four_integers __attribute__((vector_size(4 * sizeof(real))));
#define PICK(x, y, a, b, c, d) __builtin_shuffle(x, y, (four_integers){a, b, c, d})
#endif
    four row[4], pair[4];
    for (int i = 0; i < 4; i++) memcpy(&row[i], from[i] + first, sizeof row[i]);
    pair[0] = PICK(row[0], row[1], 0, 4, 1, 5);
    pair[1] = PICK(row[2], row[3], 0, 4, 1, 5);
    pair[2] = PICK(row[0], row[1], 2, 6, 3, 7);
    pair[3] = PICK(row[2], row[3], 2, 6, 3, 7);
    for (int j = 0; j < 4; j += 2) {
        four even = PICK(pair[j], pair[j + 1], 0, 1, 4, 5), odd = PICK(pair[j], pair[j + 1], 2, 3, 6, 7);
        memcpy(to + (size_t)j * to_row, &even, sizeof even);
        memcpy(to + (size_t)(j + 1) * to_row, &odd, sizeof odd);
    }
#undef PICK
}

/* The same, with the rows of `from` `from_row` apart. */
INLINE void transpose_4x4(real *to, size_t to_row, const real *from, ptrdiff_t from_row) {
    const real *rows[4] = {from, from + from_row, from + 2 * from_row, from + 3 * from_row};
    transpose_four(to, to_row, rows, 0);
}

/* The sum of all lanes, by halves: lane i + lane (i + LANES/2), and so on. */
INLINE real vec_sum(vec v) {
#if VEC_BYTES == 64
    return MM(reduce_add)(v);
#else
    real lane[LANES];
    vec_store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
#endif
}

INLINE real vec_greatest(vec v) {
#if VEC_BYTES == 64
    return MM(reduce_max)(v);
#else
    real lane[LANES];
    vec_store(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    return lane[0];
#endif
}

/* v 2^n for whole n, rounded once where the result is below the smallest normal number, infinite above the largest. */
INLINE vec vec_times_power_of_two(vec v, vec n) {
#if VEC_BYTES == 64
    return MM(scalef)(v, n);
#else
    /* Adding 1.5 2^MANTISSA_BITS leaves n in the lowest bits. By two factors, since 2^n itself may be too small. */
    const vec shift = vec_all((real)1.5 * (real)((integer)1 << MANTISSA_BITS));
    ivec whole = (ivec)(n + shift) - (ivec)shift, half = whole >> 1;
    vec first = (vec)((half + EXPONENT_BIAS) << MANTISSA_BITS);
    vec second = (vec)((whole - half + EXPONENT_BIAS) << MANTISSA_BITS);
    return v * first * second;
#endif
}

#endif
