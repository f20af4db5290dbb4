#include "kernels/gemm_packed.h"
#include <string.h>

/* PANEL_REALS: reals of the packed panels, 256 KiB of floats, which stay in the L2 cache. MR: rows of a microkernel, at most
 * MAX_MR; with NV vectors their sums, an operand and the panel's vectors fill the registers (PLAIN: those of NEON). LDX:
 * row stride of the MR rows of X, which are copied: the stride is then a constant, and not a power of two, with which the
 * rows would compete for the same lines of the L1 cache. */
enum { PANEL_REALS = 64 * 1024, LDX = GEMM_KC + 16, MAX_MR = 14 };
enum { CACHE_LINE = 64 };
_Static_assert(GEMM_SCRATCH >= PANEL_REALS + MAX_MR * LDX + CACHE_LINE / REAL_SIZE, "the panels, the rows of X, the alignment");

/* Rows of B as it is stored, of the block that is packed next: while a block is multiplied memory is asked for them. */
typedef struct {
    uintptr_t at;
    size_t stride, step, left; /* bytes from row to row, modulo 2^64, bytes for a k of the microkernel, rows that are left */
} rows_ahead;

/* A microkernel asks for ROWS_AHEAD rows, of GEMM_KC elements each. */
enum { ROWS_AHEAD = 8, K_A_ROW = GEMM_KC / ROWS_AHEAD };

/* The block of width columns that begins at (k0, n0) */
static rows_ahead block_ahead(const gemm_call *c, size_t k0, size_t n0, size_t width) {
    if (n0 >= c->N || c->blocks || (c->k_stride != 1 && c->n_stride != 1)) return (rows_ahead){0};
    size_t item = (size_t)wtype_layouts[c->type].bytes, K = c->K - k0, N = c->N - n0;
    return (rows_ahead){.at = (uintptr_t)c->data + (k0 * (size_t)c->k_stride + n0 * (size_t)c->n_stride) * item,
                        .stride = (size_t)(c->k_stride == 1 ? c->n_stride : c->k_stride) * item, .step = ROWS_AHEAD * item,
                        .left = c->k_stride == 1 ? N < width ? N : width : K < GEMM_KC ? K : GEMM_KC};
}

/* Takes the next ROWS_AHEAD rows; where there are none left, an address that is read anyway. */
static rows_ahead some_ahead(rows_ahead *block) {
    rows_ahead some = *block;
    if (some.left < ROWS_AHEAD) return (rows_ahead){.at = (uintptr_t)block};
    block->at += ROWS_AHEAD * block->stride;
    block->left -= ROWS_AHEAD;
    return some;
}

#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, ISA)

#define ISA plain
#define TARGET
#define VECTOR 16
#define MR 6
#define NV 4
#include "kernels/gemm_microkernel.h"
#undef ISA
#undef TARGET
#undef VECTOR
#undef MR
#undef NV

#if HAS_TARGETS
#define ISA avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#define MR 6
#define NV 2
#include "kernels/gemm_microkernel.h"
#undef ISA
#undef TARGET
#undef VECTOR
#undef MR
#undef NV

#define ISA avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#define MR 14
#define NV 2
#include "kernels/gemm_microkernel.h"
#else
#define product_avx512 product_plain
#define product_avx2 product_plain
#endif

/* Whether there is nothing to sum; then writes the result, which is the bias. */
static int is_empty(const gemm_call *c) {
    if (c->K) return !c->M || !c->N;
    for (size_t m = 0; !c->add && m < c->M; m++)
        for (size_t n = 0; n < c->N; n++) c->Y[m * c->ldy + n] = c->bias ? c->bias[n] : 0;
    return 1;
}

/* The panels begin on a cache line. */
static real *aligned(real *scratch) { return (real *)(((uintptr_t)scratch + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1)); }

void gemm_packed(cpu_isa isa, const gemm_call *c, real *scratch) {
    static void (*const products[])(const gemm_call *, real *) = {
        [PLAIN] = product_plain, [AVX2] = product_avx2, [AVX512] = product_avx512};
    if (!is_empty(c)) products[isa](c, aligned(scratch));
}
