#include "base/cpu.h"
#if HAS_TARGETS
#include <cpuid.h>

/* Whether float16 is converted by the processor, which older compilers' __builtin_cpu_supports does not know. */
static int has_f16c(void) {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

cpu_isa cpu_best(void) {
#if HAS_TARGETS
    if (!has_f16c()) return PLAIN; /* every processor with AVX2 has it, but a virtual one may hide it */
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return PLAIN;
}

const char *cpu_name(cpu_isa isa) {
    static const char *const names[] = {[PLAIN] = "portable", [AVX2] = "avx2", [AVX512] = "avx512"};
    return names[isa];
}
