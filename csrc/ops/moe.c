#include "ops/moe.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

static ps_code make_or_count(moe_tape *t, const spec *m, size_t n, size_t *bytes, ps_status *st) {
    size_t E = m->n_experts, A;
    *t = (moe_tape){0};
    if (size_mul(n, m->top_k, &A, st)) return st->code;
    arena_slice table[] = {
        SLICE(t->p, n, E), SLICE(t->chosen, A), SLICE(t->first, E + 1), SLICE(t->row, A), SLICE(t->slot, A), SLICE(t->share, A),
        SLICE(t->slope, m->gated ? A : 0, m->d_expert), SLICE(t->lift, A, m->d_expert), SLICE(t->y, A, m->d_model)};
    return arena_make_or_count(&t->memory, table, COUNT(table), bytes, st);
}

ps_code moe_tape_make(moe_tape *t, const spec *m, size_t n, ps_status *st) { return make_or_count(t, m, n, NULL, st); }

ps_code moe_tape_count(const spec *m, size_t n, size_t *bytes, ps_status *st) {
    return make_or_count(&(moe_tape){0}, m, n, bytes, st);
}

void moe_tape_free(moe_tape *t) { arena_free(&t->memory); }

/* The parts of the scratch: buffers for the rows of one expert at a time, and the router's outputs for all rows */
typedef struct {
    real *x;          /* (n_t * n, C) input */
    real *gate, *up;  /* (n_t * n, FE) */
    real *out;        /* (n_t * n, C) */
    real *r, *dshare; /* (n_t * n, E), (n_t * n, K) */
} pieces;

size_t moe_scratch(const spec *m, size_t n_t, size_t n) {
    return m->n_experts ? n_t * n * (2 * m->d_model + 2 * m->d_expert + m->n_experts + m->top_k) : 0;
}

static pieces cut(const moe_call *c) {
    size_t rows = c->n_t * c->n;
    pieces s = {.x = c->scratch};
    s.gate = s.x + rows * c->m->d_model;
    s.up = s.gate + rows * c->m->d_expert;
    s.out = s.up + rows * c->m->d_expert;
    s.r = s.out + rows * c->m->d_model;
    s.dshare = s.r + rows * c->m->n_experts;
    return s;
}

static void lin(const moe_call *c, size_t rows, const real *X, const weight *W, real *Y) {
    linear(c->rt, rows, X, W->n_in, W, NULL, Y, W->n_out, c->panel, c->panel_stride);
}
static void lin_t(const moe_call *c, size_t rows, const real *Y, const weight *W, real beta, real *X) {
    linear_t(c->rt, rows, Y, W->n_out, W, beta, X, W->n_in, c->panel, c->panel_stride);
}

/* ---- routing ---- */

static void route_row(const spec *m, real *p, size_t *chosen, real *share) {
    size_t E = m->n_experts, K = m->top_k;
    real top = reduce_max(E, p), kept = 0;
    for (size_t e = 0; e < E; e++) p[e] = FN(exp)(p[e] - top);
    real total = reduce_sum(E, p);
    for (size_t e = 0; e < E; e++) p[e] /= total;
    for (size_t k = 0; k < K; k++) {
        size_t best = E;
        for (size_t e = 0; e < E; e++) {
            int taken = 0;
            for (size_t i = 0; i < k; i++) taken |= chosen[i] == e;
            if (!taken && (best == E || p[e] > p[best])) best = e;
        }
        chosen[k] = best;
        kept += p[best];
    }
    for (size_t k = 0; k < K; k++) share[k] = p[chosen[k]] / (m->norm_topk ? kept : 1);
}

/* Sorts the assignments by expert, counting. */
static void sort_assignments(const spec *m, const moe_tape *t, size_t n) {
    size_t E = m->n_experts, A = n * m->top_k;
    memset(t->first, 0, (E + 1) * sizeof *t->first);
    for (size_t a = 0; a < A; a++) t->first[t->chosen[a] + 1]++;
    for (size_t e = 0; e < E; e++) t->first[e + 1] += t->first[e];
    for (size_t a = 0; a < A; a++) {
        size_t to = t->first[t->chosen[a]]++;
        t->row[to] = a / m->top_k;
        t->slot[to] = a % m->top_k;
    }
    for (size_t e = E; e; e--) t->first[e] = t->first[e - 1]; /* each has moved to its end */
    t->first[0] = 0;
}

void moe_forward(const moe_call *c, const real *x, real *y) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K = m->top_k, FE = m->d_expert;
    pieces s = cut(c);
    lin(c, c->n, x, &c->y->router, t->p);
    for (size_t i = 0; i < c->n; i++) route_row(m, t->p + i * m->n_experts, t->chosen + i * K, t->share + i * K);
    sort_assignments(m, t, c->n);
    memset(y, 0, c->n * C * sizeof(real));
    for (size_t e = 0; e < m->n_experts; e++) {
        const expert *w = &c->y->experts[e];
        size_t a0 = t->first[e], n = t->first[e + 1] - a0;
        if (!n) continue;
        rowwise_gather(1, c->n, n, t->row + a0, C, x, s.x);
        if (m->gated) lin(c, n, s.x, &w->gate, t->slope + a0 * FE);
        lin(c, n, s.x, &w->up, t->lift + a0 * FE);
        rowwise_mlp_forward(c->rt, m->act, n, FE, m->gated ? t->slope + a0 * FE : NULL, t->lift + a0 * FE, s.up);
        lin(c, n, s.up, &w->down, t->y + a0 * C);
        for (size_t a = a0; a < a0 + n; a++) {
            real share = t->share[t->row[a] * K + t->slot[a]];
            for (size_t i = 0; i < C; i++) y[t->row[a] * C + i] += share * t->y[a * C + i];
        }
    }
}

/* ---- derivatives ---- */

/* Expert e's assignments whose row of the tape is one of the call's rows. Writes the assignments to a[], the indices of
 * their rows in the call to at[], both ascending, and returns their number. */
static size_t assignments(const moe_call *c, size_t e, size_t *a, size_t *at) {
    const moe_tape *t = c->t;
    size_t n = 0, i = 0;
    for (size_t k = t->first[e]; k < t->first[e + 1]; k++) {
        while (i < c->n && c->map[i] < t->row[k]) i++;
        if (i == c->n) break;
        if (c->map[i] != t->row[k]) continue;
        a[n] = k;
        at[n++] = i;
    }
    return n;
}

/*  p = softmax(r)
 *  norm_topk:  w_e = p_e / sum over S of p    dw_e = w_e (dr_e - sum over S of w dr)
 *  else:       w_e = p_e                      dw_e = p_e (dr_e - sum over all of p dr) */
static void shares_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw) {
    real mean = 0;
    if (m->norm_topk)
        for (size_t k = 0; k < m->top_k; k++) mean += share[k] * dr[chosen[k]];
    else mean = reduce_dot(m->n_experts, p, dr);
    for (size_t k = 0; k < m->top_k; k++) dw[k] = share[k] * (dr[chosen[k]] - mean);
}

static void shares_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr) {
    real total = 0;
    for (size_t k = 0; k < m->top_k; k++) total += share[k] * gw[k];
    for (size_t e = 0; e < m->n_experts; e++) gr[e] = m->norm_topk ? 0 : -p[e] * total;
    for (size_t k = 0; k < m->top_k; k++) gr[chosen[k]] += share[k] * (m->norm_topk ? gw[k] - total : gw[k]);
}

/*  y = sum of w_e f_e(x)
 * dy = sum of w_e df_e(x) + dw_e f_e(x) */
void moe_jvp(const moe_call *c, const real *dx, real *dy) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K = m->top_k, FE = m->d_expert, E = m->n_experts;
    pieces s = cut(c);
    lin(c, c->n_t * c->n, dx, &c->y->router, s.r);
    for (size_t i = 0; i < c->n_t * c->n; i++) {
        size_t row = c->map[i % c->n];
        shares_jvp(m, t->p + row * E, t->chosen + row * K, t->share + row * K, s.r + i * E, s.dshare + i * K);
    }
    memset(dy, 0, c->n_t * c->n * C * sizeof(real));
    for (size_t e = 0; e < E; e++) {
        const expert *w = &c->y->experts[e];
        size_t *a = c->index, *at = a + c->n;
        size_t n = assignments(c, e, a, at);
        if (!n) continue;
        rowwise_gather(c->n_t, c->n, n, at, C, dx, s.x);
        if (m->gated) lin(c, c->n_t * n, s.x, &w->gate, s.gate);
        lin(c, c->n_t * n, s.x, &w->up, s.up);
        rowwise_mlp_jvp(c->rt, c->n_t, n, a, FE, m->gated ? t->slope : NULL, t->lift, s.gate, s.up);
        lin(c, c->n_t * n, s.up, &w->down, s.out);
        for (size_t i = 0; i < c->n_t * n; i++) {
            size_t to = i / n * c->n + at[i % n], k = a[i % n];
            real share = t->share[t->row[k] * K + t->slot[k]], dshare = s.dshare[to * K + t->slot[k]];
            for (size_t j = 0; j < C; j++) dy[to * C + j] += share * s.out[i * C + j] + dshare * t->y[k * C + j];
        }
    }
}

void moe_vjp(const moe_call *c, const real *gy, real *gx) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K = m->top_k, FE = m->d_expert, E = m->n_experts;
    pieces s = cut(c);
    memset(gx, 0, c->n_t * c->n * C * sizeof(real));
    for (size_t e = 0; e < E; e++) {
        const expert *w = &c->y->experts[e];
        size_t *a = c->index, *at = a + c->n;
        size_t n = assignments(c, e, a, at);
        if (!n) continue;
        for (size_t i = 0; i < c->n_t * n; i++) {
            size_t from = i / n * c->n + at[i % n], k = a[i % n];
            real share = t->share[t->row[k] * K + t->slot[k]];
            s.dshare[from * K + t->slot[k]] = reduce_dot(C, gy + from * C, t->y + k * C);
            for (size_t j = 0; j < C; j++) s.out[i * C + j] = share * gy[from * C + j];
        }
        lin_t(c, c->n_t * n, s.out, &w->down, 0, s.up);
        rowwise_mlp_vjp(c->rt, c->n_t, n, a, FE, m->gated ? t->slope : NULL, t->lift, s.gate, s.up);
        lin_t(c, c->n_t * n, s.up, &w->up, 0, s.x);
        if (m->gated) lin_t(c, c->n_t * n, s.gate, &w->gate, 1, s.x);
        rowwise_scatter_add(c->n_t, c->n, n, at, C, s.x, gx);
    }
    for (size_t i = 0; i < c->n_t * c->n; i++) {
        size_t row = c->map[i % c->n];
        shares_vjp(m, t->p + row * E, t->chosen + row * K, t->share + row * K, s.dshare + i * K, s.r + i * E);
    }
    lin_t(c, c->n_t * c->n, s.r, &c->y->router, 1, gx);
}
