/* Philox4x32-10: random numbers as a function of a key and a counter.
 *
 * Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. */
#ifndef PHILOX_H
#define PHILOX_H

#include "simd.h"

enum { AT_A_TIME = 16 }; /* counters: whole vectors of them */

typedef uint64_t wide __attribute__((vector_size(VEC_BYTES)));
enum { WIDE_LANES = VEC_BYTES / 8 };

/* The products, 64 bits each, of the lower halves of a's lanes and b. Compilers would multiply the whole lanes. */
INLINE wide product(wide a, uint32_t b) {
#if defined(MM) && VEC_BYTES == 64
    return (wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(MM) && VEC_BYTES == 32
    return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(MM)
    return (wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFFu) * (uint64_t)b;
#endif
}

/* The four numbers of each of the counters (stream, start), (stream, start + 1) ...: out[4 i + word] */
static inline void philox(uint64_t key, uint64_t stream, uint64_t start, uint32_t out[4 * AT_A_TIME]) {
    uint64_t words[4][AT_A_TIME];
    for (unsigned i = 0; i < AT_A_TIME; i += WIDE_LANES) {
        wide c0, c1, c2, c3; /* the lower half of each lane counts */
        for (unsigned lane = 0; lane < WIDE_LANES; lane++) c0[lane] = start + i + lane;
        c1 = c0 >> 32;
        c2 = stream - (wide){0};
        c3 = c2 >> 32;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
            wide left = product(c0, 0xD2511F53u), right = product(c2, 0xCD9E8D57u);
            c0 = (right >> 32) ^ c1 ^ (uint64_t)k0;
            c2 = (left >> 32) ^ c3 ^ (uint64_t)k1;
            c1 = right;
            c3 = left;
        }
        memcpy(&words[0][i], &c0, sizeof c0);
        memcpy(&words[1][i], &c1, sizeof c1);
        memcpy(&words[2][i], &c2, sizeof c2);
        memcpy(&words[3][i], &c3, sizeof c3);
    }
    for (unsigned i = 0; i < AT_A_TIME; i++)
        for (unsigned word = 0; word < 4; word++) out[4 * i + word] = (uint32_t)words[word][i];
}

/* 24 of the bits as a number in [0, 1), exact in float. */
static inline float philox_uniform(uint32_t bits) { return (float)(int32_t)(bits >> 8) * 0x1p-24f; }

#endif
