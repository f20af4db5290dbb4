#include "ops/route.h"
#include <string.h>
#include "base/reduce.h"

static const real TINY = (real)1e-20; /* transformers adds it to the sum of sigmoids */

size_t route_width(const spec *m) { return m->n_experts * (m->route == ROUTE_SPARSEMIXER ? m->top_k : 1); }

static int is_among(const size_t *chosen, size_t n, size_t e) {
    for (size_t i = 0; i < n; i++)
        if (chosen[i] == e) return 1;
    return 0;
}

/* The index of the largest x that is not among chosen */
static size_t largest(size_t n, const real *x, const size_t *chosen, size_t k) {
    size_t best = n;
    for (size_t e = 0; e < n; e++)
        if (!is_among(chosen, k, e) && (best == n || x[e] > x[best])) best = e;
    return best;
}

static void softmax(size_t n, const real *r, real *p) {
    real top = reduce_max(n, r);
    for (size_t e = 0; e < n; e++) p[e] = FN(exp)(r[e] - top);
    real total = reduce_sum(n, p);
    for (size_t e = 0; e < n; e++) p[e] /= total;
}

/* Sets x to -infinity outside of the top_groups groups whose two largest sum highest. */
static void keep_groups(const spec *m, real *x) {
    size_t size = m->n_experts / m->n_groups;
    for (size_t left = m->n_groups; left > m->top_groups; left--) {
        size_t worst = m->n_groups;
        real least = 0;
        for (size_t g = m->n_groups; g-- > 0;) { /* of equals the last goes */
            const real *y = x + g * size;
            size_t first = largest(size, y, NULL, 0);
            real score = y[first] + (size > 1 ? y[largest(size, y, &first, 1)] : 0);
            if (y[0] != -INFINITY && (worst == m->n_groups || score < least)) worst = g, least = score;
        }
        for (size_t e = worst * size; e < (worst + 1) * size; e++) x[e] = -INFINITY;
    }
}

static void sparsemixer(const spec *m, const real *r, real *p, size_t *chosen, real *share) {
    size_t E = m->n_experts;
    for (size_t k = 0; k < m->top_k; k++, p += E) {
        size_t best = largest(E, r, chosen, k);
        real total = 0;
        for (size_t e = 0; e < E; e++) {
            real size = FN(fabs)(r[e]) > r[best] ? FN(fabs)(r[e]) : r[best];
            int far = is_among(chosen, k, e) || (r[best] - r[e]) / size > 2 * (real)m->route_jitter;
            p[e] = far ? 0 : FN(exp)(r[e] - r[best]);
            total += p[e];
        }
        for (size_t e = 0; e < E; e++) p[e] /= total;
        chosen[k] = best;
        share[k] = p[best];
    }
}

void route_forward(const spec *m, const real *correction, real *r, real *p, size_t *chosen, real *share) {
    size_t E = m->n_experts, K = m->top_k;
    real kept = m->route == ROUTE_SIGMOID ? TINY : 0;
    if (m->route == ROUTE_SPARSEMIXER) {
        sparsemixer(m, r, p, chosen, share);
        return;
    }
    if (m->route == ROUTE_SOFTMAX) softmax(E, r, p);
    else
        for (size_t e = 0; e < E; e++) p[e] = 1 / (1 + FN(exp)(-r[e]));
    const real *by = m->route == ROUTE_SOFTMAX ? p : r; /* sigmoids of large r are equal after rounding, and r are not */
    if (correction) {
        for (size_t e = 0; e < E; e++) r[e] = p[e] + correction[e];
        keep_groups(m, r);
        by = r;
    }
    for (size_t k = 0; k < K; k++) {
        chosen[k] = largest(E, by, chosen, k);
        kept += p[chosen[k]];
    }
    for (size_t k = 0; k < K; k++) share[k] = p[chosen[k]] / (m->norm_topk ? kept : 1) * (real)m->route_scale;
}

/* ---- derivatives ---- */

/*  p = softmax(r)
 *  norm_topk:  w_e = c p_e / sum over S of p    dw_e = w_e (dr_e - sum over S of w dr / c)
 *  else:       w_e = c p_e                      dw_e = w_e (dr_e - sum over all of p dr) */
static void softmax_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw) {
    real mean = 0;
    if (m->norm_topk) {
        for (size_t k = 0; k < m->top_k; k++) mean += share[k] * dr[chosen[k]];
        mean /= (real)m->route_scale;
    } else mean = reduce_dot(m->n_experts, p, dr);
    for (size_t k = 0; k < m->top_k; k++) dw[k] = share[k] * (dr[chosen[k]] - mean);
}

static void softmax_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr) {
    real total = 0;
    for (size_t k = 0; k < m->top_k; k++) total += share[k] * gw[k];
    for (size_t e = 0; e < m->n_experts; e++) gr[e] = m->norm_topk ? 0 : -p[e] * total;
    for (size_t k = 0; k < m->top_k; k++)
        gr[chosen[k]] += share[k] * (m->norm_topk ? gw[k] - total / (real)m->route_scale : gw[k]);
}

/* The sum over S of p, by which norm_topk divides; 1 without */
static real divisor(const spec *m, const real *p, const size_t *chosen) {
    real total = TINY;
    for (size_t k = 0; k < m->top_k; k++) total += p[chosen[k]];
    return m->norm_topk ? total : 1;
}

/*  p = 1 / (1 + exp(-r))          dp = p (1 - p) dr
 *  w_e = c p_e / T                dw_e = (c dp_e - w_e sum over S of dp) / T,  without norm_topk c dp_e */
static void sigmoid_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw) {
    real T = divisor(m, p, chosen), sum = 0;
    for (size_t k = 0; k < m->top_k; k++) {
        size_t e = chosen[k];
        dw[k] = p[e] * (1 - p[e]) * dr[e];
        sum += m->norm_topk ? dw[k] : 0;
    }
    for (size_t k = 0; k < m->top_k; k++) dw[k] = ((real)m->route_scale * dw[k] - share[k] * sum) / T;
}

static void sigmoid_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr) {
    real T = divisor(m, p, chosen), total = 0;
    for (size_t k = 0; k < m->top_k && m->norm_topk; k++) total += share[k] * gw[k];
    memset(gr, 0, m->n_experts * sizeof(real));
    for (size_t k = 0; k < m->top_k; k++) {
        size_t e = chosen[k];
        gr[e] = p[e] * (1 - p[e]) * ((real)m->route_scale * gw[k] - total) / T;
    }
}

/* w_k = p_k,e,  p_k = softmax over a fixed set:  dw_k = w_k (dr_e - sum of p_k dr) */
static void sparsemixer_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw) {
    for (size_t k = 0; k < m->top_k; k++)
        dw[k] = share[k] * (dr[chosen[k]] - reduce_dot(m->n_experts, p + k * m->n_experts, dr));
}

static void sparsemixer_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr) {
    memset(gr, 0, m->n_experts * sizeof(real));
    for (size_t k = 0; k < m->top_k; k++, p += m->n_experts) {
        for (size_t e = 0; e < m->n_experts; e++) gr[e] -= share[k] * gw[k] * p[e];
        gr[chosen[k]] += share[k] * gw[k];
    }
}

typedef void derivative(const spec *, const real *, const size_t *, const real *, const real *, real *);
static derivative *const jvps[] = {[ROUTE_SOFTMAX] = softmax_jvp, [ROUTE_SIGMOID] = sigmoid_jvp, [ROUTE_SPARSEMIXER] = sparsemixer_jvp};
static derivative *const vjps[] = {[ROUTE_SOFTMAX] = softmax_vjp, [ROUTE_SIGMOID] = sigmoid_vjp, [ROUTE_SPARSEMIXER] = sparsemixer_vjp};

void route_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw) {
    jvps[m->route](m, p, chosen, share, dr, dw);
}

void route_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr) {
    vjps[m->route](m, p, chosen, share, gw, gr);
}
