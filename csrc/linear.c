#include "linear.h"
#include <string.h>
#include "half.h"
#include "skinny.h"

enum { PANEL = 128 * 1024, MIN_ROWS = 16 }; /* reals of a panel: it stays in the L2 cache between widening and use */

/* dst[j] = element at data[offset + j*stride], j < n */
static void widen(const weight *W, ptrdiff_t offset, ptrdiff_t stride, size_t n, real *restrict dst) {
#define WIDEN(type, convert)                                                              \
    {                                                                                     \
        const type *src = (const type *)W->data + offset;                                 \
        if (stride == 1)                                                                  \
            for (size_t j = 0; j < n; j++) dst[j] = (real)convert(src[j]);                \
        else                                                                              \
            for (size_t j = 0; j < n; j++) dst[j] = (real)convert(src[(ptrdiff_t)j * stride]); \
        break;                                                                            \
    }
    switch (W->type) {
    case W_F32: WIDEN(float, )
    case W_F64: WIDEN(double, )
    case W_F16: WIDEN(uint16_t, half_to_float)
    case W_BF16: WIDEN(uint16_t, bf16_to_float)
    }
#undef WIDEN
}

static ptrdiff_t row_offset(const weight *W, size_t o) {
    return (ptrdiff_t)(o / W->group) * W->group_stride + (ptrdiff_t)(o % W->group) * W->out_stride;
}

void weight_row(const weight *W, size_t o, real *out) { widen(W, row_offset(W, o), W->in_stride, W->n_in, out); }

/* A block of W as the BLAS can read it. layout 'o': element (o,i) at p[o*ld + i]; 'i': at p[i*ld + o]. */
typedef struct {
    const real *p;
    size_t ld;
    char layout;
} view;

static wtype real_type(void) { return sizeof(real) == 4 ? W_F32 : W_F64; }

/* The one predicate: real, grouped evenly, unit stride one way and a positive stride that is no overlap the other. */
static char in_place_layout(const weight *W) {
    if (W->type != real_type() || W->group != W->n_out) return 0;
    if (W->in_stride == 1 && W->out_stride >= (ptrdiff_t)W->n_in) return 'o';
    if (W->out_stride == 1 && W->in_stride >= (ptrdiff_t)W->n_out) return 'i';
    return 0;
}

static size_t panel_rows(size_t n_in) {
    size_t rows = n_in ? PANEL / n_in : MIN_ROWS;
    return rows < MIN_ROWS ? MIN_ROWS : rows;
}

size_t linear_scratch(const weight *W) {
    if (!W->data || in_place_layout(W)) return 0;
    size_t rows = panel_rows(W->n_in);
    return (rows < W->n_out ? rows : W->n_out) * W->n_in;
}

/* Outputs o0..o1, inputs i0..i1 of W. */
static view weight_view(const weight *W, size_t o0, size_t o1, size_t i0, size_t i1, real *panel) {
    const real *base = W->data;
    switch (in_place_layout(W)) {
    case 'o': return (view){base + o0 * (size_t)W->out_stride + i0, (size_t)W->out_stride, 'o'};
    case 'i': return (view){base + i0 * (size_t)W->in_stride + o0, (size_t)W->in_stride, 'i'};
    }
    if (W->out_stride == 1 && W->group == W->n_out) { /* widen along the contiguous axis */
        for (size_t i = i0; i < i1; i++)
            widen(W, (ptrdiff_t)o0 + (ptrdiff_t)i * W->in_stride, 1, o1 - o0, panel + (i - i0) * (o1 - o0));
        return (view){panel, o1 - o0, 'i'};
    }
    for (size_t o = o0; o < o1; o++)
        widen(W, row_offset(W, o) + (ptrdiff_t)i0 * W->in_stride, W->in_stride, i1 - i0, panel + (o - o0) * (i1 - i0));
    return (view){panel, i1 - i0, 'o'};
}

typedef struct {
    const runtime *rt;
    size_t M, ld_in, ld_out, rows, cols; /* the grid of tasks: rows x cols parts of the result */
    const real *in, *bias;
    real *out, *scratch, beta;
    size_t scratch_stride;
    const weight *W;
} product;

static int is_skinny(const weight *W, size_t M) { return M <= SKINNY_ROWS && W->in_stride == 1 && W->group == W->n_out; }

static void skinny_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    const weight *W = p->W;
    static const size_t item[] = {[W_F32] = 4, [W_F64] = 8, [W_F16] = 2, [W_BF16] = 2};
    size_t n0, n1;
    (void)worker;
    part(W->n_out, p->cols, task, &n0, &n1);
    skinny(W->type, (const char *)W->data + (ptrdiff_t)n0 * W->out_stride * (ptrdiff_t)item[W->type], W->out_stride,
           n1 - n0, W->n_in, p->M, p->in, p->ld_in, p->bias ? p->bias + n0 : NULL, p->out + n0, p->ld_out);
}

static void linear_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    size_t m0, m1, n0, n1, step = in_place_layout(p->W) ? p->W->n_out : panel_rows(p->W->n_in);
    part(p->M, p->rows, task / p->cols, &m0, &m1);
    part(p->W->n_out, p->cols, task % p->cols, &n0, &n1);
    const real *X = p->in + m0 * p->ld_in;
    for (size_t a = n0; a < n1 && m1 > m0; a += step) {
        size_t b = a + step < n1 ? a + step : n1;
        real *Y = p->out + m0 * p->ld_out + a;
        if (p->bias)
            for (size_t m = 0; m < m1 - m0; m++) memcpy(Y + m * p->ld_out, p->bias + a, (b - a) * sizeof(real));
        view w = weight_view(p->W, a, b, 0, p->W->n_in, p->scratch + (size_t)worker * p->scratch_stride);
        gemm(p->rt->blas, 'n', w.layout == 'o' ? 't' : 'n', m1 - m0, b - a, p->W->n_in, 1, X, p->ld_in, w.p, w.ld,
             p->bias ? 1 : 0, Y, p->ld_out);
    }
}

static void linear_t_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    size_t m0, m1, i0, i1, step = in_place_layout(p->W) ? p->W->n_out : panel_rows(p->W->n_in);
    part(p->M, p->rows, task / p->cols, &m0, &m1);
    part(p->W->n_in, p->cols, task % p->cols, &i0, &i1);
    real *X = p->out + m0 * p->ld_out + i0;
    for (size_t a = 0; a < p->W->n_out && m1 > m0 && i1 > i0; a += step) {
        size_t b = a + step < p->W->n_out ? a + step : p->W->n_out;
        view w = weight_view(p->W, a, b, i0, i1, p->scratch + (size_t)worker * p->scratch_stride);
        gemm(p->rt->blas, 'n', w.layout == 'o' ? 'n' : 't', m1 - m0, i1 - i0, b - a, 1, p->in + m0 * p->ld_in + a,
             p->ld_in, w.p, w.ld, a ? 1 : p->beta, X, p->ld_out);
    }
}

static double operations(const product *p) { return (double)p->M * (double)p->W->n_out * (double)p->W->n_in; }

/* Splits an (M, N) result over the threads. A part of m x n reads (and packs) m rows of the activations and n columns
 * of the weight: rows*N + cols*M in all, the weight's share threefold where it must be widened. */
static void run_grid(product *p, size_t N, pool_task task) {
    size_t threads = (size_t)pool_threads(p->rt->pool), dear = in_place_layout(p->W) ? 1 : 3;
    size_t best = 0;
    if (operations(p) < POOL_WORTH) threads = 1;
    for (size_t rows = 1; rows <= threads; rows++) {
        if (threads % rows) continue;
        size_t cols = threads / rows, cost = rows * N * dear + cols * p->M;
        if (rows > 1 && rows > p->M / 4) continue; /* no slivers */
        if (!best || cost < best) best = cost, p->rows = rows, p->cols = cols;
    }
    pool_run(p->rt->pool, p->rows * p->cols, operations(p), task, p);
}

/* Rows at a time, so that a product of any size stops within RUNTIME_SLICE operations. */
static size_t rows_at_a_time(const product *p) {
    double rows = 2 * RUNTIME_SLICE / ((double)p->W->n_out * (double)p->W->n_in);
    return rows < 256 ? 256 : rows < (double)p->M ? (size_t)rows : p->M;
}

static void run_by_rows(product *p, size_t N, pool_task task) {
    size_t all = p->M, step = rows_at_a_time(p);
    for (size_t m = 0; m < all && !runtime_stopped(p->rt); m += step) {
        p->M = all - m < step ? all - m : step;
        run_grid(p, N, task);
        p->in += p->M * p->ld_in;
        p->out += p->M * p->ld_out;
    }
}

void linear(const runtime *rt, size_t M, const real *X, size_t ldx, const weight *W, const real *bias,
            real *Y, size_t ldy, real *scratch, size_t scratch_stride) {
    product p = {.rt = rt, .M = M, .ld_in = ldx, .ld_out = ldy, .in = X, .bias = bias, .out = Y,
                 .scratch = scratch, .scratch_stride = scratch_stride, .W = W};
    if (is_skinny(W, M)) {
        p.cols = operations(&p) < POOL_WORTH ? 1 : (size_t)pool_threads(rt->pool);
        pool_run(rt->pool, p.cols, operations(&p), skinny_task, &p);
    } else {
        run_by_rows(&p, W->n_out, linear_task);
    }
}

void linear_t(const runtime *rt, size_t M, const real *Y, size_t ldy, const weight *W, real beta,
              real *X, size_t ldx, real *scratch, size_t scratch_stride) {
    product p = {.rt = rt, .M = M, .ld_in = ldy, .ld_out = ldx, .in = Y, .out = X, .beta = beta,
                 .scratch = scratch, .scratch_stride = scratch_stride, .W = W};
    run_by_rows(&p, W->n_in, linear_t_task);
}
