/* The packed gemm for one instruction set, TARGET: vectors of VECTOR bytes, a microkernel of MR rows by NR columns, which are
 * NV vectors. Included by gemm_packed.c once for each. */
#include "kernels/simd.h"

enum { OF(NR) = NV * VECTOR / sizeof(real) }; /* columns of a panel */
_Static_assert(MR <= MAX_MR && (MR == 6 || MR == 14), "the scratch holds the rows, microkernel_rows has a case for each");
_Static_assert(GEMM_COLUMNS % OF(NR) == 0, "whole panels");
_Static_assert(PANEL_REALS >= GEMM_KC * OF(NR), "the panels hold at least one");

/*  Y (r, NR) = [Y +] X (r, K) P (K, NR) + bias,  r <= MR
 * X has row stride LDX. r is a constant after inlining, so that the sums stay in registers. Asks memory for the rows of next
 * between the products, a line at a time: asked for all at once they would hold the products up. */
TARGET static ALWAYS void OF(microkernel)(const size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y,
                                      size_t ldy, rows_ahead next) {
    OF(simd) sum[MR][NV];
    for (size_t i = 0; i < r; i++)
        for (size_t v = 0; v < NV; v++) sum[i][v] = (OF(simd)){0};
    for (size_t i = 0; i < r; i++) { /* in the cache by the time the sums are complete */
        __builtin_prefetch(Y + i * ldy, 1);
        __builtin_prefetch(Y + i * ldy + OF(NR) - 1, 1);
    }
    for (size_t k = 0; k < K; k++) {
        if (k % (8 / sizeof(real)) == 0)
            __builtin_prefetch((const void *)(next.at + k / K_A_ROW * next.stride + k % K_A_ROW * next.step), 0, 2);
        OF(simd) w[NV];
        for (size_t v = 0; v < NV; v++) memcpy(&w[v], P + k * OF(NR) + v * OF(WIDTH), VECTOR);
        for (size_t i = 0; i < r; i++) {
            OF(simd) x = X[i * LDX + k] - (OF(simd)){0};
            for (size_t v = 0; v < NV; v++) sum[i][v] += x * w[v];
        }
    }
    for (size_t v = 0; v < NV; v++) {
        OF(simd) b = {0};
        if (bias) memcpy(&b, bias + v * OF(WIDTH), VECTOR);
        for (size_t i = 0; i < r; i++) {
            real *y = Y + i * ldy + v * OF(WIDTH);
            if (add) memcpy(&b, y, VECTOR);
            sum[i][v] += b;
            memcpy(y, &sum[i][v], VECTOR);
        }
    }
}

/* The microkernel for r rows */
TARGET static void OF(microkernel_rows)(size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y,
                                    size_t ldy, rows_ahead next) {
#define CASE(n) \
    case n: OF(microkernel)(n, K, X, P, bias, add, Y, ldy, next); return;
    switch (r) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if MR > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
    }
#undef CASE
}

typedef void OF(loader)(const void *, size_t, OF(simd) *);

/* Packs columns n0..n0+n, n <= NR, of rows k0..k0+K of B -> P (K, NR), with zeros in the missing columns. */
TARGET static ALWAYS void OF(pack_any)(const gemm_call *c, real (*one)(const void *, ptrdiff_t), size_t k0, size_t K, size_t n0,
                                       size_t n, real *P) {
    for (size_t k = 0; k < K; k++)
        for (size_t j = 0; j < OF(NR); j++)
            P[k * OF(NR) + j] =
                j < n ? one(c->data, (ptrdiff_t)(k0 + k) * c->k_stride + (ptrdiff_t)(n0 + j) * c->n_stride) : 0;
}

/* Packs `count` whole panels of a B that is contiguous along n, row by row, so that memory is read in long runs. */
TARGET static ALWAYS void OF(pack_straight)(const gemm_call *c, OF(loader) *load, size_t item, size_t k0, size_t K, size_t n0,
                                            size_t count, real *P) {
    for (size_t k = 0; k < K; k++) {
        const char *row = (const char *)c->data + ((ptrdiff_t)(k0 + k) * c->k_stride + (ptrdiff_t)n0) * (ptrdiff_t)item;
        for (size_t p = 0; p < count; p++)
            for (size_t v = 0; v < NV; v++) {
                OF(simd) x;
                load(row, p * OF(NR) + v * OF(WIDTH), &x);
                memcpy(P + (p * K + k) * OF(NR) + v * OF(WIDTH), &x, VECTOR);
            }
    }
}

/* Packs a panel of n <= NR columns of a B that is contiguous along k, in blocks that are transposed in registers, with zeros in
 * the missing columns. */
TARGET static ALWAYS void OF(pack_transposed)(const gemm_call *c, OF(loader) *load, real (*one)(const void *, ptrdiff_t),
                                          size_t item, size_t k0, size_t K, size_t n0, size_t n, real *P) {
    size_t whole = K - K % OF(WIDTH);
    for (size_t v = 0; v < NV; v++) {
        size_t column = n0 + v * OF(WIDTH), exist = n > v * OF(WIDTH) ? n - v * OF(WIDTH) : 0;
        const char *base = (const char *)c->data + ((ptrdiff_t)k0 + (ptrdiff_t)column * c->n_stride) * (ptrdiff_t)item;
        for (size_t k = 0; k < whole; k += OF(WIDTH)) {
            OF(simd) rows[OF(WIDTH)];
            for (int i = 0; i < WIDTH_; i++)
                if ((size_t)i < exist) load(base + i * c->n_stride * (ptrdiff_t)item, k, &rows[i]);
                else rows[i] = (OF(simd)){0};
            OF(transpose)(rows);
            for (int i = 0; i < WIDTH_; i++) memcpy(P + (k + (size_t)i) * OF(NR) + v * OF(WIDTH), &rows[i], VECTOR);
        }
    }
    OF(pack_any)(c, one, k0 + whole, K - whole, n0, n, P + whole * OF(NR));
}

/* Packs columns n0..n1 of rows k0..k0+K of B -> P (panels, K, NR). */
TARGET static ALWAYS void OF(pack_type)(const gemm_call *c, OF(loader) *load, real (*one)(const void *, ptrdiff_t), size_t item,
                                        size_t k0, size_t K, size_t n0, size_t n1, real *P) {
    size_t whole = (n1 - n0) / OF(NR), rest = (n1 - n0) % OF(NR);
    if (c->n_stride == 1) OF(pack_straight)(c, load, item, k0, K, n0, whole, P);
    else
        for (size_t p = 0; p < whole; p++) { /* NR is a constant after inlining */
            if (c->k_stride == 1) OF(pack_transposed)(c, load, one, item, k0, K, n0 + p * OF(NR), OF(NR), P + p * K * OF(NR));
            else OF(pack_any)(c, one, k0, K, n0 + p * OF(NR), OF(NR), P + p * K * OF(NR));
        }
    if (rest && c->k_stride == 1) OF(pack_transposed)(c, load, one, item, k0, K, n0 + whole * OF(NR), rest, P + whole * K * OF(NR));
    else if (rest) OF(pack_any)(c, one, k0, K, n0 + whole * OF(NR), rest, P + whole * K * OF(NR));
}

/* The same for blocks: decoded as float32, the columns of a panel or a row at a time. */
TARGET static void OF(pack_blocks)(const gemm_call *c, size_t k0, size_t K, size_t n0, size_t n1, real *P) {
    float rows[OF(NR) * LDX];
    if (c->k_is_out) {
        for (size_t k = 0; k < K; k++) {
            c->decode(c->blocks, c->out0 + k0 + k, c->in0 + n0, n1 - n0, rows);
            for (size_t n = 0; n < n1 - n0; n += OF(WIDTH)) {
                OF(simd) x;
                OF(simd_f32)(rows, n, &x);
                memcpy(P + (n / OF(NR) * K + k) * OF(NR) + n % OF(NR), &x, VECTOR);
            }
        }
        return;
    }
    gemm_call floats = {.type = W_F32, .data = rows, .k_stride = 1, .n_stride = LDX};
    for (size_t n = n0; n < n1; n += OF(NR), P += K * OF(NR)) {
        size_t count = n1 - n < OF(NR) ? n1 - n : OF(NR);
        for (size_t j = 0; j < count; j++) c->decode(c->blocks, c->out0 + n + j, c->in0 + k0, K, rows + j * LDX);
        OF(pack_type)(&floats, OF(simd_f32), one_f32, 4, 0, K, 0, count, P);
    }
}

TARGET static void OF(pack)(const gemm_call *c, size_t k0, size_t K, size_t n0, size_t n1, real *P) {
    if (c->blocks) {
        OF(pack_blocks)(c, k0, K, n0, n1, P);
        return;
    }
    switch (c->type) {
    case W_F32: OF(pack_type)(c, OF(simd_f32), one_f32, 4, k0, K, n0, n1, P); break;
    case W_F64: OF(pack_type)(c, OF(simd_f64), one_f64, 8, k0, K, n0, n1, P); break;
    case W_F16: OF(pack_type)(c, OF(simd_f16), one_f16, 2, k0, K, n0, n1, P); break;
    case W_BF16: OF(pack_type)(c, OF(simd_bf16), one_bf16, 2, k0, K, n0, n1, P); break;
    default: break; /* blocks */
    }
}

/* The product with the last panel, of which only n < NR columns exist, by way of a buffer. */
TARGET static void OF(edge)(size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y, size_t ldy,
                            size_t n, rows_ahead next) {
    real part[MR * OF(NR)];
    OF(microkernel_rows)(r, K, X, P, NULL, 0, part, OF(NR), next);
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < n; j++)
            Y[i * ldy + j] = part[i * OF(NR) + j] + (add ? Y[i * ldy + j] : bias ? bias[j] : 0);
}

/* The whole product, in the blocks of BLIS: as many panels as fit are packed, then the rows of X pass in nearly equal
 * micro-tiles of at most MR rows, each multiplied with every panel. P: scratch, panels first, then the rows of X. */
TARGET static void OF(product)(const gemm_call *c, real *P) {
    real *X = P + PANEL_REALS;
    size_t tiles = (c->M + MR - 1) / MR, depth = GEMM_KC, width = PANEL_REALS / depth / OF(NR) * OF(NR);
    for (size_t n0 = 0; n0 < c->N; n0 += width)
        for (size_t k0 = 0; k0 < c->K; k0 += depth) {
            size_t n1 = c->N - n0 < width ? c->N : n0 + width, K = c->K - k0 < depth ? c->K - k0 : depth;
            size_t panels = (n1 - n0 + OF(NR) - 1) / OF(NR);
            rows_ahead coming = c->K - k0 > depth ? block_ahead(c, k0 + depth, n0, width) : block_ahead(c, 0, n1, width);
            OF(pack)(c, k0, K, n0, n1, P);
            for (size_t t = 0; t < tiles; t++) {
                size_t m0 = c->M * t / tiles, m1 = c->M * (t + 1) / tiles;
                for (size_t m = m0; m < m1; m++) memcpy(X + (m - m0) * LDX, c->X + m * c->ldx + k0, K * sizeof(real));
                for (size_t m = m1; m < c->M && m < m1 + MR; m++) /* the next rows, which may be beyond the L2 cache */
                    for (size_t k = 0; k < K; k += 64 / sizeof(real)) __builtin_prefetch(c->X + m * c->ldx + k0 + k, 0, 2);
                for (size_t p = 0; p < panels; p++) {
                    size_t n = n0 + p * OF(NR);
                    const real *panel = P + p * K * OF(NR), *bias = c->bias ? c->bias + n : NULL;
                    real *Y = c->Y + m0 * c->ldy + n;
                    int add = c->add || k0;
                    rows_ahead next = some_ahead(&coming);
                    if (c->N - n < OF(NR)) OF(edge)(m1 - m0, K, X, panel, bias, add, Y, c->ldy, c->N - n, next);
                    else OF(microkernel_rows)(m1 - m0, K, X, panel, bias, add, Y, c->ldy, next);
                }
            }
        }
}
