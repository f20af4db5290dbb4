/* The kernel of gemv.c for one instruction set, TARGET, with vectors of VECTOR bytes. Included once for each. */
#include "kernels/simd.h"
#include "kernels/blocks_types.h"

typedef void OF(weight_loader)(const void *, size_t, OF(simd) *);

/* Adds the products of K items w of the weight with M rows of X, of which those beyond the last whole pair of vectors are left
 * out; returns how many were summed. Two sums a row of X hide the latency of the multiply-add; their order does not depend
 * on M. M and the loader are constants after inlining. */
TARGET static ALWAYS size_t OF(dot_part)(OF(weight_loader) *load, size_t item, size_t ahead, const char *w, size_t K, const size_t M,
                                         const real *X, size_t ldx, OF(simd) *even, OF(simd) *odd) {
    size_t k = 0;
    for (; k + 2 * OF(WIDTH) <= K; k += 2 * OF(WIDTH)) {
        OF(simd) a, b;
        for (size_t at = 0; ahead && at < 2 * OF(WIDTH) * item; at += 64) __builtin_prefetch(w + k * item + at + ahead);
        load(w, k, &a);
        load(w, k + OF(WIDTH), &b);
        for (size_t m = 0; m < M; m++) {
            LOAD(x, OF(simd), X + m * ldx + k);
            LOAD(y, OF(simd), X + m * ldx + k + OF(WIDTH));
            even[m] += a * x;
            odd[m] += b * y;
        }
    }
    return k;
}

/* The sum of all elements of both sums */
TARGET static ALWAYS real OF(dot_end)(OF(simd) even, OF(simd) odd) {
    OF(simd) sum = even + odd;
    for (size_t half = OF(WIDTH) / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++) sum[j] += sum[j + half];
    return sum[0];
}

/* The products of one row w (K) of the weight with M rows of X */
TARGET static ALWAYS void OF(dot_rows)(OF(weight_loader) *load, real (*load_one)(const void *, ptrdiff_t), size_t item,
                                       const char *w, size_t K, const size_t M, const real *X, size_t ldx, real *out) {
    OF(simd) even[GEMV_MAX_ROWS] = {{0}}, odd[GEMV_MAX_ROWS] = {{0}};
    size_t k = OF(dot_part)(load, item, AHEAD, w, K, M, X, ldx, even, odd);
    for (size_t m = 0; m < M; m++) {
        real tail = 0;
        for (size_t i = k; i < K; i++) tail += load_one(w, (ptrdiff_t)i) * X[m * ldx + i];
        out[m] = OF(dot_end)(even[m], odd[m]) + tail;
    }
}

/* The same for row o of a weight of blocks. For one row of X each vector is multiplied as soon as it is decoded; that for
 * more, too, would be half as fast again and take ten seconds more to compile. */
typedef struct {
    const real *x;
    OF(simd) even, odd;
} OF(sums);
TARGET static ALWAYS void OF(multiply)(void *to, size_t at, size_t n, OF(values) *v) {
    OF(sums) *s = to;
    for (size_t j = 0; j < VECTOR / 4; j += OF(WIDTH)) {
        OF(simd) w;
        OF(simd_f32)(v, j, &w);
        LOAD(x, OF(simd), s->x + at * BLOCK_RUN + n + j);
        if ((n + j) / OF(WIDTH) % 2) s->odd += w * x;
        else s->even += w * x;
    }
}
TARGET static ALWAYS void OF(dot_decoded)(const weight *W, size_t o, const real *x, real *out) {
    OF(sums) s = {.x = x};
    OF(take_numbers)(W, o, 0, W->n_in, OF(multiply), &s);
    *out = OF(dot_end)(s.even, s.odd);
}

/* For more rows it is decoded into a buffer in the L1 cache. */
_Static_assert(BLOCK_RUN % (2 * OF(WIDTH)) == 0, "no tail");
TARGET static ALWAYS void OF(dot_blocks)(const weight *W, block_decoder decode, size_t o, const size_t M, const real *X, size_t ldx,
                                         real *out) {
    OF(simd) even[GEMV_MAX_ROWS] = {{0}}, odd[GEMV_MAX_ROWS] = {{0}};
    float part[DECODED];
    for (size_t i = 0; i < W->n_in; i += DECODED) {
        size_t n = W->n_in - i < DECODED ? W->n_in - i : DECODED;
        decode(W, o, i, n, part);
        OF(dot_part)(OF(simd_f32), 4, 0, (const char *)part, n, M, X + i, ldx, even, odd);
    }
    for (size_t m = 0; m < M; m++) out[m] = OF(dot_end)(even[m], odd[m]);
}

/* dots: an expression that writes the products of output o with M_ rows to out */
#define EACH_OUTPUT(M_, dots)                                                             \
    case M_:                                                                              \
        for (size_t o = 0; o < n; o++) {                                                  \
            real out[GEMV_MAX_ROWS];                                                      \
            dots;                                                                         \
            for (size_t m = 0; m < M_; m++) Y[m * ldy + o] = out[m] + (bias ? bias[o] : 0); \
        }                                                                                 \
        break;
#define BY_ROWS(dots) \
    switch (M) { EACH_OUTPUT(1, dots(1)) EACH_OUTPUT(2, dots(2)) EACH_OUTPUT(3, dots(3)) EACH_OUTPUT(4, dots(4)) }

TARGET static void OF(gemv)(SIGNATURE) {
#define ROW(load, item, M_) \
    OF(dot_rows)(OF(simd_##load), one_##load, item, (const char *)data + (ptrdiff_t)o * stride * item, K, M_, X, ldx, out)
#define F32(M_) ROW(f32, 4, M_)
#define F64(M_) ROW(f64, 8, M_)
#define F16(M_) ROW(f16, 2, M_)
#define BF16(M_) ROW(bf16, 2, M_)
    switch (type) {
    case W_F32: BY_ROWS(F32) break;
    case W_F64: BY_ROWS(F64) break;
    case W_F16: BY_ROWS(F16) break;
    case W_BF16: BY_ROWS(BF16) break;
    default: break; /* blocks */
    }
#undef ROW
#undef F32
#undef F64
#undef F16
#undef BF16
}

TARGET static void OF(gemv_blocks)(SIGNATURE_BLOCKS) {
#define BLOCKS(M_) OF(dot_blocks)(W, decode, o0 + o, M_, X, ldx, out)
    switch (M) {
        EACH_OUTPUT(1, OF(dot_decoded)(W, o0 + o, X, out))
        EACH_OUTPUT(2, BLOCKS(2)) EACH_OUTPUT(3, BLOCKS(3)) EACH_OUTPUT(4, BLOCKS(4))
    }
#undef BLOCKS
}
#undef EACH_OUTPUT
#undef BY_ROWS
