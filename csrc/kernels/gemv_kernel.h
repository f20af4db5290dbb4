/* The body of gemv.c for one instruction set: VECTOR bytes a vector, TARGET. */
#include "kernels/simd.h"

/* LANE outputs, whose weights begin at w[j]; a block of them for `span` k's, transposed in registers: rows[i] holds one k
 * of every output. */
typedef void OF(block_loader)(const char *const *w, size_t k, OF(simd) *rows);

#define BLOCK_OF(kind, item)                                                                                \
    TARGET static ALWAYS void OF(block_##kind)(const char *const *w, size_t k, OF(simd) *rows) {            \
        _Pragma("GCC unroll 16") for (int j = 0; j < WIDTH_; j++) {                                         \
            OF(simd_##kind)(w[j], k, &rows[j]);                                                             \
            __builtin_prefetch(w[j] + k * item + AHEAD);                                                    \
        }                                                                                                   \
        OF(transpose)(rows);                                                                                \
    }
BLOCK_OF(f32, 4)
BLOCK_OF(f64, 8)
#if REAL_SIZE == 8
enum { OF(HALF_SPAN) = OF(WIDTH) };
BLOCK_OF(f16, 2)
BLOCK_OF(bf16, 2)
#else
/* Two halves are transposed as one word, and widened then. */
enum { OF(HALF_SPAN) = 2 * OF(WIDTH) };
#define PAIRS_OF(kind, low, high)                                                                           \
    TARGET static ALWAYS void OF(block_##kind)(const char *const *w, size_t k, OF(simd) *rows) {            \
        OF(simd) pairs[OF(WIDTH)];                                                                           \
        _Pragma("GCC unroll 16") for (int j = 0; j < WIDTH_; j++) {                                         \
            memcpy(&pairs[j], w[j] + k * 2, VECTOR);                                                        \
            __builtin_prefetch(w[j] + k * 2 + AHEAD);                                                       \
        }                                                                                                   \
        OF(transpose)(pairs);                                                                               \
        _Pragma("GCC unroll 16") for (int i = 0; i < WIDTH_; i++) {                                         \
            OF(words) pair = (OF(words))pairs[i];                                                           \
            rows[2 * i] = low;                                                                              \
            rows[2 * i + 1] = high;                                                                         \
        }                                                                                                   \
    }
PAIRS_OF(f16, OF(f16_of)(pair << 16), OF(f16_of)(pair & 0xffff0000u))
PAIRS_OF(bf16, (OF(simd))(pair << 16), (OF(simd))(pair & 0xffff0000u))
#undef PAIRS_OF
#endif
#undef BLOCK_OF

/* The outputs' products with M rows of X, summed as gemm_packed.c sums. M and the loaders are constants after inlining. */
TARGET static ALWAYS void OF(outputs)(OF(block_loader) *load, const size_t span, real (*one)(const void *, ptrdiff_t),
                                      const char *const *w, size_t K, const size_t M, const real *X, size_t ldx, OF(simd) *total) {
    for (size_t k0 = 0; k0 < K; k0 += GEMM_KC) {
        size_t end = K - k0 < GEMM_KC ? K : k0 + GEMM_KC, k = k0;
        OF(simd) sum[GEMV_MAX_ROWS] = {{0}};
        for (; k + span <= end; k += span) {
            OF(simd) rows[2 * OF(WIDTH)];
            load(w, k, rows);
#pragma GCC unroll 32
            for (size_t i = 0; i < span; i++)
                for (size_t m = 0; m < M; m++) sum[m] += (X[m * ldx + k + i] - (OF(simd)){0}) * rows[i];
        }
        for (; k < end; k++) {
            OF(simd) row;
            for (size_t j = 0; j < OF(WIDTH); j++) row[j] = one(w[j], (ptrdiff_t)k);
            for (size_t m = 0; m < M; m++) sum[m] += (X[m * ldx + k] - (OF(simd)){0}) * row;
        }
        for (size_t m = 0; m < M; m++) total[m] = sum[m] + total[m];
    }
}

/* Missing outputs repeat the first. */
#define MR(kind, item, span, M_)                                                                                            \
    for (size_t o = 0; o < n; o += OF(WIDTH)) {                                                                                \
        size_t here = n - o < OF(WIDTH) ? n - o : OF(WIDTH);                                                                    \
        const char *w[OF(WIDTH)];                                                                                              \
        OF(simd) total[GEMV_MAX_ROWS] = {{0}};                                                                                  \
        for (size_t j = 0; j < OF(WIDTH); j++) w[j] = (const char *)data + (ptrdiff_t)(o + (j < here ? j : 0)) * stride * item; \
        for (size_t j = 0; bias && j < here; j++) total[0][j] = bias[o + j];                                                  \
        for (size_t m = 1; m < M_; m++) total[m] = total[0];                                                                  \
        OF(outputs)(OF(block_##kind), span, one_##kind, w, K, M_, X, ldx, total);                                             \
        for (size_t m = 0; m < M_; m++)                                                                                       \
            for (size_t j = 0; j < here; j++) Y[m * ldy + o + j] = total[m][j];                                               \
    }
#define BY_ROWS(kind, item, span)                 \
    switch (M) {                                  \
    case 1: MR(kind, item, span, 1) break;   \
    case 2: MR(kind, item, span, 2) break;   \
    case 3: MR(kind, item, span, 3) break;   \
    default: MR(kind, item, span, 4) break;  \
    }

TARGET static void OF(gemv)(SIGNATURE) {
    switch (type) {
    case W_F32: BY_ROWS(f32, 4, OF(WIDTH)) break;
    case W_F64: BY_ROWS(f64, 8, OF(WIDTH)) break;
    case W_F16: BY_ROWS(f16, 2, OF(HALF_SPAN)) break;
    case W_BF16: BY_ROWS(bf16, 2, OF(HALF_SPAN)) break;
    }
}
#undef MR
#undef BY_ROWS
