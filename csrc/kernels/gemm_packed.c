#include "kernels/gemm_packed.h"
#include <string.h>

/* Reals of the panels at a time: they stay in the L2 cache. LDX: from row to row of the tile's part of X, which is copied
 * so that the kernel knows the stride and no two rows compete for a place in the L1 cache. */
enum { PANEL_REALS = 32 * 1024, LDX = GEMM_KC + 16, MAX_MR = 14 };

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, KIND)

#define KIND plain
#define TARGET
#define VECTOR 16
#define MR 6
#define NV 4
#include "kernels/gemm_microkernel.h"
#undef KIND
#undef TARGET
#undef VECTOR
#undef MR
#undef NV

#if HAS_TARGETS
#define KIND avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#define MR 6
#define NV 2
#include "kernels/gemm_microkernel.h"
#undef KIND
#undef TARGET
#undef VECTOR
#undef MR
#undef NV

#define KIND avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#define MR 14
#define NV 2
#include "kernels/gemm_microkernel.h"
#else
#define product_avx512 product_plain
#define product_avx2 product_plain
#endif

/* Nothing to sum over. */
static int is_empty(const gemm_call *c) {
    if (c->K) return !c->M || !c->N;
    for (size_t m = 0; !c->add && m < c->M; m++)
        for (size_t n = 0; n < c->N; n++) c->Y[m * c->ldy + n] = c->bias ? c->bias[n] : 0;
    return 1;
}

/* the panels begin on a cache line */
static real *aligned(real *scratch) { return (real *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63); }

void gemm_packed(cpu_isa kind, const gemm_call *c, real *scratch) {
    static void (*const products[])(const gemm_call *, real *) = {product_plain, product_avx2, product_avx512};
    if (!is_empty(c)) products[kind](c, aligned(scratch));
}
