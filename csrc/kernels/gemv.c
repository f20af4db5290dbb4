#include "kernels/gemv.h"
#include <string.h>

/* AHEAD: distance in bytes of the prefetch for one row, in this row of the weight or, as rows mostly follow each other in
 * memory, the next: the processor's own prefetcher stops at every page. A prefetch beyond the weight does nothing.
 * ROWS_AHEAD, COLUMNS: of gemv_t, the rows between a row and its prefetch, and the vectors that are summed together.
 * LD: row stride of the rows that are copied, not a power of two, with which they would compete for the same lines of the L1
 * cache. */
enum { AHEAD = 1024, ROWS_AHEAD = 8, COLUMNS = 8, CACHE_LINE = 64, LD = GEMV_DEPTH + CACHE_LINE / REAL_SIZE };
_Static_assert(GEMV_ROWS == 6, "tile in gemv_kernel.h has a case for each number of rows");
_Static_assert(GEMV_DEPTH % BLOCK_RUN == 0, "whole runs");

typedef struct {
    const weight *W;
    block_decoder decode;
    size_t o0, n, M;
    const real *X;
    size_t ldx;
    real *Y;
    size_t ldy;
    real *strip, *rows; /* scratch (GEMV_STRIP, LD), (GEMV_SLICE, LD) */
} gemv_call;

/* Rows of the weight to prefetch: n from `row` on */
typedef struct {
    const char *row;
    ptrdiff_t stride; /* bytes */
    size_t n;
} prefetch;

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* From a number of a plain weight to that which comes AHEAD later, in bytes: more than AHEAD where there are gaps between rows. */
static ptrdiff_t bytes_ahead(const weight *W) {
    size_t item = wtype_layouts[W->type].bytes, row = W->n_in * item;
    if (!row) return 0;
    return (ptrdiff_t)(AHEAD / row) * W->out_stride * (ptrdiff_t)item + (ptrdiff_t)(AHEAD % row);
}

#define W_REAL (REAL_SIZE == 8 ? W_F64 : W_F32)
#if REAL_SIZE == 8
#define simd_real simd_f64
#else
#define simd_real simd_f32
#endif
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, ISA)

/* OUTPUTS: of a tile of GEMV_ROWS rows; with their sums, its operands fill the registers (PLAIN: those of NEON). */
#define ISA plain
#define TARGET
#define VECTOR 16
#define OUTPUTS 4
#include "kernels/gemv_kernel.h"
#undef ISA
#undef TARGET
#undef VECTOR
#undef OUTPUTS

#if HAS_TARGETS
#define ISA avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#define OUTPUTS 2
#include "kernels/gemv_kernel.h"
#undef ISA
#undef TARGET
#undef VECTOR
#undef OUTPUTS

#define ISA avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#define OUTPUTS 4
#include "kernels/gemv_kernel.h"
#else
#define product_avx2 product_plain
#define product_avx512 product_plain
#define row_sums_avx2 row_sums_plain
#define row_sums_avx512 row_sums_plain
#endif

void gemv(cpu_isa isa, const weight *W, size_t o0, size_t n, size_t M, const real *X, size_t ldx, const real *bias, real *Y,
          size_t ldy, real *scratch) {
    static void (*const products[])(const gemv_call *) = {[PLAIN] = product_plain, [AVX2] = product_avx2, [AVX512] = product_avx512};
    real *strip = (real *)(((uintptr_t)scratch + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    for (size_t m = 0; m < M; m++)
        for (size_t o = 0; o < n; o++) Y[m * ldy + o] = bias ? bias[o] : 0;
    products[isa](&(gemv_call){.W = W, .decode = blocks_decoder(isa), .o0 = o0, .n = n, .M = M, .X = X, .ldx = ldx, .Y = Y, .ldy = ldy,
                               .strip = strip, .rows = strip + GEMV_STRIP * LD});
}

void gemv_t(cpu_isa isa, size_t K, size_t n, const real *x, const real *W, size_t ld, real *y) {
    static void (*const kernels[])(size_t, size_t, const real *, const real *, size_t, real *) = {
        [PLAIN] = row_sums_plain, [AVX2] = row_sums_avx2, [AVX512] = row_sums_avx512};
    kernels[isa](K, n, x, W, ld, y);
}
