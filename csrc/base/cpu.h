/* The instruction sets that kernels are compiled for; one is chosen at run time. A function marked TARGET_AVX2 or
 * TARGET_AVX512 may use that set, and F16C, which every processor with FMA has; tables of kernels are indexed by cpu_isa.
 * HAS_TARGETS is 0 where only PLAIN exists. KERNELS_BY_ISA stands behind a macro KERNELS(NAME, TARGET), which defines a table NAME
 * of type kernels: it makes the tables of all sets, and kernels_of, which finds one. */
#ifndef PS_CPU_H
#define PS_CPU_H

typedef enum { PLAIN, AVX2, AVX512 } cpu_isa;

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_TARGETS 1
#define TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,f16c,prefer-vector-width=512")))
#define KERNELS_BY_ISA                                                             \
    KERNELS(plain, ) KERNELS(avx2, TARGET_AVX2) KERNELS(avx512, TARGET_AVX512)     \
    static const kernels *kernels_of(cpu_isa isa) {                                \
        static const kernels *const all[] = {&plain, &avx2, &avx512};              \
        return all[isa];                                                           \
    }
#else
#define HAS_TARGETS 0
#define KERNELS_BY_ISA KERNELS(plain, ) static const kernels *kernels_of(cpu_isa isa) { (void)isa; return &plain; }
#endif

cpu_isa cpu_best(void);            /* the last that this machine has */
const char *cpu_name(cpu_isa isa); /* as POWERSTEER_CPU spells it */

#endif
