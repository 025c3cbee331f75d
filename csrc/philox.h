/* Philox4x32-10: random numbers as a function of a key and a counter.
 *
 * Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. */
#ifndef PHILOX_H
#define PHILOX_H

#include <stdint.h>

enum { AT_A_TIME = 16 }; /* counters, so that the compiler can use vectors */

/* The four numbers of each of the counters (stream, start), (stream, start + 1) ...: out[4 i + word] */
static inline void philox(uint64_t key, uint64_t stream, uint64_t start, uint32_t out[4 * AT_A_TIME]) {
    uint32_t c[4][AT_A_TIME], k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (unsigned i = 0; i < AT_A_TIME; i++) {
        c[0][i] = (uint32_t)(start + i);
        c[1][i] = (uint32_t)((start + i) >> 32);
        c[2][i] = (uint32_t)stream;
        c[3][i] = (uint32_t)(stream >> 32);
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (unsigned i = 0; i < AT_A_TIME; i++) {
            uint64_t left = (uint64_t)c[0][i] * 0xD2511F53u, right = (uint64_t)c[2][i] * 0xCD9E8D57u;
            c[0][i] = (uint32_t)(right >> 32) ^ c[1][i] ^ k0;
            c[2][i] = (uint32_t)(left >> 32) ^ c[3][i] ^ k1;
            c[1][i] = (uint32_t)right;
            c[3][i] = (uint32_t)left;
        }
    for (unsigned i = 0; i < AT_A_TIME; i++)
        for (unsigned word = 0; word < 4; word++) out[4 * i + word] = c[word][i];
}

/* 24 of the bits as a number in [0, 1), exact in float. */
static inline float philox_uniform(uint32_t bits) { return (float)(int32_t)(bits >> 8) * 0x1p-24f; }

#endif
