#include "base/cpu.h"

cpu_isa cpu_best(void) {
#if HAS_TARGETS
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
