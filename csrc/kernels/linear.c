#include "kernels/linear.h"
#include <string.h>
#include "base/arena.h"
#include "base/half.h"
#include "kernels/gemv.h"
#include "kernels/gemm_packed.h"

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* out (n) = numbers i .. i + n of row o of blocks */
static void decoded_row(block_decoder decode, const weight *W, size_t o, size_t i, size_t n, real *out) {
    float part[16 * BLOCK_RUN];
    for (size_t at = 0, some; at < n; at += some) {
        some = smaller(n - at, COUNT(part));
        decode(W, o, i + at, some, part);
        for (size_t j = 0; j < some; j++) out[at + j] = part[j];
    }
}

void weight_row(cpu_isa isa, const weight *W, size_t o, real *out) {
#define WIDEN(type, convert)                                                                                  \
    for (size_t i = 0; i < W->n_in; i++)                                                                      \
        out[i] = (real)convert(((const type *)W->data)[weight_row_offset(W, o) + (ptrdiff_t)i * W->in_stride]); \
    break
    switch (W->type) {
    case W_F32: WIDEN(float, );
    case W_F64: WIDEN(double, );
    case W_F16: WIDEN(uint16_t, half_to_float);
    case W_BF16: WIDEN(uint16_t, bf16_to_float);
    default: decoded_row(blocks_decoder(isa), W, o, 0, W->n_in, out);
    }
#undef WIDEN
}

_Static_assert((int)GEMM_SCRATCH >= (int)GEMV_SCRATCH, "scratch for either");
size_t linear_scratch(const weight *W) { return W->data ? GEMM_SCRATCH : 0; }

/* End of o's group, at most `end`: the outputs up to there lie at one stride. */
static size_t run_end(const weight *W, size_t o, size_t end) { return smaller((o / W->group + 1) * W->group, end); }

typedef struct {
    const runtime *rt;
    size_t M, ld_in, ld_out, rows, cols; /* the result is shared out as a grid of rows x cols parts, a task each */
    const real *in, *bias;
    real *out, *scratch, beta;
    size_t scratch_stride;
    const weight *W;
} product;

enum { CHUNKS = 4 };   /* tasks for each thread, so that one delayed thread does not hold up the others */
enum { COLUMNS = GEMM_COLUMNS }; /* tasks begin at multiples of this many columns */
enum { PACKING = 3 };  /* the cost of packing an element of the weight, in reads */

/* The task's part of the (M, N) result: m rows from m0, columns n0..n1. Returns 0 if it is empty. */
static int task_part(const product *p, size_t N, size_t task, size_t *m0, size_t *m, size_t *n0, size_t *n1) {
    part(p->M, p->rows, task / p->cols, m0, m);
    part((N + COLUMNS - 1) / COLUMNS, p->cols, task % p->cols, n0, n1);
    *m -= *m0;
    *n0 *= COLUMNS;
    *n1 = smaller(*n1 * COLUMNS, N);
    return *m && *n1 > *n0;
}

static void gemv_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    size_t m0, m, n0, n1;
    if (task_part(p, p->W->n_out, task, &m0, &m, &n0, &n1))
        gemv(p->rt->isa, p->W, n0, n1 - n0, m, p->in + m0 * p->ld_in, p->ld_in, p->bias ? p->bias + n0 : NULL,
             p->out + m0 * p->ld_out + n0, p->ld_out, p->scratch + (size_t)worker * p->scratch_stride);
}

static const weight *blocks_of(const weight *W) { return wtype_is_blocks(W->type) ? W : NULL; }

static void linear_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    const weight *W = p->W;
    size_t m0, m, n0, n1;
    if (!task_part(p, W->n_out, task, &m0, &m, &n0, &n1)) return;
    const real *X = p->in + m0 * p->ld_in;
    real *Y = p->out + m0 * p->ld_out;
    for (size_t a = n0, b; a < n1; a = b) {
        b = run_end(W, a, n1);
        gemm_packed(p->rt->isa, &(gemm_call){.M = m, .N = b - a, .K = W->n_in, .X = X, .ldx = p->ld_in, .type = W->type, .data = weight_at(W, a, 0),
                          .k_stride = W->in_stride, .n_stride = W->out_stride, .blocks = blocks_of(W), .out0 = a,
                          .decode = blocks_decoder(p->rt->isa), .bias = p->bias ? p->bias + a : NULL,
                          .Y = Y + a, .ldy = p->ld_out}, p->scratch + (size_t)worker * p->scratch_stride);
    }
}

static void linear_t_task(void *ctx, size_t task, int worker) {
    const product *p = ctx;
    const weight *W = p->W;
    size_t m0, m, i0, i1;
    if (!task_part(p, W->n_in, task, &m0, &m, &i0, &i1)) return;
    const real *Y = p->in + m0 * p->ld_in;
    real *X = p->out + m0 * p->ld_out + i0;
    for (size_t a = 0, b; a < W->n_out; a = b) {
        b = run_end(W, a, W->n_out);
        gemm_packed(p->rt->isa, &(gemm_call){.M = m, .N = i1 - i0, .K = b - a, .X = Y + a, .ldx = p->ld_in, .type = W->type,
                          .data = weight_at(W, a, i0), .k_stride = W->out_stride, .n_stride = W->in_stride, .blocks = blocks_of(W), .k_is_out = 1,
                          .out0 = a, .in0 = i0, .decode = blocks_decoder(p->rt->isa),
                          .add = a || p->beta != 0, .Y = X, .ldy = p->ld_out}, p->scratch + (size_t)worker * p->scratch_stride);
    }
}

static double operations(const product *p) { return (double)p->M * (double)p->W->n_out * (double)p->W->n_in; }

/* Shares an (M, N) result out to the threads. A part of m x n reads m rows of activations and n columns of the weight. Summed
 * over the grid each column of the weight is read `rows` times and each row of activations `cols` times, and the
 * weight is packed, that is, transposed or decoded, for every part: the cost is PACKING rows N + cols M. */
static void run_grid(product *p, size_t N, thread_pool_task task) {
    size_t threads = (size_t)thread_pool_threads(p->rt->pool), best = 0, panels = (N + COLUMNS - 1) / COLUMNS;
    if (operations(p) < THREAD_POOL_WORTH) threads = 1;
    p->rows = 1, p->cols = smaller(threads, panels);
    for (size_t rows = 1; rows <= threads; rows++) {
        size_t cols = threads / rows, cost = rows * N * PACKING + cols * p->M;
        if (threads % rows || (rows > 1 && rows > p->M / 4) || cols > panels) continue; /* at least 4 rows a part */
        if (!best || cost < best) best = cost, p->rows = rows, p->cols = cols;
    }
    thread_pool_run(p->rt->pool, p->rows * p->cols, operations(p), task, p);
}

/* The same for gemv.h, by columns alone: it reads the weight once for a slice of rows. */
static void run_columns(product *p, size_t N, thread_pool_task task) {
    p->rows = 1;
    p->cols = operations(p) < THREAD_POOL_WORTH ? 1 : CHUNKS * (size_t)thread_pool_threads(p->rt->pool);
    (void)N;
    thread_pool_run(p->rt->pool, p->cols, operations(p), task, p);
}

/* Rows of one slice of a product. Between slices it polls, about every RUNTIME_SLICE operations. */
static size_t rows_at_a_time(const product *p) {
    double rows = 2 * RUNTIME_SLICE / ((double)p->W->n_out * (double)p->W->n_in);
    return rows < 256 ? 256 : rows < (double)p->M ? (size_t)rows : p->M;
}

typedef void sharer(product *p, size_t N, thread_pool_task task);
static void run_by_rows(product *p, size_t N, sharer *share, thread_pool_task task) {
    size_t all = p->M, step = rows_at_a_time(p);
    for (size_t m = 0; m < all && !runtime_stopped(p->rt); m += step) {
        p->M = all - m < step ? all - m : step;
        share(p, N, task);
        p->in += p->M * p->ld_in;
        p->out += p->M * p->ld_out;
    }
}

void linear(const runtime *rt, size_t M, const real *X, size_t ldx, const weight *W, const real *bias,
            real *Y, size_t ldy, real *scratch, size_t scratch_stride) {
    product p = {.rt = rt, .M = M, .ld_in = ldx, .ld_out = ldy, .in = X, .bias = bias, .out = Y,
                 .scratch = scratch, .scratch_stride = scratch_stride, .W = W};
    if (rt->few_rows && W->in_stride == 1 && W->group == W->n_out) run_by_rows(&p, W->n_out, run_columns, gemv_task);
    else run_by_rows(&p, W->n_out, run_grid, linear_task);
}

void linear_t(const runtime *rt, size_t M, const real *Y, size_t ldy, const weight *W, real beta,
              real *X, size_t ldx, real *scratch, size_t scratch_stride) {
    product p = {.rt = rt, .M = M, .ld_in = ldy, .ld_out = ldx, .in = Y, .out = X, .beta = beta,
                 .scratch = scratch, .scratch_stride = scratch_stride, .W = W};
    run_by_rows(&p, W->n_in, run_grid, linear_t_task);
}
