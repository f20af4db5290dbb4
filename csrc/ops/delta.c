#include "ops/delta.h"
#include "base/reduce.h"
#include "kernels/gemv.h"

enum {
    GROUP = 8,     /* tangents of a task, for which the states are computed once */
    VJP_TASKS = 16 /* of a group and a sequence, if there are so many value heads */
};

/* ---- operations on a state, for each instruction set ---- */

typedef struct {
    void (*outer)(size_t m, size_t n, real a, const real *x, const real *y, real *S);              /* S (m,n) = a S + x y' */
    void (*blend)(size_t n, real a, real b, const real *y, real *x);                               /* x = a x + b y */
    void (*along)(size_t m, size_t n, real a, const real *S, const real *y, real *x);              /* x += a S y */
} kernels;

#define KERNELS(NAME, TARGET)                                                                                      \
    TARGET static void NAME##_outer(size_t m, size_t n, real a, const real *x, const real *y, real *S) {           \
        for (size_t i = 0; i < m; i++)                                                                             \
            for (size_t j = 0; j < n; j++) S[i * n + j] = a * S[i * n + j] + x[i] * y[j];                          \
    }                                                                                                              \
    TARGET static void NAME##_blend(size_t n, real a, real b, const real *y, real *x) {                            \
        for (size_t i = 0; i < n; i++) x[i] = a * x[i] + b * y[i];                                                 \
    }                                                                                                              \
    TARGET static void NAME##_along(size_t m, size_t n, real a, const real *S, const real *y, real *x) {           \
        for (size_t i = 0; i < m; i++) x[i] += a * reduce_dot(n, S + i * n, y);                                    \
    }                                                                                                              \
    static const kernels NAME = {NAME##_outer, NAME##_blend, NAME##_along};

KERNELS_BY_ISA

/* ---- one row of one head ---- */

typedef struct {
    const runtime *rt;
    const delta *d;
    const scan *s;
    size_t n_t, groups;
    const real *dq, *dk, *dv, *da, *db, *go;
    real *o, *gq, *gk, *gv, *ga, *gb;
} call;

static size_t rows_of(const call *c) { return c->s->row0[c->s->n_seq]; }

/* Where a row's numbers of value head h are: of its key head, of itself, and its two scalars */
typedef struct {
    size_t k, v, one;
} place;

static place place_of(const delta *d, size_t row, size_t h) {
    size_t kv = d->tiled ? h % d->k_heads : h / (d->v_heads / d->k_heads);
    return (place){(row * d->k_heads + kv) * d->k_dim, (row * d->v_heads + h) * d->v_dim, row * d->v_heads + h};
}

static size_t head_of(const delta *d, place at) { return at.one % d->v_heads; }

/* o (HV) += skip v, and the same of tangents and cotangents */
static void add_skipped(const delta *d, place at, const real *v, real *o) {
    real skip = d->skip ? d->skip[head_of(d, at)] : 0;
    for (size_t j = 0; d->skip && j < d->v_dim; j++) o[j] += skip * v[j];
}

/* x (HV) = S'k, which a correction takes away; uncorrected 0 */
static void against(const call *c, const real *k, const real *S, real *x) {
    if (c->d->uncorrected) memset(x, 0, c->d->v_dim * sizeof(real));
    else gemv_t(c->rt->isa, c->d->k_dim, c->d->v_dim, k, S, c->d->v_dim, x);
}

/* rest (HV) = v - a S'k, of the state before the row;  e (HV) = b rest */
static void correction(const call *c, place at, const real *S, real *rest, real *e) {
    const delta *d = c->d;
    against(c, d->k + at.k, S, rest);
    for (size_t j = 0; j < d->v_dim; j++) {
        rest[j] = d->v[at.v + j] - d->decay[at.one] * rest[j];
        e[j] = d->strength[at.one] * rest[j];
    }
}

/* S: from the state before the row to that behind it. rest, e (HV): scratch */
static void advance(const call *c, place at, real *S, real *rest, real *e) {
    const delta *d = c->d;
    correction(c, at, S, rest, e);
    kernels_of(c->rt->isa)->outer(d->k_dim, d->v_dim, d->decay[at.one], d->k + at.k, e, S);
}

/* The least L with L^2 >= T */
static size_t root(size_t T) {
    size_t L = 0;
    while (L * L < T) L++;
    return L;
}

size_t delta_scratch(size_t k_dim, size_t v_dim, size_t T) {
    size_t states = T ? 2 * root(T) + 1 + GROUP : 1; /* see vjp_task; jvp_task has GROUP + 1 */
    return states * k_dim * v_dim + 4 * v_dim;
}

/* ---- forward ---- */

/* Task: a value head, through all sequences */
static void forward_task(void *ctx, size_t h, int worker) {
    const call *c = ctx;
    const delta *d = c->d;
    size_t size = d->k_dim * d->v_dim, at = d->state + h * size;
    real *own = d->scratch + (size_t)worker * d->scratch_stride, *rest = own + size, *e = rest + d->v_dim;
    for (size_t i = 0; i < c->s->n_seq; i++) {
        real *S = scan_begin(c->s, i, at, size, own);
        for (size_t r = c->s->row0[i]; r < c->s->row0[i + 1]; r++) {
            place p = place_of(d, r, h);
            advance(c, p, S, rest, e);
            gemv_t(c->rt->isa, d->k_dim, d->v_dim, d->q + p.k, S, d->v_dim, c->o + p.v);
            add_skipped(d, p, d->v + p.v, c->o + p.v);
            scan_passed(c->s, r, at, size, S);
        }
    }
}

/* Multiply-adds of this many passes over the states of all rows */
static double operations(const call *c, double passes) {
    const delta *d = c->d;
    return passes * (double)rows_of(c) * (double)d->v_heads * (double)d->k_dim * (double)d->v_dim;
}

void delta_forward(const runtime *rt, const delta *d, const scan *s, real *o) {
    call c = {.rt = rt, .d = d, .s = s, .o = o};
    runtime_run(rt, d->v_heads, operations(&c, 3), forward_task, &c);
}

/* ---- jvp ---- */

/* Row r of tangent t, dS being its tangent of the state: in two steps, between which the state advances. S: before the row */
static void jvp_before(const call *c, size_t t, place at, const real *S, const real *rest, real *dS, real *de) {
    const delta *d = c->d;
    size_t n = rows_of(c), HK = d->k_dim, HV = d->v_dim;
    const real *dk = c->dk + t * n * d->k_heads * HK + at.k, *dv = c->dv + t * n * d->v_heads * HV + at.v;
    real a = d->decay[at.one], b = d->strength[at.one], db = c->db[t * n * d->v_heads + at.one];
    real *moved = de + HV;
    /*  M = a S
     * dM = a dS + da S */
    kernels_of(c->rt->isa)->blend(HK * HV, a, c->da[t * n * d->v_heads + at.one], S, dS);
    /*  e = b (v - M'k)
     * de = db (v - M'k) + b (dv - dM'k - M'dk) */
    against(c, d->k + at.k, dS, de);
    against(c, dk, S, moved);
    for (size_t j = 0; j < HV; j++) de[j] = db * rest[j] + b * (dv[j] - de[j] - a * moved[j]);
    /*  S <- M + k e'
     * dS <- dM + k de' + dk e',  the last of which is left to jvp_behind */
    kernels_of(c->rt->isa)->outer(HK, HV, 1, d->k + at.k, de, dS);
}

static void jvp_behind(const call *c, size_t t, place at, const real *S, const real *e, real *dS, real *more) {
    const delta *d = c->d;
    size_t n = rows_of(c), HK = d->k_dim, HV = d->v_dim;
    real *out = c->o + t * n * d->v_heads * HV + at.v;
    kernels_of(c->rt->isa)->outer(HK, HV, 1, c->dk + t * n * d->k_heads * HK + at.k, e, dS);
    /*  o = S'q + skip v
     * do = dS'q + S'dq + skip dv */
    gemv_t(c->rt->isa, HK, HV, d->q + at.k, dS, HV, out);
    gemv_t(c->rt->isa, HK, HV, c->dq + t * n * d->k_heads * HK + at.k, S, HV, more);
    for (size_t j = 0; j < HV; j++) out[j] += more[j];
    add_skipped(d, at, c->dv + t * n * d->v_heads * HV + at.v, out);
}

/* Task: (group of tangents, sequence, value head) */
static void jvp_task(void *ctx, size_t task, int worker) {
    const call *c = ctx;
    const delta *d = c->d;
    size_t h = task % d->v_heads, i = task / d->v_heads % c->s->n_seq, t0 = task / d->v_heads / c->s->n_seq * GROUP;
    size_t n = c->n_t - t0 < GROUP ? c->n_t - t0 : GROUP, size = d->k_dim * d->v_dim;
    real *S = d->scratch + (size_t)worker * d->scratch_stride, *dS = S + size;
    real *rest = dS + GROUP * size, *e = rest + d->v_dim, *work = e + d->v_dim;
    memset(S, 0, (1 + n) * size * sizeof(real));
    for (size_t r = c->s->row0[i]; r < c->s->row0[i + 1]; r++) {
        place p = place_of(d, r, h);
        correction(c, p, S, rest, e);
        for (size_t t = 0; t < n; t++) jvp_before(c, t0 + t, p, S, rest, dS + t * size, work);
        kernels_of(c->rt->isa)->outer(d->k_dim, d->v_dim, d->decay[p.one], d->k + p.k, e, S);
        for (size_t t = 0; t < n; t++) jvp_behind(c, t0 + t, p, S, e, dS + t * size, work);
    }
}

void delta_jvp(const runtime *rt, const delta *d, const scan *s, size_t n_t, const real *dq, const real *dk, const real *dv,
               const real *ddecay, const real *dstrength, real *do_) {
    call c = {.rt = rt, .d = d, .s = s, .n_t = n_t, .groups = (n_t + GROUP - 1) / GROUP, .dq = dq, .dk = dk, .dv = dv, .da = ddecay,
              .db = dstrength, .o = do_};
    runtime_run(rt, c.groups * s->n_seq * d->v_heads, operations(&c, 3.0 * (double)c.groups + 7.0 * (double)n_t), jvp_task, &c);
}

/* ---- vjp ---- */

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

size_t delta_parts(size_t k_heads, size_t v_heads) { return smaller((VJP_TASKS + k_heads - 1) / k_heads, v_heads / k_heads); }

/* The value heads of a key head that share a sum, all but the last such part */
static size_t part_heads(const delta *d) {
    size_t each = d->v_heads / d->k_heads, parts = delta_parts(d->k_heads, d->v_heads);
    return (each + parts - 1) / parts;
}

/* Where the tensor of gq and gk begins that value head h adds to */
static size_t part_at(const call *c, size_t h) {
    const delta *d = c->d;
    size_t of_group = d->tiled ? h / d->k_heads : h % (d->v_heads / d->k_heads);
    return of_group / part_heads(d) * c->n_t * rows_of(c) * d->k_heads * d->k_dim;
}

/* Row at `at` of tangent t. S, behind: the states before and behind the row. G: from the cotangent of the state behind the row to
 * that of the state before it */
static void vjp_row(const call *c, size_t t, place at, const real *S, const real *behind, const real *rest, const real *e, real *G,
                    real *gm) {
    const delta *d = c->d;
    const kernels *on = kernels_of(c->rt->isa);
    size_t n = rows_of(c), HK = d->k_dim, HV = d->v_dim, keys = part_at(c, head_of(d, at)) + t * n * d->k_heads * HK + at.k;
    const real *go = c->go + t * n * d->v_heads * HV + at.v;
    real *gq = c->gq + keys, *gk = c->gk + keys;
    real *gv = c->gv + t * n * d->v_heads * HV + at.v;
    real a = d->decay[at.one], b = d->strength[at.one];
    /* o = S'q:  G += q go',  gq = S go */
    on->outer(HK, HV, 1, d->q + at.k, go, G);
    on->along(HK, HV, 1, behind, go, gq);
    /* S = M + k e':  ge = G'k,  gk = G e */
    gemv_t(c->rt->isa, HK, HV, d->k + at.k, G, HV, gv);
    on->along(HK, HV, 1, G, e, gk);
    /* e = b (v - M'k):  gb = ge.(v - M'k),  gv = b ge,  gk -= M gv,  G -= k gv' */
    c->gb[t * n * d->v_heads + at.one] = reduce_dot(HV, gv, rest);
    for (size_t j = 0; j < HV; j++) gm[j] = -(gv[j] *= b);
    if (!d->uncorrected) {
        on->along(HK, HV, a, S, gm, gk);
        on->outer(HK, HV, 1, d->k + at.k, gm, G);
    }
    add_skipped(d, at, go, gv);
    /* M = a S:  ga = sum of G o S,  G <- a G */
    c->ga[t * n * d->v_heads + at.one] = reduce_dot(HK * HV, G, S);
    for (size_t j = 0; j < HK * HV; j++) G[j] *= a;
}

/* One value head of a sequence for n tangents from t0 on. starts, part: states, see delta_scratch */
static void vjp_head(const call *c, size_t h, size_t i, size_t t0, size_t n, real *scratch) {
    const delta *d = c->d;
    size_t first = c->s->row0[i], T = c->s->row0[i + 1] - first, size = d->k_dim * d->v_dim, L = root(T);
    real *starts = scratch, *part = starts + L * size, *G = part + (L + 1) * size; /* starts: the states before rows 0, L, 2L, .. */
    real *rest = G + GROUP * size, *e = rest + d->v_dim, *work = e + d->v_dim;
    memset(part, 0, size * sizeof(real));
    for (size_t r = 0; r < T; r++) {
        if (r % L == 0) memcpy(starts + r / L * size, part, size * sizeof(real));
        advance(c, place_of(d, first + r, h), part, rest, e);
    }
    memset(G, 0, n * size * sizeof(real));
    for (size_t g = (T + L - 1) / L; g-- > 0;) {
        size_t from = g * L, rows = T - from < L ? T - from : L;
        memcpy(part, starts + g * size, size * sizeof(real));
        for (size_t r = 0; r < rows; r++) {
            memcpy(part + (r + 1) * size, part + r * size, size * sizeof(real));
            advance(c, place_of(d, first + from + r, h), part + (r + 1) * size, rest, e);
        }
        for (size_t r = rows; r-- > 0;) {
            place p = place_of(d, first + from + r, h);
            correction(c, p, part + r * size, rest, e);
            for (size_t t = 0; t < n; t++)
                vjp_row(c, t0 + t, p, part + r * size, part + (r + 1) * size, rest, e, G + t * size, work);
        }
    }
}

/* Task: (group of tangents, sequence, key head, part of its value heads): only this task writes its rows of gq and gk. Value heads
 * add to them one after the other, in the same order for any number of threads. */
static void vjp_task(void *ctx, size_t task, int worker) {
    const call *c = ctx;
    const delta *d = c->d;
    size_t parts = delta_parts(d->k_heads, d->v_heads), each = d->v_heads / d->k_heads, some = part_heads(d);
    size_t p = task % parts, kv = task / parts % d->k_heads, i = task / parts / d->k_heads % c->s->n_seq;
    size_t t0 = task / parts / d->k_heads / c->s->n_seq * GROUP, n = smaller(c->n_t - t0, GROUP);
    size_t first = smaller(p * some, each), last = smaller(first + some, each);
    for (size_t t = t0; t < t0 + n; t++)
        for (size_t r = c->s->row0[i]; r < c->s->row0[i + 1]; r++) {
            size_t at = (((p * c->n_t + t) * rows_of(c) + r) * d->k_heads + kv) * d->k_dim;
            memset(c->gq + at, 0, d->k_dim * sizeof(real));
            memset(c->gk + at, 0, d->k_dim * sizeof(real));
        }
    for (size_t j = first; j < last; j++)
        vjp_head(c, d->tiled ? kv + j * d->k_heads : kv * each + j, i, t0, n, d->scratch + (size_t)worker * d->scratch_stride);
}

/* The sum over the parts of one row of gq and gk */
static void sum_task(void *ctx, size_t row, int worker) {
    const call *c = ctx;
    size_t width = c->d->k_heads * c->d->k_dim, size = c->n_t * rows_of(c) * width, at = row * width;
    (void)worker;
    for (size_t p = 1; p < delta_parts(c->d->k_heads, c->d->v_heads); p++)
        for (size_t i = at; i < at + width; i++) {
            c->gq[i] += c->gq[p * size + i];
            c->gk[i] += c->gk[p * size + i];
        }
}

void delta_vjp(const runtime *rt, const delta *d, const scan *s, size_t n_t, const real *go, real *gq, real *gk, real *gv,
               real *gdecay, real *gstrength) {
    call c = {.rt = rt, .d = d, .s = s, .n_t = n_t, .groups = (n_t + GROUP - 1) / GROUP, .go = go, .gq = gq, .gk = gk, .gv = gv,
              .ga = gdecay, .gb = gstrength};
    size_t parts = delta_parts(d->k_heads, d->v_heads), rows = n_t * rows_of(&c);
    runtime_run(rt, c.groups * s->n_seq * d->k_heads * parts, operations(&c, 7.0 * (double)c.groups + 9.0 * (double)n_t), vjp_task, &c);
    if (parts > 1) runtime_run(rt, rows, 2.0 * (double)(rows * parts * d->k_heads * d->k_dim), sum_task, &c);
}

/* ---- gates ---- */

typedef struct {
    size_t H, n;
    const real *rate, *bias, *slope, *strength;
    real *x, *y, *slope_out;
} gates;

static void gates_row(void *ctx, size_t row, int worker) {
    const gates *g = ctx;
    (void)worker;
    for (size_t h = 0, i = row * g->H; h < g->H; h++, i++) {
        real x = g->x[i] + g->bias[h], s = 1 / (1 + FN(exp)(-x)); /* softplus'(x) */
        real sum = x > 20 ? x : FN(log1p)(FN(exp)(x));
        g->x[i] = FN(exp)(-g->rate[h] * sum);
        g->slope_out[i] = -g->rate[h] * (x > 20 ? 1 : s) * g->x[i];
        g->y[i] = 1 / (1 + FN(exp)(-g->y[i]));
    }
}

static void gates_derivative_row(void *ctx, size_t row, int worker) {
    const gates *g = ctx;
    size_t taped = row % g->n * g->H;
    (void)worker;
    for (size_t h = 0, i = row * g->H; h < g->H; h++, i++, taped++) {
        g->x[i] *= g->slope[taped];
        g->y[i] *= g->strength[taped] * (1 - g->strength[taped]);
    }
}

void delta_gates_forward(const runtime *rt, size_t n, size_t v_heads, const real *rate, const real *bias, real *x, real *slope,
                         real *y) {
    gates g = {.H = v_heads, .rate = rate, .bias = bias, .x = x, .y = y, .slope_out = slope};
    runtime_run(rt, n, 100.0 * (double)n * (double)v_heads, gates_row, &g);
}

void delta_gates_derivative(const runtime *rt, size_t n_t, size_t n, size_t v_heads, const real *slope, const real *strength,
                            real *x, real *y) {
    gates g = {.H = v_heads, .n = n, .slope = slope, .strength = strength, .x = x, .y = y};
    runtime_run(rt, n_t * n, 10.0 * (double)(n_t * n) * (double)v_heads, gates_derivative_row, &g);
}
