/* The kernel of gemv.c for one instruction set, TARGET, with vectors of VECTOR bytes and tiles of OUTPUTS outputs. Included
 * once for each.
 *
 * The two sums of an element, over the even and the odd vectors of a depth, hide the latency of the multiply-add where an
 * output is computed alone. A tile computes them one after the other. */
#include "kernels/simd.h"
#include "kernels/blocks_types.h"

enum { OF(PAIR) = 2 * OF(WIDTH) };
_Static_assert(BLOCK_RUN % OF(PAIR) == 0 && GEMV_DEPTH % OF(PAIR) == 0, "whole pairs of vectors");
_Static_assert(GEMV_STRIP % OUTPUTS == 0, "whole tiles");

typedef void OF(loader)(const void *, size_t, OF(simd) *);

/* In columns without bit s the sums of a's columns j and j + s, in the others those of b's j - s and j */
TARGET static ALWAYS OF(simd) OF(folded)(OF(simd) a, OF(simd) b, int s) {
    OF(exchange)(&a, &b, s);
    return a + b;
}

/* The sum of the elements of each of WIDTH vectors: vector j's is element j of the result. */
TARGET static ALWAYS OF(simd) OF(totals)(OF(simd) *v) {
    UNROLL(4)
    for (int s = WIDTH_ / 2; s; s /= 2)
        UNROLL(8)
        for (int i = 0; i < s; i++) v[i] = OF(folded)(v[i], v[i + s], s);
    return v[0];
}

enum { OF(SUMS) = (GEMV_ROWS * OUTPUTS + OF(WIDTH) - 1) / OF(WIDTH) * OF(WIDTH) }; /* of a tile, up to whole vectors of them */

static inline size_t OF(whole_pairs)(size_t n) { return (n + OF(PAIR) - 1) / OF(PAIR) * OF(PAIR); }

/* The numbers at `from`, n of `item` bytes each, then zeros, up to a pair of vectors */
#define PADDED(name, from, n, item)             \
    char name[OF(PAIR) * sizeof(double)] = {0}; \
    memcpy(name, from, (n) * (item))

/* ---- one row */

/* The sums of the product of n <= GEMV_DEPTH numbers w of a weight with x */
TARGET static ALWAYS OF(simd) OF(dot)(OF(loader) *load, size_t item, const char *w, ptrdiff_t ahead, size_t n, const real *x) {
    OF(simd) even = {0}, odd = {0}, a, b;
    size_t k = 0;
    for (; k + OF(PAIR) <= n; k += OF(PAIR)) {
        for (size_t at = 0; at < OF(PAIR) * item; at += CACHE_LINE) __builtin_prefetch(w + k * item + at + ahead);
        load(w, k, &a);
        load(w, k + OF(WIDTH), &b);
        LOAD(even_x, OF(simd), x + k);
        LOAD(odd_x, OF(simd), x + k + OF(WIDTH));
        even += a * even_x;
        odd += b * odd_x;
    }
    if (k < n) {
        PADDED(last, w + k * item, n - k, item);
        PADDED(last_x, x + k, n - k, sizeof(real));
        load(last, 0, &a);
        load(last, OF(WIDTH), &b);
        LOAD(even_x, OF(simd), last_x);
        LOAD(odd_x, OF(simd), last_x + VECTOR);
        even += a * even_x;
        odd += b * odd_x;
    }
    return even + odd;
}

/* The same for numbers k .. k + n of row o of a weight of blocks: each vector is multiplied as soon as it is decoded. */
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
TARGET static ALWAYS OF(simd) OF(dot_decoded)(const weight *W, size_t o, size_t k, size_t n, const real *x) {
    OF(sums) s = {.x = x};
    OF(take_numbers)(W, o, k, n, OF(multiply), &s);
    return s.even + s.odd;
}

/* WIDTH outputs are folded together. DEPTHS of a row follow each other, so that the weight is read in order. */
TARGET static void OF(one_row)(const gemv_call *c) {
    enum { DEPTHS = 8 };
    const weight *W = c->W;
    OF(simd) sums[DEPTHS][OF(WIDTH)];
    size_t K;
#define EACH(dot)                                                      \
    for (size_t i = 0; i < n; i++)                                     \
        for (size_t k = 0, part; k < K; k += part) {                   \
            part = smaller(K - k, GEMV_DEPTH);                         \
            size_t o = first + i;                                      \
            sums[k / GEMV_DEPTH][i] = dot;                             \
        }                                                              \
    break
#define NUMBERS(load, item) EACH(OF(dot)(OF(simd_##load), item, start + (ptrdiff_t)o * stride + (k0 + k) * item, ahead, part, c->X + k0 + k))
    const char *start = weight_at(W, c->o0, 0); /* the address of an output without a division, for which its loads would wait */
    ptrdiff_t stride = W->out_stride * (ptrdiff_t)wtype_layouts[W->type].bytes, ahead = bytes_ahead(W);
    for (size_t first = 0; first < c->n; first += OF(WIDTH))
        for (size_t k0 = 0; k0 < W->n_in; k0 += K) {
            size_t n = smaller(c->n - first, OF(WIDTH));
            K = smaller(W->n_in - k0, DEPTHS * GEMV_DEPTH);
            switch (W->type) {
            case W_F32: NUMBERS(f32, 4);
            case W_F64: NUMBERS(f64, 8);
            case W_F16: NUMBERS(f16, 2);
            case W_BF16: NUMBERS(bf16, 2);
            default: EACH(OF(dot_decoded)(W, c->o0 + o, k0 + k, part, c->X + k0 + k));
            }
            for (size_t k = 0; k < K; k += GEMV_DEPTH) {
                OF(simd) *v = sums[k / GEMV_DEPTH];
                for (size_t i = n; i < OF(WIDTH); i++) v[i] = (OF(simd)){0};
                OF(simd) some = OF(totals)(v);
                for (size_t i = 0; i < n; i++) c->Y[first + i] += some[i];
            }
        }
#undef NUMBERS
#undef EACH
}

/* ---- several rows */

/* The sums of a tile of R rows over the even (from 0) or odd (from WIDTH) vectors of the depth K. ahead: rows of the weight
 * that are prefetched meanwhile. R and the loader are constants after inlining, so that the sums stay in registers. */
TARGET static ALWAYS void OF(tile_sums)(OF(loader) *load, size_t item, const size_t R, size_t from, size_t K, const real *X,
                                        const char *const *w, const prefetch *ahead, OF(simd) *out) {
    OF(simd) sum[GEMV_ROWS][OUTPUTS];
    const char *next = ahead->row;
    const size_t n_ahead = ahead->n;
    const ptrdiff_t stride = ahead->stride;
    for (size_t r = 0; r < R; r++)
        for (size_t o = 0; o < OUTPUTS; o++) sum[r][o] = (OF(simd)){0};
    for (size_t k = from; k < K; k += OF(PAIR)) {
        OF(simd) a[OUTPUTS];
        for (size_t o = 0; o < OUTPUTS; o++) load(w[o], k, &a[o]);
        for (size_t j = 0; j < n_ahead; j++) __builtin_prefetch(next + (ptrdiff_t)j * stride + (ptrdiff_t)(k * item), 0, 2);
        for (size_t r = 0; r < R; r++) {
            LOAD(x, OF(simd), X + r * LD + k);
            for (size_t o = 0; o < OUTPUTS; o++) sum[r][o] += a[o] * x;
        }
    }
    for (size_t r = 0; r < R; r++)
        for (size_t o = 0; o < OUTPUTS; o++) out[r * OUTPUTS + o] = sum[r][o];
}

/* Y (R, n) += the sums over both, folded; n <= OUTPUTS */
TARGET static void OF(add_sums)(size_t R, OF(simd) *even, const OF(simd) *odd, real *Y, size_t ldy, size_t n) {
    real value[OF(SUMS)];
    for (size_t i = 0; i < R * OUTPUTS; i += OF(WIDTH)) {
        OF(simd) v[OF(WIDTH)];
        UNROLL(16)
        for (size_t j = 0; j < OF(WIDTH); j++) v[j] = i + j < R * OUTPUTS ? even[i + j] + odd[i + j] : (OF(simd)){0};
        OF(simd) some = OF(totals)(v);
        memcpy(value + i, &some, VECTOR);
    }
    for (size_t r = 0; r < R; r++)
        for (size_t o = 0; o < n; o++) Y[r * ldy + o] += value[r * OUTPUTS + o];
}

/* Y (R, n) += X (R, K) w' of at most OUTPUTS outputs, which are stored as `type` */
TARGET static void OF(tile)(wtype type, size_t R, size_t K, const real *X, const char *const *w, const prefetch *ahead, real *Y,
                            size_t ldy, size_t n) {
    OF(simd) even[OF(SUMS)], odd[OF(SUMS)];
#define ROWS(load, item, r)                                                              \
    case r:                                                                              \
        OF(tile_sums)(OF(simd_##load), item, r, 0, K, X, w, ahead, even);                \
        OF(tile_sums)(OF(simd_##load), item, r, OF(WIDTH), K, X, w, ahead, odd);         \
        break;
#define TILE(load, item) \
    switch (R) { ROWS(load, item, 1) ROWS(load, item, 2) ROWS(load, item, 3) ROWS(load, item, 4) ROWS(load, item, 5) ROWS(load, item, 6) }
    if (type == W_F16) TILE(f16, 2)
    else if (type == W_BF16) TILE(bf16, 2)
    else TILE(real, sizeof(real))
#undef TILE
#undef ROWS
    OF(add_sums)(R, even, odd, Y, ldy, n);
}

/* n numbers of a plain type -> to, with zeros up to a pair of vectors */
TARGET static ALWAYS void OF(widen)(OF(loader) *load, size_t item, const void *from, size_t n, real *to) {
    OF(simd) v;
    size_t k = 0;
    for (; k + OF(WIDTH) <= n; k += OF(WIDTH)) {
        load(from, k, &v);
        memcpy(to + k, &v, VECTOR);
    }
    PADDED(last, (const char *)from + k * item, n - k, item);
    for (size_t at = 0, end = OF(whole_pairs)(n); k < end; at += OF(WIDTH), k += OF(WIDTH)) {
        load(last, at, &v);
        memcpy(to + k, &v, VECTOR);
    }
}

/* Numbers k0 .. k0 + K of row o of the weight -> to, the same */
TARGET static void OF(widen_row)(const gemv_call *c, size_t o, size_t k0, size_t K, real *to) {
    const wtype_layout *type = &wtype_layouts[c->W->type];
    const char *from = weight_at(c->W, o, k0), *next = from + c->W->out_stride / type->numbers * type->bytes;
    for (size_t at = 0, end = K / type->numbers * type->bytes; at < end; at += CACHE_LINE) __builtin_prefetch(next + at);
    switch (c->W->type) {
    case W_F32: OF(widen)(OF(simd_f32), 4, from, K, to); return;
    case W_F64: OF(widen)(OF(simd_f64), 8, from, K, to); return;
    case W_F16: OF(widen)(OF(simd_f16), 2, from, K, to); return;
    case W_BF16: OF(widen)(OF(simd_bf16), 2, from, K, to); return;
    default: break;
    }
#if REAL_SIZE == 4
    c->decode(c->W, o, k0, K, to);
#else
    float part[GEMV_DEPTH];
    c->decode(c->W, o, k0, K, part);
    OF(widen)(OF(simd_f32), 4, part, K, to);
#endif
}

/* Y (M, n) += rows (M, K) w', n <= GEMV_STRIP outputs from w on, which are stored as `type`. Where they are read from the
 * weight, the tiles of some outputs share out to one another the prefetch of the same outputs of the next strip. */
TARGET static void OF(strip)(const gemv_call *c, wtype type, size_t K, size_t n, size_t M, const char *w, ptrdiff_t stride, real *Y) {
    size_t tiles = (M + GEMV_ROWS - 1) / GEMV_ROWS;
    for (size_t t = 0; t < tiles; t++) {
        size_t m0 = M * t / tiles, m1 = M * (t + 1) / tiles, j0 = OUTPUTS * t / tiles, j1 = OUTPUTS * (t + 1) / tiles;
        for (size_t o = 0; o < n; o += OUTPUTS) {
            const char *at[OUTPUTS]; /* of outputs beyond the last, whose sums are dropped: the last */
            for (size_t j = 0; j < OUTPUTS; j++) at[j] = w + (ptrdiff_t)smaller(o + j, n - 1) * stride;
            prefetch ahead = {w + (ptrdiff_t)(n + o + j0) * stride, stride, w == (const char *)c->strip ? 0 : j1 - j0};
            OF(tile)(type, m1 - m0, K, c->rows + m0 * LD, at, &ahead, Y + m0 * c->ldy + o, c->ldy, smaller(n - o, OUTPUTS));
        }
    }
}

/* Some rows at a time, so that a depth of them stays in the L2 cache with a strip of the weight. Numbers that a tile can
 * load are read as they are stored, 16 bits only where one tile has all rows: others would widen them again. */
TARGET static void OF(several_rows)(const gemv_call *c) {
    const weight *W = c->W;
    size_t slices = (c->M + GEMV_SLICE - 1) / GEMV_SLICE;
    for (size_t s = 0; s < slices; s++)
        for (size_t k0 = 0, K; k0 < W->n_in; k0 += K) {
            size_t m0 = c->M * s / slices, M = c->M * (s + 1) / slices - m0;
            K = smaller(W->n_in - k0, GEMV_DEPTH);
            for (size_t m = 0; m < M; m++) OF(widen)(OF(simd_real), sizeof(real), c->X + (m0 + m) * c->ldx + k0, K, c->rows + m * LD);
            int loads = W->type == W_REAL || (M <= GEMV_ROWS && (W->type == W_F16 || W->type == W_BF16));
            int as_stored = loads && K % OF(PAIR) == 0;
            wtype type = as_stored ? W->type : W_REAL;
            ptrdiff_t stride = (as_stored ? W->out_stride : LD) * wtype_layouts[type].bytes;
            for (size_t o = 0, n; o < c->n; o += n) {
                n = smaller(c->n - o, M > GEMV_ROWS ? GEMV_STRIP : OUTPUTS);
                for (size_t j = 0; j < n && !as_stored; j++) OF(widen_row)(c, c->o0 + o + j, k0, K, c->strip + j * LD);
                const void *w = as_stored ? weight_at(W, c->o0 + o, k0) : c->strip;
                OF(strip)(c, type, OF(whole_pairs)(K), n, M, w, stride, c->Y + m0 * c->ldy + o);
            }
        }
}

/* ---- one row times the rows of a matrix */

/* y = the sums of columns c .. c + n * WIDTH of x (K) w, n a constant after inlining */
TARGET static ALWAYS void OF(columns)(const size_t n, size_t K, const real *x, const real *w, size_t ld, real *y) {
    OF(simd) sum[COLUMNS];
    for (size_t j = 0; j < n; j++) sum[j] = (OF(simd)){0};
    for (size_t k = 0; k < K; k++)
        for (size_t j = 0; j < n; j++) {
            __builtin_prefetch(w + (k + ROWS_AHEAD) * ld + j * OF(WIDTH));
            LOAD(v, OF(simd), w + k * ld + j * OF(WIDTH));
            sum[j] += x[k] * v;
        }
    memcpy(y, sum, n * VECTOR);
}

TARGET static void OF(row_sums)(size_t K, size_t n, const real *x, const real *w, size_t ld, real *y) {
    size_t c = 0;
    for (; c + COLUMNS * OF(WIDTH) <= n; c += COLUMNS * OF(WIDTH)) OF(columns)(COLUMNS, K, x, w + c, ld, y + c);
    for (; c + COLUMNS / 2 * OF(WIDTH) <= n; c += COLUMNS / 2 * OF(WIDTH)) OF(columns)(COLUMNS / 2, K, x, w + c, ld, y + c);
    for (; c + OF(WIDTH) <= n; c += OF(WIDTH)) OF(columns)(1, K, x, w + c, ld, y + c);
    for (; c < n; c++) {
        y[c] = 0;
        for (size_t k = 0; k < K; k++) y[c] += x[k] * w[k * ld + c];
    }
}

TARGET static void OF(product)(const gemv_call *c) {
    if (c->M == 1) OF(one_row)(c);
    else OF(several_rows)(c);
}
