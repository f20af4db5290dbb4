#include "kernels/gemv.h"

/* Distance in bytes of the prefetch, in this row or, as rows mostly follow each other in memory, the next: the processor's
 * own prefetcher stops at every page. A prefetch beyond the weight does nothing. */
enum { AHEAD = 1024 };
enum { DECODED = 256 }; /* numbers of blocks that are decoded at a time: a multiple of BLOCK_RUN */
_Static_assert(GEMV_MAX_ROWS == 4, "BY_ROWS in gemv_kernel.h has a case for each number of rows");

#define SIGNATURE wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X, size_t ldx, \
                  const real *bias, real *Y, size_t ldy
#define SIGNATURE_BLOCKS const weight *W, block_decoder decode, size_t o0, size_t n, size_t M, const real *X, size_t ldx, \
                         const real *bias, real *Y, size_t ldy
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, ISA)

#define ISA plain
#define TARGET
#define VECTOR 16
#include "kernels/gemv_kernel.h"
#undef ISA
#undef TARGET
#undef VECTOR

#if HAS_TARGETS
#define ISA avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#include "kernels/gemv_kernel.h"
#undef ISA
#undef TARGET
#undef VECTOR

#define ISA avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#include "kernels/gemv_kernel.h"
#else
#define gemv_avx2 gemv_plain
#define gemv_avx512 gemv_plain
#define gemv_blocks_avx2 gemv_blocks_plain
#define gemv_blocks_avx512 gemv_blocks_plain
#endif

void gemv(cpu_isa isa, SIGNATURE) {
    static void (*const kernels[])(SIGNATURE) = {[PLAIN] = gemv_plain, [AVX2] = gemv_avx2, [AVX512] = gemv_avx512};
    kernels[isa](type, data, stride, n, K, M, X, ldx, bias, Y, ldy);
}

void gemv_blocks(cpu_isa isa, const weight *W, size_t o0, size_t n, size_t M, const real *X, size_t ldx, const real *bias, real *Y,
                 size_t ldy) {
    static void (*const kernels[])(SIGNATURE_BLOCKS) = {[PLAIN] = gemv_blocks_plain, [AVX2] = gemv_blocks_avx2, [AVX512] = gemv_blocks_avx512};
    kernels[isa](W, blocks_decoder(isa), o0, n, M, X, ldx, bias, Y, ldy);
}
