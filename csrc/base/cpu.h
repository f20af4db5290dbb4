/* Instruction sets that a kernel is compiled for beside the plain one, chosen at run time: functions of TARGET_AVX2 and
 * TARGET_AVX512, listed in the order of `instructions`. HAS_TARGETS: 0 where there is only the plain one. */
#ifndef PS_CPU_H
#define PS_CPU_H

typedef enum { PLAIN, AVX2, AVX512 } cpu_isa;

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_TARGETS 1
#define TARGET_AVX2 __attribute__((target("avx2,fma")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")))
#else
#define HAS_TARGETS 0
#endif

cpu_isa cpu_best(void);               /* the last that the machine has */
const char *cpu_name(cpu_isa kind); /* as POWERSTEER_CPU spells it */

#endif
