#include "skinny.h"
#include "instructions.h"

/* Vectors of 64 bytes: two or four registers each where the machine's are shorter. */
#define VECTOR 64
#define TARGET
#define OF(name) name
#include "wide.h"

/* Bytes that are asked for before they are needed, of this row or, as rows mostly follow each other, of the next: the
 * machine's own prefetching stops at every page. Asking beyond the weight is harmless. */
enum { AHEAD = 1024 };

/* One output: its products with M rows of X. M and the loaders are constants after inlining; two sums a row hide the
 * latency of the multiply-add. */
static ALWAYS void one_output(void (*load)(const void *, size_t, wide *), real (*load_one)(const void *, ptrdiff_t),
                              size_t item, const char *w, size_t K, const size_t M, const real *X, size_t ldx, real *out) {
    wide even[SKINNY_ROWS] = {{0}}, odd[SKINNY_ROWS] = {{0}};
    size_t k = 0;
    for (; k + 2 * LANE <= K; k += 2 * LANE) {
        wide a, b;
        for (size_t at = 0; at < 2 * LANE * item; at += 64) __builtin_prefetch(w + k * item + at + AHEAD);
        load(w, k, &a);
        load(w, k + LANE, &b);
        for (size_t m = 0; m < M; m++) {
            LOAD(x, wide, X + m * ldx + k);
            LOAD(y, wide, X + m * ldx + k + LANE);
            even[m] += a * x;
            odd[m] += b * y;
        }
    }
    for (size_t m = 0; m < M; m++) {
        wide sum = even[m] + odd[m];
        real tail = 0;
        for (size_t i = k; i < K; i++) tail += load_one(w, (ptrdiff_t)i) * X[m * ldx + i];
        for (size_t half = LANE / 2; half; half /= 2)
            for (size_t j = 0; j < half; j++) sum[j] += sum[j + half];
        out[m] = sum[0] + tail;
    }
}

#define ROWS(kind, item, M_)                                                                                  \
    for (size_t o = 0; o < n; o++) {                                                                          \
        real out[SKINNY_ROWS];                                                                                \
        one_output(wide_##kind, one_##kind, item, (const char *)data + (ptrdiff_t)o * stride * item, K, M_, X, ldx, out);       \
        for (size_t m = 0; m < M_; m++) Y[m * ldy + o] = out[m] + (bias ? bias[o] : 0);                       \
    }
#define BY_ROWS(kind, item)              \
    switch (M) {                         \
    case 1: ROWS(kind, item, 1) break;   \
    case 2: ROWS(kind, item, 2) break;   \
    case 3: ROWS(kind, item, 3) break;   \
    default: ROWS(kind, item, 4) break;  \
    }
#define BODY                                              \
    switch (type) {                                       \
    case W_F32: BY_ROWS(f32, 4) break;              \
    case W_F64: BY_ROWS(f64, 8) break;              \
    case W_F16: BY_ROWS(f16, 2) break;               \
    case W_BF16: BY_ROWS(bf16, 2) break;             \
    }
#define SIGNATURE wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X, size_t ldx, \
                  const real *bias, real *Y, size_t ldy

static void skinny_plain(SIGNATURE) { BODY }

#if HAS_TARGETS
TARGET_AVX2 static void skinny_avx2(SIGNATURE) { BODY }
TARGET_AVX512 static void skinny_avx512(SIGNATURE) { BODY }
#else
#define skinny_avx2 skinny_plain
#define skinny_avx512 skinny_plain
#endif

void skinny(SIGNATURE) {
    static void (*const kinds[])(SIGNATURE) = {skinny_plain, skinny_avx2, skinny_avx512};
    kinds[instructions_best()](type, data, stride, n, K, M, X, ldx, bias, Y, ldy);
}
