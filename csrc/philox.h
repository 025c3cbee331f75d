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

enum { WIDES = AT_A_TIME / WIDE_LANES };

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (wide){__VA_ARGS__})
#else
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
/* The lanes 0, 1, 2 ..., and those of two vectors by turns: the first halves, and the second ones. */
#if VEC_BYTES == 64
#define COUNTING ((wide){0, 1, 2, 3, 4, 5, 6, 7})
#define FIRST_BY_TURNS(a, b) SHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define SECOND_BY_TURNS(a, b) SHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#elif VEC_BYTES == 32
#define COUNTING ((wide){0, 1, 2, 3})
#define FIRST_BY_TURNS(a, b) SHUFFLE(a, b, 0, 4, 1, 5)
#define SECOND_BY_TURNS(a, b) SHUFFLE(a, b, 2, 6, 3, 7)
#else
#define COUNTING ((wide){0, 1})
#define FIRST_BY_TURNS(a, b) SHUFFLE(a, b, 0, 2)
#define SECOND_BY_TURNS(a, b) SHUFFLE(a, b, 1, 3)
#endif

/* The four numbers of WIDE_LANES counters, whose lower and upper halves are the lanes of two vectors; of what comes out
 * the lower half of each lane counts. */
INLINE void philox_words(uint64_t key, wide lower, wide upper, wide words[4]) {
    wide c0 = lower, c1 = lower >> 32, c2 = upper, c3 = upper >> 32;
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        wide left = product(c0, 0xD2511F53u), right = product(c2, 0xCD9E8D57u);
        c0 = (right >> 32) ^ c1 ^ (uint64_t)k0;
        c2 = (left >> 32) ^ c3 ^ (uint64_t)k1;
        c1 = right;
        c3 = left;
    }
    words[0] = c0, words[1] = c1, words[2] = c2, words[3] = c3;
}

/* Those of the counters (stream, start), (stream, start + 1) ...: out[4 i + word] */
static inline void philox(uint64_t key, uint64_t stream, uint64_t start, uint32_t out[4 * AT_A_TIME]) {
    for (unsigned i = 0; i < WIDES; i++) {
        wide w[4];
        philox_words(key, start + i * WIDE_LANES + COUNTING, stream - (wide){0}, w);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        wide low = (w[0] & 0xFFFFFFFFu) | w[1] << 32, high = (w[2] & 0xFFFFFFFFu) | w[3] << 32; /* two numbers a lane */
        wide both[2] = {FIRST_BY_TURNS(low, high), SECOND_BY_TURNS(low, high)};
        memcpy(out + 4 * WIDE_LANES * i, both, sizeof both);
#else
        for (unsigned lane = 0; lane < WIDE_LANES; lane++)
            for (unsigned word = 0; word < 4; word++)
                out[4 * (i * WIDE_LANES + lane) + word] = (uint32_t)w[word][lane];
#endif
    }
}

/* Those of one counter of many streams, (stream, counter), (stream + 1, counter) ...: out[word][i] */
static inline void philox_across(uint64_t key, uint64_t stream, uint64_t counter, uint32_t out[4][AT_A_TIME]) {
    uint64_t words[4][AT_A_TIME];
    for (unsigned i = 0; i < WIDES; i++) {
        wide w[4];
        philox_words(key, counter - (wide){0}, stream + i * WIDE_LANES + COUNTING, w);
        for (unsigned word = 0; word < 4; word++) memcpy(&words[word][i * WIDE_LANES], &w[word], sizeof w[word]);
    }
    for (unsigned word = 0; word < 4; word++)
        for (unsigned i = 0; i < AT_A_TIME; i++) out[word][i] = (uint32_t)words[word][i];
}

/* 24 of the bits as a number in [0, 1), exact in float. */
static inline float philox_uniform(uint32_t bits) { return (float)(int32_t)(bits >> 8) * 0x1p-24f; }

#endif
