#include "model/sweep_ends.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

void inject_source(const source *from, const subset *q, size_t C, size_t n, const column *columns, real *x) {
    const subset *at = &from->at;
    memset(x, 0, n * q->n * C * sizeof(real));
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < at->n && at->row[s] < q->row[i]) s++;
            if (s < at->n && at->row[s] == q->row[i]) memcpy(x + (t * q->n + i) * C, columns[t].v, C * sizeof(real));
        }
}

void extract_source(const jacobian *j, const source *from, const subset *q, size_t n, const real *x, int per_seq,
                    const column *columns) {
    const subset *at = &from->at;
    size_t C = j->m->d_model;
    for (size_t t = 0; t < n; t++) {
        memset(columns[t].v, 0, (per_seq ? j->b.n_seq : 1) * C * sizeof(real));
        for (size_t i = 0, k = 0, s = 0; i < q->n; i++) {
            while (k < at->n && at->row[k] < q->row[i]) k++;
            if (k == at->n || at->row[k] != q->row[i]) continue;
            while (per_seq && k >= at->row0[s + 1]) s++;
            for (size_t c = 0; c < C; c++) columns[t].v[s * C + c] += x[(t * q->n + i) * C + c];
        }
    }
}

void reduce_rows(const jacobian *j, const target *to, size_t n, const real *x, size_t n_x, const size_t *row,
                 const column *columns) {
    size_t w = to->width;
    for (size_t t = 0; t < n; t++) {
        const real *from = x + t * n_x * w;
        for (size_t s = 0; s < j->b.n_seq; s++) {
            size_t begin = to->at.row0[s], end = to->at.row0[s + 1];
            real *u = columns[t].u + (to->mean ? s : begin) * w, share = 1 / (real)(end - begin);
            if (to->mean) memset(u, 0, w * sizeof(real));
            for (size_t i = begin; i < end; i++) {
                const real *xi = from + (row ? row[i] : i) * w;
                if (!to->mean) memcpy(u + (i - begin) * w, xi, w * sizeof(real));
                else for (size_t c = 0; c < w; c++) u[c] += share * xi[c];
            }
        }
    }
}

void spread_target(const jacobian *j, const target *to, size_t n, const column *columns, real *x) {
    size_t w = to->width, Q = to->at.n;
    for (size_t t = 0; t < n; t++) {
        if (!to->mean) {
            memcpy(x + t * Q * w, columns[t].u, Q * w * sizeof(real));
            continue;
        }
        for (size_t s = 0; s < j->b.n_seq; s++) {
            const real *u = columns[t].u + s * w;
            real share = 1 / (real)(to->at.row0[s + 1] - to->at.row0[s]);
            for (size_t i = to->at.row0[s]; i < to->at.row0[s + 1]; i++)
                for (size_t c = 0; c < w; c++) x[(t * Q + i) * w + c] = share * u[c];
        }
    }
}

/* ---- the LM head ---- */

static norm_rows final_norm_of(const jacobian *j, const target *to, size_t n) {
    return (norm_rows){.kind = j->m->norm, .eps = j->m->norm_eps, .width = j->m->d_model, .groups = 1,
                       .gain = j->m->final_norm.gain, .xhat = to->lm_head.xhat, .r = to->lm_head.r, .n_t = n, .n = to->at.n,
                       .scale = 1};
}

/* Context of the row-by-row part of the LM head */
typedef struct {
    const target *to;
    real *z;
} lm_head_rows;

/* z, the tangent of the LM head's product, in place:
 *  logits:      dlogits = slope o dz
 *  next token:  J v = sqrt p o (dlogits - p.dlogits) */
static void lm_head_jvp_row(void *ctx, size_t i, int worker) {
    const lm_head_rows *h = ctx;
    size_t V = h->to->width, row = i % h->to->at.n;
    const real *slope = h->to->lm_head.slope + row * V, *p = h->to->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    for (size_t k = 0; k < V; k++) z[k] *= slope[k];
    if (h->to->kind != TARGET_NEXT_TOKEN) return;
    real mean = reduce_dot(V, p, z);
    for (size_t k = 0; k < V; k++) z[k] = FN(sqrt)(p[k]) * (z[k] - mean);
}

/* The transpose, in place:
 *  next token:  w = sqrt p o u,  glogits = w - p sum w
 *  gz = slope o glogits */
static void lm_head_vjp_row(void *ctx, size_t i, int worker) {
    const lm_head_rows *h = ctx;
    size_t V = h->to->width, row = i % h->to->at.n;
    const real *slope = h->to->lm_head.slope + row * V, *p = h->to->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    if (h->to->kind == TARGET_NEXT_TOKEN) {
        for (size_t k = 0; k < V; k++) z[k] *= FN(sqrt)(p[k]);
        real total = reduce_sum(V, z);
        for (size_t k = 0; k < V; k++) z[k] -= p[k] * total;
    }
    for (size_t k = 0; k < V; k++) z[k] *= slope[k];
}

/* Scratch of the LM head: z (n, target rows, n_vocab) and the panels */
typedef struct {
    real *z, *panel;
    size_t stride;
    arena memory;
} lm_head_scratch;

static ps_code lm_head_make_or_count(lm_head_scratch *h, const spec *m, size_t n, size_t n_target, int threads, size_t *bytes,
                                     ps_status *st) {
    *h = (lm_head_scratch){.stride = linear_scratch(&m->lm_head)};
    arena_slice table[] = {SLICE(h->z, n, n_target, m->n_vocab), SLICE(h->panel, (size_t)threads, h->stride)};
    return arena_make_or_count(&h->memory, table, COUNT(table), bytes, st);
}

ps_code lm_head_sweep_count(const spec *m, size_t n, size_t n_target, int threads, size_t *bytes, ps_status *st) {
    return lm_head_make_or_count(&(lm_head_scratch){0}, m, n, n_target, threads, bytes, st);
}

static ps_code lm_head_scratch_make(lm_head_scratch *h, const jacobian *j, const target *to, const runtime *rt, size_t n,
                                    ps_status *st) {
    return lm_head_make_or_count(h, j->m, n, to->at.n, thread_pool_threads(rt->pool), NULL, st);
}

ps_code lm_head_jvp(const jacobian *j, const target *to, const runtime *rt, size_t n, real *x, const column *columns,
                    ps_status *st) {
    lm_head_scratch h;
    size_t rows = n * to->at.n;
    if (lm_head_scratch_make(&h, j, to, rt, n, st)) return st->code;
    norm_rows a = final_norm_of(j, to, n);
    if (j->m->final_norm.present) rowwise_norm_jvp(rt, &a, x, x);
    linear(rt, rows, x, j->m->d_model, &j->m->lm_head, NULL, h.z, to->width, h.panel, h.stride);
    lm_head_rows r = {to, h.z};
    runtime_run(rt, rows, 10.0 * (double)rows * (double)to->width, lm_head_jvp_row, &r);
    reduce_rows(j, to, n, h.z, to->at.n, NULL, columns);
    arena_free(&h.memory);
    return PS_OK;
}

ps_code lm_head_vjp(const jacobian *j, const target *to, const runtime *rt, size_t n, const column *columns, real *x,
                    ps_status *st) {
    lm_head_scratch h;
    size_t rows = n * to->at.n;
    if (lm_head_scratch_make(&h, j, to, rt, n, st)) return st->code;
    spread_target(j, to, n, columns, h.z);
    lm_head_rows r = {to, h.z};
    runtime_run(rt, rows, 10.0 * (double)rows * (double)to->width, lm_head_vjp_row, &r);
    linear_t(rt, rows, h.z, to->width, &j->m->lm_head, 0, x, j->m->d_model, h.panel, h.stride);
    norm_rows a = final_norm_of(j, to, n);
    if (j->m->final_norm.present) rowwise_norm_vjp(rt, &a, x, x);
    arena_free(&h.memory);
    return PS_OK;
}
