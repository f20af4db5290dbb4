#include "ops/attention.h"
#include <string.h>
#include "kernels/gemm_packed.h"
#include "kernels/gemv.h"
#include "kernels/vexp.h"
#include "base/reduce.h"

/* Query rows of a block: enough to fill the products, few enough that a block of scores stays in the caches and that
 * little is computed above the diagonal, where it is discarded. */
enum { BLOCK = 32 };
_Static_assert(GEMM_KC % BLOCK == 0, "a partial sum over keys ends between two blocks");
static const wtype REAL_TYPE = REAL_SIZE == 8 ? W_F64 : W_F32;

/* One block: n query rows from i0 of one head, and the nk keys from j0 of which each is seen by one of them, or nearly. */
typedef struct {
    size_t h, i0, n, j0, nk;
    const real *k, *v; /* key and value j0 of the head's group */
    const real *bias;  /* of key j0, or NULL */
    real *q;           /* (n, HS) copied from the query rows */
    real *P, *dS, *cap; /* (n, nk) */
} block;

size_t attention_scratch(size_t max_keys, size_t head_dim) { return BLOCK * (3 * max_keys + head_dim); }

/* The first key that a query at this position sees */
static size_t first_key(const attention *a, int pos) {
    int seen = a->window && pos >= a->window ? pos - a->window + 1 : 0, chunk = a->chunk ? pos - pos % a->chunk : 0;
    return (size_t)(seen > chunk ? seen : chunk);
}

/* Rows by which the first block of a sequence is shorter: consecutive positions are divided at multiples of BLOCK, so that a
 * row's block does not depend on how many rows before it are queries. */
static size_t missing(const attention *a, const attention_seq *s) { return (size_t)a->pos[s->q0] % BLOCK; }

static size_t blocks_of(const attention *a, const attention_seq *s) {
    return (missing(a, s) + s->q1 - s->q0 + BLOCK - 1) / BLOCK;
}

/* First row of block i of the sequence, or the end of its rows */
static size_t block_row(const attention *a, const attention_seq *s, size_t i) {
    size_t row = i ? s->q0 + i * BLOCK - missing(a, s) : s->q0;
    return row < s->q1 ? row : s->q1;
}

static block query_block(const attention *a, const attention_seq *s, size_t h, size_t i, real *scratch) {
    size_t HS = a->head_dim, kv = h / (a->n_heads / a->n_kv_heads), i0 = block_row(a, s, i);
    block b = {.h = h, .i0 = i0, .n = block_row(a, s, i + 1) - i0};
    b.j0 = first_key(a, a->pos[i0] / BLOCK * BLOCK) / BLOCK * BLOCK;
    b.nk = (size_t)a->pos[i0 + b.n - 1] + 1 - b.j0;
    b.k = s->k + b.j0 * s->ld + kv * HS;
    b.v = s->v + b.j0 * s->ld + kv * a->value_dim;
    b.bias = a->key_bias ? a->key_bias + h * a->ldb + b.j0 : NULL;
    b.q = scratch;
    b.P = b.q + BLOCK * HS;
    b.dS = b.P + BLOCK * b.nk;
    b.cap = b.dS + BLOCK * b.nk;
    for (size_t r = 0; r < b.n; r++) memcpy(b.q + r * HS, a->q + (i0 + r) * a->ldq + h * HS, HS * sizeof(real));
    return b;
}

static void scores(const runtime *rt, const attention *a, const attention_seq *s, const block *b) {
    gemm(rt->blas, 'n', 't', b->n, b->nk, a->head_dim, a->scale, b->q, a->head_dim, b->k, s->ld, 0, b->P, b->nk);
}

/*  S = c tanh(x/c) + bias,  P = softmax(S)  of the scores x in b->P
 *  cap = dS/dx = 1 - (S/c)^2,  if there is a soft-cap and want_cap */
static void probabilities(const runtime *rt, const attention *a, const block *b, int want_cap) {
    for (size_t i = 0; i < b->n; i++) {
        real *P = b->P + i * b->nk;
        int pos = a->pos[b->i0 + i];
        size_t lo = first_key(a, pos) - b->j0, hi = (size_t)pos + 1 - b->j0;
        if (a->softcap > 0)
            for (size_t j = lo; j < hi; j++) {
                real t = FN(tanh)(P[j] / a->softcap);
                P[j] = a->softcap * t;
                if (want_cap) b->cap[i * b->nk + j] = 1 - t * t;
            }
        real own = b->bias ? b->bias[hi - 1] : 0, sink = a->sinks ? a->sinks[b->h] - own : 0;
        if (b->bias) /* less that of the row's own key, which P does not depend on: near it little is rounded */
            for (size_t j = lo; j < hi; j++) P[j] += b->bias[j] - own;
        for (size_t j = 0; j < lo; j++) P[j] = 0;
        for (size_t j = hi; j < b->nk; j++) P[j] = 0;
        real top = reduce_max(hi - lo, P + lo);
        if (a->sinks && sink > top) top = sink;
        for (size_t j = lo; j < hi; j++) P[j] -= top;
        vexp(rt->isa, hi - lo, P + lo, P + lo);
        real total = 1 / (reduce_sum(hi - lo, P + lo) + (a->sinks ? FN(exp)(sink - top) : 0));
        for (size_t j = lo; j < hi; j++) P[j] *= total;
    }
}

/* The derivative of P = softmax(cap(x)), in place in b->dS:
 *  jvp:  dS = cap o dx,  dP = P o (dS - rowsum(P o dS))
 *  vjp:  gS = P o (gP - rowsum(P o gP)),  gx = cap o gS
 * Each of the two factors is symmetric, so the transpose is the same factors in the other order. */
static void softmax_derivative(const attention *a, const block *b, int transposed) {
    for (size_t i = 0; i < b->n; i++) {
        real *dS = b->dS + i * b->nk, *P = b->P + i * b->nk;
        int pos = a->pos[b->i0 + i];
        size_t lo = first_key(a, pos) - b->j0, hi = (size_t)pos + 1 - b->j0;
        const real *cap = a->softcap > 0 ? b->cap + i * b->nk : NULL;
        if (cap && !transposed)
            for (size_t j = lo; j < hi; j++) dS[j] *= cap[j];
        real mean = reduce_dot(hi - lo, P + lo, dS + lo);
        for (size_t j = 0; j < lo; j++) dS[j] = 0;
        for (size_t j = lo; j < hi; j++) dS[j] = P[j] * (dS[j] - mean);
        for (size_t j = hi; j < b->nk; j++) dS[j] = 0;
        if (cap && transposed)
            for (size_t j = lo; j < hi; j++) dS[j] *= cap[j];
    }
}

typedef struct {
    const runtime *rt;
    const attention *a;
    size_t n_t, n_q, n_rows, chunks;
    const real *dq, *dk, *dv, *go;
    real *o, *gq, *gk, *gv;
    size_t ldo;
} call;

/* Task number `task` of forward and jvp: its sequence, head and block. Tasks are (sequence, block, head). */
static const attention_seq *find_task(const attention *a, size_t task, size_t *h, size_t *i) {
    const attention_seq *s = a->seq;
    *h = task % a->n_heads;
    task /= a->n_heads;
    for (; task >= blocks_of(a, s); s++) task -= blocks_of(a, s);
    *i = task;
    return s;
}

static size_t n_tasks(const attention *a) {
    size_t n = 0;
    for (size_t s = 0; s < a->n_seq; s++) n += blocks_of(a, &a->seq[s]);
    return n * a->n_heads;
}

static void keep_pattern(const attention *a, const block *b, size_t h) {
    for (size_t i = 0; a->pattern && i < b->n; i++) {
        real *out = a->pattern + ((b->i0 + i) * a->n_heads + h) * a->ldp;
        memset(out, 0, a->ldp * sizeof(real));
        memcpy(out + b->j0, b->P + i * b->nk, b->nk * sizeof(real));
    }
}

/* The products of one query of a decoding step are those of gemv.h, all others those of gemm_packed.h: see attention.h */
static void forward_task(void *ctx, size_t task, int worker) {
    const call *c = ctx;
    const attention *a = c->a;
    size_t h, i, HS = a->head_dim, VD = a->value_dim;
    const attention_seq *s = find_task(a, task, &h, &i);
    block b = query_block(a, s, h, i, a->scratch + (size_t)worker * a->scratch_stride);
    real *o = c->o + b.i0 * c->ldo + h * VD;
    real *panel = a->panel + (size_t)worker * a->panel_stride;
    for (size_t j = 0; j < b.n * HS; j++) b.q[j] *= a->scale;
    if (c->rt->few_rows && b.n == 1) {
        weight keys = {.data = b.k, .type = REAL_TYPE, .n_out = b.nk, .n_in = HS, .group = b.nk,
                       .out_stride = (ptrdiff_t)s->ld, .in_stride = 1};
        gemv(c->rt->isa, &keys, 0, b.nk, 1, b.q, HS, NULL, b.P, b.nk, panel);
        probabilities(c->rt, a, &b, 0);
        keep_pattern(a, &b, h);
        gemv_t(c->rt->isa, b.nk, VD, b.P, b.v, s->ld, o);
        return;
    }
    gemm_packed(c->rt->isa, &(gemm_call){.M = b.n, .N = b.nk, .K = HS, .X = b.q, .ldx = HS, .type = REAL_TYPE, .data = b.k,
                                         .k_stride = 1, .n_stride = (ptrdiff_t)s->ld, .Y = b.P, .ldy = b.nk}, panel);
    probabilities(c->rt, a, &b, 0);
    keep_pattern(a, &b, h);
    gemm_packed(c->rt->isa, &(gemm_call){.M = b.n, .N = VD, .K = b.nk, .X = b.P, .ldx = b.nk, .type = REAL_TYPE, .data = b.v,
                                         .k_stride = (ptrdiff_t)s->ld, .n_stride = 1, .Y = o, .ldy = c->ldo}, panel);
}

enum { SOFTMAX = 50 }; /* multiply-adds that take as long as turning one score into a probability */

/* Multiply-adds of the forward pass and of `products` more products of a head's scores; every query counts all keys. */
static double operations(const attention *a, double products) {
    double n = 0;
    for (size_t s = 0; s < a->n_seq; s++) n += (double)(a->seq[s].q1 - a->seq[s].q0) * (double)a->seq[s].n_keys;
    return n * (double)a->n_heads * ((2 + products) * (double)a->head_dim + SOFTMAX);
}

void attention_forward(const runtime *rt, const attention *a, real *o, size_t ldo) {
    call c = {.rt = rt, .a = a, .o = o, .ldo = ldo};
    runtime_run(rt, n_tasks(a), operations(a, 0), forward_task, &c);
}

static void jvp_task(void *ctx, size_t task, int worker) {
    const call *c = ctx;
    const attention *a = c->a;
    const blas *blas = c->rt->blas;
    size_t h, i, HS = a->head_dim, VD = a->value_dim, W = a->n_heads * HS, WO = a->n_heads * VD, WKV = a->n_kv_heads * HS;
    const attention_seq *s = find_task(a, task, &h, &i);
    block b = query_block(a, s, h, i, a->scratch + (size_t)worker * a->scratch_stride);
    size_t kv = h / (a->n_heads / a->n_kv_heads), i0 = b.i0;
    scores(c->rt, a, s, &b);
    probabilities(c->rt, a, &b, 1);
    for (size_t t = 0; t < c->n_t; t++) {
        const real *dq = c->dq + (t * c->n_q + i0) * W + h * HS;
        const real *dk = c->dk + (t * c->n_rows + s->key0 + b.j0) * WKV + kv * HS;
        const real *dv = c->dv + (t * c->n_rows + s->key0 + b.j0) * WKV + kv * VD;
        real *out = c->o + (t * c->n_q + i0) * WO + h * VD;
        /*  S = scale q k'
         * dS = scale (dq k' + q dk') */
        gemm(blas, 'n', 't', b.n, b.nk, HS, a->scale, dq, W, b.k, s->ld, 0, b.dS, b.nk);
        gemm(blas, 'n', 't', b.n, b.nk, HS, a->scale, b.q, HS, dk, WKV, 1, b.dS, b.nk);
        softmax_derivative(a, &b, 0);
        /*  o = P v
         * do = dP v + P dv */
        gemm(blas, 'n', 'n', b.n, VD, b.nk, 1, b.dS, b.nk, b.v, s->ld, 0, out, WO);
        gemm(blas, 'n', 'n', b.n, VD, b.nk, 1, b.P, b.nk, dv, WKV, 1, out, WO);
    }
}

void attention_jvp(const runtime *rt, const attention *a, size_t n_t, size_t n_q, size_t n_rows,
                   const real *dq, const real *dk, const real *dv, real *do_) {
    call c = {.rt = rt, .a = a, .n_t = n_t, .n_q = n_q, .n_rows = n_rows, .dq = dq, .dk = dk, .dv = dv, .o = do_};
    runtime_run(rt, n_tasks(a), operations(a, 4 * (double)n_t), jvp_task, &c);
}

/* One (chunk of tangents, sequence, key/value head): only this task writes its rows of gk and gv. The heads of the group add
 * to them one after the other, in the same order for any number of threads. */
static void vjp_task(void *ctx, size_t task, int worker) {
    const call *c = ctx;
    const attention *a = c->a;
    const blas *blas = c->rt->blas;
    size_t HS = a->head_dim, VD = a->value_dim, W = a->n_heads * HS, WO = a->n_heads * VD, WKV = a->n_kv_heads * HS;
    size_t group = a->n_heads / a->n_kv_heads;
    size_t kv = task % a->n_kv_heads, t0, t1;
    const attention_seq *s = &a->seq[task / a->n_kv_heads % a->n_seq];
    part(c->n_t, c->chunks, task / a->n_kv_heads / a->n_seq, &t0, &t1);
    for (size_t t = t0; t < t1; t++)
        for (size_t j = 0; j < s->n_keys; j++) {
            memset(c->gk + (t * c->n_rows + s->key0 + j) * WKV + kv * HS, 0, HS * sizeof(real));
            memset(c->gv + (t * c->n_rows + s->key0 + j) * WKV + kv * VD, 0, VD * sizeof(real));
        }
    for (size_t h = kv * group; h < (kv + 1) * group; h++)
        for (size_t i = 0; i < blocks_of(a, s); i++) {
            block b = query_block(a, s, h, i, a->scratch + (size_t)worker * a->scratch_stride);
            size_t i0 = b.i0;
            scores(c->rt, a, s, &b);
            probabilities(c->rt, a, &b, 1);
            for (size_t t = t0; t < t1; t++) {
                const real *go = c->go + (t * c->n_q + i0) * WO + h * VD;
                real *gq = c->gq + (t * c->n_q + i0) * W + h * HS;
                real *gk = c->gk + (t * c->n_rows + s->key0 + b.j0) * WKV + kv * HS;
                real *gv = c->gv + (t * c->n_rows + s->key0 + b.j0) * WKV + kv * VD;
                /* o = P v:  gP = go v',  gv += P' go */
                gemm(blas, 'n', 't', b.n, b.nk, VD, 1, go, WO, b.v, s->ld, 0, b.dS, b.nk);
                gemm(blas, 't', 'n', b.nk, VD, b.n, 1, b.P, b.nk, go, WO, 1, gv, WKV);
                softmax_derivative(a, &b, 1);
                /* S = scale q k':  gq = scale gS k,  gk += scale gS' q */
                gemm(blas, 'n', 'n', b.n, HS, b.nk, a->scale, b.dS, b.nk, b.k, s->ld, 0, gq, W);
                gemm(blas, 't', 'n', b.nk, HS, b.n, a->scale, b.dS, b.nk, b.q, HS, 1, gk, WKV);
            }
        }
}

void attention_vjp(const runtime *rt, const attention *a, size_t n_t, size_t n_q, size_t n_rows,
                   const real *go, real *gq, real *gk, real *gv) {
    call c = {.rt = rt, .a = a, .n_t = n_t, .n_q = n_q, .n_rows = n_rows, .go = go, .gq = gq, .gk = gk, .gv = gv};
    size_t units = a->n_seq * a->n_kv_heads, threads = (size_t)thread_pool_threads(rt->pool);
    /* tangents are divided only if there are fewer units than threads, since every chunk computes P again */
    c.chunks = (threads + units - 1) / units;
    if (c.chunks > n_t) c.chunks = n_t;
    runtime_run(rt, c.chunks * units, operations(a, 4 * (double)n_t), vjp_task, &c);
}
