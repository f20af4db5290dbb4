#include "kernels/gemv.h"
#include "kernels/gemm_packed.h"

/* Bytes that are asked for before they are needed, of this row or, as rows mostly follow each other, of the next: the
 * machine's own prefetching stops at every page. Asking beyond the weight is harmless. */
enum { AHEAD = 1024 };

#define SIGNATURE wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X, size_t ldx, \
                  const real *bias, real *Y, size_t ldy
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
#define OF(name) PASTE(name, KIND)

#define KIND plain
#define TARGET
#define VECTOR 16
#include "kernels/gemv_kernel.h"
#undef KIND
#undef TARGET
#undef VECTOR

#if HAS_TARGETS
#define KIND avx2
#define TARGET TARGET_AVX2
#define VECTOR 32
#include "kernels/gemv_kernel.h"
#undef KIND
#undef TARGET
#undef VECTOR

#define KIND avx512
#define TARGET TARGET_AVX512
#define VECTOR 64
#include "kernels/gemv_kernel.h"
#else
#define gemv_avx2 gemv_plain
#define gemv_avx512 gemv_plain
#endif

void gemv(cpu_isa kind, SIGNATURE) {
    static void (*const kinds[])(SIGNATURE) = {gemv_plain, gemv_avx2, gemv_avx512};
    kinds[kind](type, data, stride, n, K, M, X, ldx, bias, Y, ldy);
}
