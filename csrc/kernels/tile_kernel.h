/* The body of tile.c for one instruction set: VECTOR bytes a vector, tiles of ROWS rows x VECTORS vectors, TARGET. */
#include "kernels/wide.h"

enum { OF(PANEL) = VECTORS * VECTOR / sizeof(real) }; /* columns of a panel */

/* Y(r, PANEL) = [Y +] X(r, K) P(K, PANEL) + bias. r is a constant after inlining, the sums stay in registers. */
TARGET static ALWAYS void OF(tile_of)(const size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y,
                                      size_t ldy) {
    OF(wide) sum[ROWS][VECTORS];
    for (size_t i = 0; i < r; i++)
        for (size_t v = 0; v < VECTORS; v++) sum[i][v] = (OF(wide)){0};
    for (size_t i = 0; i < r; i++) { /* ready when the sums are */
        __builtin_prefetch(Y + i * ldy, 1);
        __builtin_prefetch(Y + i * ldy + OF(PANEL) - 1, 1);
    }
    for (size_t k = 0; k < K; k++) {
        OF(wide) w[VECTORS];
        for (size_t v = 0; v < VECTORS; v++) memcpy(&w[v], P + k * OF(PANEL) + v * OF(LANE), VECTOR);
        for (size_t i = 0; i < r; i++) {
            OF(wide) x = X[i * LDX + k] - (OF(wide)){0};
            for (size_t v = 0; v < VECTORS; v++) sum[i][v] += x * w[v];
        }
    }
    for (size_t v = 0; v < VECTORS; v++) {
        OF(wide) b = {0};
        if (bias) memcpy(&b, bias + v * OF(LANE), VECTOR);
        for (size_t i = 0; i < r; i++) {
            real *y = Y + i * ldy + v * OF(LANE);
            if (add) memcpy(&b, y, VECTOR);
            sum[i][v] += b;
            memcpy(y, &sum[i][v], VECTOR);
        }
    }
}

TARGET static void OF(tile_rows_of)(size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y,
                                    size_t ldy) {
#define CASE(n) \
    case n: OF(tile_of)(n, K, X, P, bias, add, Y, ldy); return;
    switch (r) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14)
#endif
    }
#undef CASE
}

typedef void OF(loader)(const void *, size_t, OF(wide) *);

/* One panel's columns n0..n0+n of the rows k0..k0+K of B -> P(K, PANEL), zeros in the missing columns. */
TARGET static ALWAYS void OF(pack_any)(const tile_call *c, real (*one)(const void *, ptrdiff_t), size_t k0, size_t K, size_t n0,
                                       size_t n, real *P) {
    for (size_t k = 0; k < K; k++)
        for (size_t j = 0; j < OF(PANEL); j++)
            P[k * OF(PANEL) + j] =
                j < n ? one(c->data, (ptrdiff_t)(k0 + k) * c->k_stride + (ptrdiff_t)(n0 + j) * c->n_stride) : 0;
}

/* `count` whole panels of a B that is contiguous along n: row by row, so that memory is read in long runs */
TARGET static ALWAYS void OF(pack_straight)(const tile_call *c, OF(loader) *load, size_t item, size_t k0, size_t K, size_t n0,
                                            size_t count, real *P) {
    for (size_t k = 0; k < K; k++) {
        const char *row = (const char *)c->data + ((ptrdiff_t)(k0 + k) * c->k_stride + (ptrdiff_t)n0) * (ptrdiff_t)item;
        for (size_t p = 0; p < count; p++)
            for (size_t v = 0; v < VECTORS; v++) {
                OF(wide) x;
                load(row, p * OF(PANEL) + v * OF(LANE), &x);
                memcpy(P + (p * K + k) * OF(PANEL) + v * OF(LANE), &x, VECTOR);
            }
    }
}

/* One whole panel of a B that is contiguous along k */
TARGET static ALWAYS void OF(pack_turned)(const tile_call *c, OF(loader) *load, real (*one)(const void *, ptrdiff_t),
                                          size_t item, size_t k0, size_t K, size_t n0, real *P) {
    size_t whole = K - K % OF(LANE);
    for (size_t v = 0; v < VECTORS; v++) {
        size_t column = n0 + v * OF(LANE);
        const char *base = (const char *)c->data + ((ptrdiff_t)k0 + (ptrdiff_t)column * c->n_stride) * (ptrdiff_t)item;
        for (size_t k = 0; k < whole; k += OF(LANE)) {
            OF(wide) rows[OF(LANE)];
            for (int i = 0; i < LANES_; i++) load(base + i * c->n_stride * (ptrdiff_t)item, k, &rows[i]);
            OF(transpose)(rows);
            for (int i = 0; i < LANES_; i++) memcpy(P + (k + (size_t)i) * OF(PANEL) + v * OF(LANE), &rows[i], VECTOR);
        }
    }
    OF(pack_any)(c, one, k0 + whole, K - whole, n0, OF(PANEL), P + whole * OF(PANEL));
}

/* Columns n0..n1 of the rows k0..k0+K of B -> panels P(panel, K, PANEL) */
TARGET static ALWAYS void OF(pack_type)(const tile_call *c, OF(loader) *load, real (*one)(const void *, ptrdiff_t), size_t item,
                                        size_t k0, size_t K, size_t n0, size_t n1, real *P) {
    size_t whole = (n1 - n0) / OF(PANEL), rest = (n1 - n0) % OF(PANEL);
    if (c->n_stride == 1) OF(pack_straight)(c, load, item, k0, K, n0, whole, P);
    else
        for (size_t p = 0; p < whole; p++) {
            if (c->k_stride == 1) OF(pack_turned)(c, load, one, item, k0, K, n0 + p * OF(PANEL), P + p * K * OF(PANEL));
            else OF(pack_any)(c, one, k0, K, n0 + p * OF(PANEL), OF(PANEL), P + p * K * OF(PANEL));
        }
    if (rest) OF(pack_any)(c, one, k0, K, n0 + whole * OF(PANEL), rest, P + whole * K * OF(PANEL));
}

TARGET static void OF(pack)(const tile_call *c, size_t k0, size_t K, size_t n0, size_t n1, real *P) {
    switch (c->type) {
    case W_F32: OF(pack_type)(c, OF(wide_f32), one_f32, 4, k0, K, n0, n1, P); break;
    case W_F64: OF(pack_type)(c, OF(wide_f64), one_f64, 8, k0, K, n0, n1, P); break;
    case W_F16: OF(pack_type)(c, OF(wide_f16), one_f16, 2, k0, K, n0, n1, P); break;
    case W_BF16: OF(pack_type)(c, OF(wide_bf16), one_bf16, 2, k0, K, n0, n1, P); break;
    }
}

/* The last columns: a panel that is not full goes through a buffer. */
TARGET static void OF(edge)(size_t r, size_t K, const real *X, const real *P, const real *bias, int add, real *Y, size_t ldy,
                            size_t n) {
    real part[ROWS * OF(PANEL)];
    OF(tile_rows_of)(r, K, X, P, NULL, 0, part, OF(PANEL));
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < n; j++)
            Y[i * ldy + j] = part[i * OF(PANEL) + j] + (add ? Y[i * ldy + j] : bias ? bias[j] : 0);
}

TARGET static void OF(product)(const tile_call *c, real *P) {
    real *X = P + TILE_REALS;
    size_t tiles = (c->M + ROWS - 1) / ROWS, depth = TILE_DEPTH, width = TILE_REALS / depth / OF(PANEL) * OF(PANEL);
    for (size_t n0 = 0; n0 < c->N; n0 += width)
        for (size_t k0 = 0; k0 < c->K; k0 += depth) {
            size_t n1 = c->N - n0 < width ? c->N : n0 + width, K = c->K - k0 < depth ? c->K - k0 : depth;
            size_t panels = (n1 - n0 + OF(PANEL) - 1) / OF(PANEL);
            OF(pack)(c, k0, K, n0, n1, P);
            for (size_t t = 0; t < tiles; t++) {
                size_t m0 = c->M * t / tiles, m1 = c->M * (t + 1) / tiles;
                for (size_t m = m0; m < m1; m++) memcpy(X + (m - m0) * LDX, c->X + m * c->ldx + k0, K * sizeof(real));
                for (size_t p = 0; p < panels; p++) {
                    size_t n = n0 + p * OF(PANEL);
                    const real *panel = P + p * K * OF(PANEL), *bias = c->bias ? c->bias + n : NULL;
                    real *Y = c->Y + m0 * c->ldy + n;
                    int add = c->add || k0;
                    if (c->N - n < OF(PANEL)) OF(edge)(m1 - m0, K, X, panel, bias, add, Y, c->ldy, c->N - n);
                    else OF(tile_rows_of)(m1 - m0, K, X, panel, bias, add, Y, c->ldy);
                }
            }
        }
}
