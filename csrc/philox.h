/* Philox4x32-10: four random numbers as a function of a key and a counter.
 *
 * Source: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3. */
#ifndef PHILOX_H
#define PHILOX_H

#include <stdint.h>

/* The numbers of counter (upper, lower): minilm/kernels/philox.py calls the upper half a stream. */
static inline void philox(uint64_t key, uint64_t upper, uint64_t lower, uint32_t drawn[4]) {
    uint32_t c0 = (uint32_t)lower, c1 = (uint32_t)(lower >> 32), c2 = (uint32_t)upper, c3 = (uint32_t)(upper >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t left = (uint64_t)c0 * 0xD2511F53u, right = (uint64_t)c2 * 0xCD9E8D57u;
        c0 = (uint32_t)(right >> 32) ^ c1 ^ k0;
        c2 = (uint32_t)(left >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)right;
        c3 = (uint32_t)left;
        k0 += 0x9E3779B9u; /* the golden ratio, and sqrt(3) - 1 */
        k1 += 0xBB67AE85u;
    }
    drawn[0] = c0, drawn[1] = c1, drawn[2] = c2, drawn[3] = c3;
}

/* 24 of the bits as a number in [0, 1), exact in float. */
static inline float philox_uniform(uint32_t bits) { return (float)(bits >> 8) * 0x1p-24f; }

#endif
