/* The kernel of gemv.c for one instruction set, TARGET, with vectors of VECTOR bytes. Included once for each. */
#include "kernels/simd.h"

typedef void OF(weight_loader)(const void *, size_t, OF(simd) *);

/* The products of one row w (K) of the weight with M rows of X. M and the loaders are constants after inlining. Two sums
 * a row of X hide the latency of the multiply-add; their order does not depend on M. */
TARGET static ALWAYS void OF(dot_rows)(OF(weight_loader) *load, real (*load_one)(const void *, ptrdiff_t), size_t item,
                                       const char *w, size_t K, const size_t M, const real *X, size_t ldx, real *out) {
    OF(simd) even[GEMV_MAX_ROWS] = {{0}}, odd[GEMV_MAX_ROWS] = {{0}};
    size_t k = 0;
    for (; k + 2 * OF(WIDTH) <= K; k += 2 * OF(WIDTH)) {
        OF(simd) a, b;
        for (size_t at = 0; at < 2 * OF(WIDTH) * item; at += 64) __builtin_prefetch(w + k * item + at + AHEAD);
        load(w, k, &a);
        load(w, k + OF(WIDTH), &b);
        for (size_t m = 0; m < M; m++) {
            LOAD(x, OF(simd), X + m * ldx + k);
            LOAD(y, OF(simd), X + m * ldx + k + OF(WIDTH));
            even[m] += a * x;
            odd[m] += b * y;
        }
    }
    for (size_t m = 0; m < M; m++) {
        OF(simd) sum = even[m] + odd[m];
        real tail = 0;
        for (size_t i = k; i < K; i++) tail += load_one(w, (ptrdiff_t)i) * X[m * ldx + i];
        for (size_t half = OF(WIDTH) / 2; half; half /= 2)
            for (size_t j = 0; j < half; j++) sum[j] += sum[j + half];
        out[m] = sum[0] + tail;
    }
}

#define EACH_OUTPUT(type_, item, M_)                                                                              \
    for (size_t o = 0; o < n; o++) {                                                                              \
        real out[GEMV_MAX_ROWS];                                                                                  \
        OF(dot_rows)(OF(simd_##type_), one_##type_, item, (const char *)data + (ptrdiff_t)o * stride * item, K, M_, X, ldx, out); \
        for (size_t m = 0; m < M_; m++) Y[m * ldy + o] = out[m] + (bias ? bias[o] : 0);                           \
    }
#define BY_ROWS(type_, item)                       \
    switch (M) {                                   \
    case 1: EACH_OUTPUT(type_, item, 1) break;     \
    case 2: EACH_OUTPUT(type_, item, 2) break;     \
    case 3: EACH_OUTPUT(type_, item, 3) break;     \
    default: EACH_OUTPUT(type_, item, 4) break;    \
    }

TARGET static void OF(gemv)(SIGNATURE) {
    switch (type) {
    case W_F32: BY_ROWS(f32, 4) break;
    case W_F64: BY_ROWS(f64, 8) break;
    case W_F16: BY_ROWS(f16, 2) break;
    case W_BF16: BY_ROWS(bf16, 2) break;
    }
}
#undef EACH_OUTPUT
#undef BY_ROWS
