#include "ops/moe.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/route.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

/* Choices of a row, and experts, with the shared one */
static size_t slots(const spec *m) { return m->top_k + (m->d_shared > 0); }
static size_t n_parts(const spec *m) { return m->n_experts + (m->d_shared > 0); }

static ps_code make_or_count(moe_tape *t, const spec *m, size_t n, size_t *bytes, ps_status *st) {
    size_t A, A1;
    *t = (moe_tape){0};
    if (size_mul(n, m->top_k, &A, st) || size_mul(n, slots(m), &A1, st)) return st->code;
    arena_slice table[] = {
        SLICE(t->p, n, route_width(m)), SLICE(t->chosen, A1), SLICE(t->first, m->n_experts + 2), SLICE(t->row, A1), SLICE(t->slot, A1),
        SLICE(t->share, A1), SLICE(t->slope, m->gated ? A : 0, m->d_expert), SLICE(t->lift, A, m->d_expert),
        SLICE(t->shared_slope, m->gated ? n : 0, m->d_shared), SLICE(t->shared_lift, n, m->d_shared),
        SLICE(t->y, A1, m->d_model), SLICE(t->x, m->scale_input ? n : 0, m->d_model)};
    return arena_make_or_count(&t->memory, table, COUNT(table), bytes, st);
}

ps_code moe_tape_make(moe_tape *t, const spec *m, size_t n, ps_status *st) { return make_or_count(t, m, n, NULL, st); }

ps_code moe_tape_count(const spec *m, size_t n, size_t *bytes, ps_status *st) {
    return make_or_count(&(moe_tape){0}, m, n, bytes, st);
}

void moe_tape_free(moe_tape *t) { arena_free(&t->memory); }

/* The parts of the scratch: buffers for the rows of one expert at a time, and the routers' outputs for all rows */
typedef struct {
    real *x;          /* (n_t * n, C) input */
    real *gate, *up;  /* (n_t * n, FE), (n_t * n, d_shared) of the shared expert */
    real *out;        /* (n_t * n, C) */
    real *r, *dshare; /* (n_t * n, E), (n_t * n, K1) */
    real *v;          /* (n_t * n) of the shared expert's gate */
} pieces;

static size_t widest(const spec *m) { return m->d_shared > m->d_expert ? m->d_shared : m->d_expert; }

size_t moe_scratch(const spec *m, size_t n_t, size_t n) {
    return m->n_experts ? n_t * n * (2 * m->d_model + 2 * widest(m) + m->n_experts + slots(m) + 1) : 0;
}

static pieces cut(const moe_call *c) {
    size_t rows = c->n_t * c->n, F = widest(c->m);
    pieces s = {.x = c->scratch};
    s.gate = s.x + rows * c->m->d_model;
    s.up = s.gate + rows * F;
    s.out = s.up + rows * F;
    s.r = s.out + rows * c->m->d_model;
    s.dshare = s.r + rows * c->m->n_experts;
    s.v = s.dshare + rows * slots(c->m);
    return s;
}

/* One expert, or with e = E the shared one: its weights and width, and the part of the tape that begins with assignment base */
typedef struct {
    const expert *w;
    size_t F, base;
    real *slope, *lift;
    int scale_input;
} one_expert;

static one_expert expert_of(const moe_call *c, size_t e) {
    const moe_tape *t = c->t;
    const spec *m = c->m;
    if (e < m->n_experts)
        return (one_expert){&c->y->experts[e], m->d_expert, 0, m->gated ? t->slope : NULL, t->lift, m->scale_input};
    return (one_expert){&c->y->shared, m->d_shared, t->first[e], m->gated ? t->shared_slope : NULL, t->shared_lift, 0};
}

static void lin(const moe_call *c, size_t rows, const real *X, const weight *W, const real *bias, real *Y) {
    linear(c->rt, rows, X, W->n_in, W, bias, Y, W->n_out, c->panel, c->panel_stride);
}
static void lin_t(const moe_call *c, size_t rows, const real *Y, const weight *W, real beta, real *X) {
    linear_t(c->rt, rows, Y, W->n_out, W, beta, X, W->n_in, c->panel, c->panel_stride);
}

/* ---- routing ---- */

/* Sorts the assignments by expert, counting. */
static void sort_assignments(const spec *m, const moe_tape *t, size_t n) {
    size_t E = n_parts(m), K1 = slots(m), A1 = n * K1;
    memset(t->first, 0, (E + 1) * sizeof *t->first);
    for (size_t a = 0; a < A1; a++) t->first[t->chosen[a] + 1]++;
    for (size_t e = 0; e < E; e++) t->first[e + 1] += t->first[e];
    for (size_t a = 0; a < A1; a++) {
        size_t to = t->first[t->chosen[a]]++;
        t->row[to] = a / K1;
        t->slot[to] = a % K1;
    }
    for (size_t e = E; e; e--) t->first[e] = t->first[e - 1]; /* each has moved to its end */
    t->first[0] = 0;
}

static void route_rows(const moe_call *c, const pieces *s, const real *x) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t K1 = slots(m), K = m->top_k;
    lin(c, c->n, x, &c->y->router, c->y->router_bias, s->r);
    if (c->y->shared_gate.data) lin(c, c->n, x, &c->y->shared_gate, NULL, s->v);
    for (size_t i = 0; i < c->n; i++) {
        route_forward(m, c->y->correction, s->r + i * m->n_experts, t->p + i * route_width(m), t->chosen + i * K1, t->share + i * K1);
        if (K1 == K) continue;
        t->chosen[i * K1 + K] = m->n_experts;
        t->share[i * K1 + K] = c->y->shared_gate.data ? 1 / (1 + FN(exp)(-s->v[i])) : 1;
    }
    sort_assignments(m, t, c->n);
}

void moe_forward(const moe_call *c, const real *x, real *y) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K1 = slots(m);
    pieces s = cut(c);
    route_rows(c, &s, x);
    if (m->scale_input) memcpy(t->x, x, c->n * C * sizeof(real));
    memset(y, 0, c->n * C * sizeof(real));
    for (size_t e = 0; e < n_parts(m); e++) {
        one_expert o = expert_of(c, e);
        size_t a0 = t->first[e], n = t->first[e + 1] - a0;
        if (!n) continue;
        real *slope = o.slope ? o.slope + (a0 - o.base) * o.F : NULL, *lift = o.lift + (a0 - o.base) * o.F;
        rowwise_gather(1, c->n, n, t->row + a0, C, x, s.x);
        for (size_t a = a0; o.scale_input && a < a0 + n; a++)
            for (size_t i = 0; i < C; i++) s.x[(a - a0) * C + i] *= t->share[t->row[a] * K1 + t->slot[a]];
        if (slope) lin(c, n, s.x, &o.w->gate, o.w->gate_bias, slope);
        lin(c, n, s.x, &o.w->up, o.w->up_bias, lift);
        rowwise_mlp_forward(c->rt, &c->y->act, n, o.F, slope, lift, s.up);
        lin(c, n, s.up, &o.w->down, o.w->down_bias, t->y + a0 * C);
        for (size_t a = a0; a < a0 + n; a++) {
            real share = o.scale_input ? 1 : t->share[t->row[a] * K1 + t->slot[a]];
            for (size_t i = 0; i < C; i++) y[t->row[a] * C + i] += share * t->y[a * C + i];
        }
    }
}

/* ---- derivatives ---- */

/* Expert e's assignments whose row of the tape is one of the call's rows. Writes the assignments, counted from base, to a[], the
 * indices of their rows in the call to at[], both ascending, and returns their number. */
static size_t assignments(const moe_call *c, size_t e, size_t base, size_t *a, size_t *at) {
    const moe_tape *t = c->t;
    size_t n = 0, i = 0;
    for (size_t k = t->first[e]; k < t->first[e + 1]; k++) {
        while (i < c->n && c->map[i] < t->row[k]) i++;
        if (i == c->n) break;
        if (c->map[i] != t->row[k]) continue;
        a[n] = k - base;
        at[n++] = i;
    }
    return n;
}

/* dw and dv of all rows, in s->dshare */
static void shares_jvp(const moe_call *c, const pieces *s, const real *dx) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t rows = c->n_t * c->n, K1 = slots(m), K = m->top_k, P = route_width(m);
    lin(c, rows, dx, &c->y->router, NULL, s->r);
    if (c->y->shared_gate.data) lin(c, rows, dx, &c->y->shared_gate, NULL, s->v);
    for (size_t i = 0; i < rows; i++) {
        size_t row = c->map[i % c->n];
        const real *share = t->share + row * K1;
        route_jvp(m, t->p + row * P, t->chosen + row * K1, share, s->r + i * m->n_experts, s->dshare + i * K1);
        if (K1 > K) s->dshare[i * K1 + K] = c->y->shared_gate.data ? share[K] * (1 - share[K]) * s->v[i] : 0;
    }
}

/* The transpose: gx += */
static void shares_vjp(const moe_call *c, const pieces *s, real *gx) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t rows = c->n_t * c->n, K1 = slots(m), K = m->top_k, P = route_width(m);
    for (size_t i = 0; i < rows; i++) {
        size_t row = c->map[i % c->n];
        const real *share = t->share + row * K1;
        route_vjp(m, t->p + row * P, t->chosen + row * K1, share, s->dshare + i * K1, s->r + i * m->n_experts);
        if (K1 > K) s->v[i] = share[K] * (1 - share[K]) * s->dshare[i * K1 + K];
    }
    lin_t(c, rows, s->r, &c->y->router, 1, gx);
    if (c->y->shared_gate.data) lin_t(c, rows, s->v, &c->y->shared_gate, 1, gx);
}

/*  y = sum of w_e f_e(x)
 * dy = sum of w_e df_e(x) + dw_e f_e(x),  with scale_input df_e(w_e x + dw_e x) */
void moe_jvp(const moe_call *c, const real *dx, real *dy) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K1 = slots(m);
    pieces s = cut(c);
    shares_jvp(c, &s, dx);
    memset(dy, 0, c->n_t * c->n * C * sizeof(real));
    for (size_t e = 0; e < n_parts(m); e++) {
        one_expert o = expert_of(c, e);
        size_t *a = c->index, *at = a + c->n;
        size_t n = assignments(c, e, o.base, a, at);
        if (!n) continue;
        rowwise_gather(c->n_t, c->n, n, at, C, dx, s.x);
        for (size_t i = 0; o.scale_input && i < c->n_t * n; i++) {
            size_t at_row = i / n * c->n + at[i % n], k = a[i % n];
            real share = t->share[t->row[k] * K1 + t->slot[k]], dshare = s.dshare[at_row * K1 + t->slot[k]];
            for (size_t j = 0; j < C; j++) s.x[i * C + j] = share * s.x[i * C + j] + dshare * t->x[t->row[k] * C + j];
        }
        if (o.slope) lin(c, c->n_t * n, s.x, &o.w->gate, NULL, s.gate);
        lin(c, c->n_t * n, s.x, &o.w->up, NULL, s.up);
        rowwise_mlp_jvp(c->rt, c->n_t, n, a, o.F, o.slope, o.lift, s.gate, s.up);
        lin(c, c->n_t * n, s.up, &o.w->down, NULL, s.out);
        for (size_t i = 0; i < c->n_t * n; i++) {
            size_t to = i / n * c->n + at[i % n], k = o.base + a[i % n];
            real share = o.scale_input ? 1 : t->share[t->row[k] * K1 + t->slot[k]];
            real dshare = o.scale_input ? 0 : s.dshare[to * K1 + t->slot[k]];
            for (size_t j = 0; j < C; j++) dy[to * C + j] += share * s.out[i * C + j] + dshare * t->y[k * C + j];
        }
    }
}

void moe_vjp(const moe_call *c, const real *gy, real *gx) {
    const spec *m = c->m;
    const moe_tape *t = c->t;
    size_t C = m->d_model, K1 = slots(m);
    pieces s = cut(c);
    memset(gx, 0, c->n_t * c->n * C * sizeof(real));
    for (size_t e = 0; e < n_parts(m); e++) {
        one_expert o = expert_of(c, e);
        size_t *a = c->index, *at = a + c->n;
        size_t n = assignments(c, e, o.base, a, at);
        if (!n) continue;
        for (size_t i = 0; i < c->n_t * n; i++) {
            size_t from = i / n * c->n + at[i % n], k = o.base + a[i % n];
            real share = o.scale_input ? 1 : t->share[t->row[k] * K1 + t->slot[k]];
            s.dshare[from * K1 + t->slot[k]] = reduce_dot(C, gy + from * C, t->y + k * C);
            for (size_t j = 0; j < C; j++) s.out[i * C + j] = share * gy[from * C + j];
        }
        lin_t(c, c->n_t * n, s.out, &o.w->down, 0, s.up);
        rowwise_mlp_vjp(c->rt, c->n_t, n, a, o.F, o.slope, o.lift, s.gate, s.up);
        lin_t(c, c->n_t * n, s.up, &o.w->up, 0, s.x);
        if (o.slope) lin_t(c, c->n_t * n, s.gate, &o.w->gate, 1, s.x);
        for (size_t i = 0; o.scale_input && i < c->n_t * n; i++) { /* of w_e x, from here of w_e and of x */
            size_t to = i / n * c->n + at[i % n], k = a[i % n];
            real share = t->share[t->row[k] * K1 + t->slot[k]];
            s.dshare[to * K1 + t->slot[k]] = reduce_dot(C, s.x + i * C, t->x + t->row[k] * C);
            for (size_t j = 0; j < C; j++) s.x[i * C + j] *= share;
        }
        rowwise_scatter_add(c->n_t, c->n, n, at, C, s.x, gx);
    }
    shares_vjp(c, &s, gx);
}
