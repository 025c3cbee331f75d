/* Which instruction sets this processor, and the system on it, can run. */
#include "minilm.h"

extern const minilm_kernels minilm_kernels_portable;

#if defined(__x86_64__)
#include <cpuid.h>

extern const minilm_kernels minilm_kernels_x86_64_v2, minilm_kernels_x86_64_v3, minilm_kernels_x86_64_v4,
    minilm_kernels_x86_64_v4_bf16;

static bool has(uint32_t bits, uint32_t wanted) { return (bits & wanted) == wanted; }

/* The registers whose contents the system keeps when it switches threads; without that they must not be used. */
static uint32_t registers_kept(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* The level of x86-64 (2, 3 or 4), as far as the C part uses it; 5 for 4 with products of bfloat16; 1 for a processor
 * before 2009. */
static int x86_64_level(void) {
    enum { SSE_AND_AVX = 0x6, AND_AVX512 = 0xe6 };
    uint32_t eax, ebx, ecx, edx, leaf7_ebx = 0, leaf7_ecx, leaf7_edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has(ecx, bit_SSE4_2 | bit_SSSE3 | bit_POPCNT)) return 1;
    if (!has(ecx, bit_OSXSAVE | bit_AVX | bit_FMA)) return 2;
    uint32_t kept = registers_kept();
    __get_cpuid_count(7, 0, &eax, &leaf7_ebx, &leaf7_ecx, &leaf7_edx);
    if (!has(kept, SSE_AND_AVX) || !has(leaf7_ebx, bit_AVX2 | bit_BMI | bit_BMI2)) return 2;
    uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL;
    if (!has(kept, AND_AVX512) || !has(leaf7_ebx, avx512)) return 3;
    uint32_t bfloat16 = 0;
    __get_cpuid_count(7, 1, &bfloat16, &ebx, &ecx, &edx);
    return has(bfloat16, bit_AVX512BF16) ? 5 : 4;
}

const minilm_kernels *const *minilm_tables(int *count) {
    static const minilm_kernels *const tables[] = {&minilm_kernels_portable, &minilm_kernels_x86_64_v2,
                                                   &minilm_kernels_x86_64_v3, &minilm_kernels_x86_64_v4,
                                                   &minilm_kernels_x86_64_v4_bf16};
    *count = x86_64_level();
    return tables;
}

#elif defined(__aarch64__)

extern const minilm_kernels minilm_kernels_aarch64;

const minilm_kernels *const *minilm_tables(int *count) { /* every AArch64 processor has these vectors */
    static const minilm_kernels *const tables[] = {&minilm_kernels_portable, &minilm_kernels_aarch64};
    *count = 2;
    return tables;
}

#else

const minilm_kernels *const *minilm_tables(int *count) {
    static const minilm_kernels *const tables[] = {&minilm_kernels_portable};
    *count = 1;
    return tables;
}

#endif
