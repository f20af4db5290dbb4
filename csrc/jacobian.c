#include "jacobian.h"
#include <stdlib.h>
#include <string.h>
#include "linear.h"
#include "rows.h"
#include "vec.h"

enum { SWEEP_ROWS = 1024 };

/* ---- recording ---- */

static ps_code head_record(jacobian *j, const runtime *rt, real *x, ps_status *st) {
    size_t n = j->target.n, V = j->width, C = j->m->d_model;
    rows_gather(1, j->b.n_rows, n, j->target.row, C, x, x);
    if (head_forward(rt, j->m, n, x, &j->head, j->base, st)) return st->code;
    for (size_t i = 0; j->kind == TARGET_NEXT_TOKEN && i < n; i++) { /* softmax */
        real *p = j->base + i * V, top = vec_max(V, p);
        for (size_t k = 0; k < V; k++) p[k] = FN(exp)(p[k] - top);
        real total = 1 / vec_sum(V, p);
        for (size_t k = 0; k < V; k++) p[k] *= total;
    }
    return PS_OK;
}

static ps_code record(jacobian *j, const runtime *rt, const visits *steer, ps_status *st) {
    const spec *m = j->m;
    size_t n = j->b.n_rows, C = m->d_model;
    arena memory = {0};
    real *x, *source, *target;
    arena_slice table[] = {SLICE(x, n, C), SLICE(source, n, C), SLICE(target, n, C)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    capture captures[] = {{j->source_layer, j->source_site, source}, {j->target_layer, j->target_site, target}};
    visits v = {steer->steer, steer->n_steer, captures, j->kind == TARGET_SITE ? 2 : 1};
    forward_plan plan = {.visits = &v, .n_layers = j->target_layer + 1, .first_taped = j->first_taped, .tapes = j->tapes};
    if (forward_stream(rt, m, &j->b, &plan, x, st)) goto done;
    double norm = 0;
    for (size_t i = 0; i < j->source.n; i++) {
        const real *a = source + j->source.row[i] * C;
        double square = 0;
        for (size_t c = 0; c < C; c++) square += (double)a[c] * (double)a[c];
        norm += sqrt(square);
    }
    j->source_norm = (real)(norm / (double)j->source.n);
    if (j->kind == TARGET_SITE) rows_gather(1, n, j->target.n, j->target.row, C, target, j->base);
    else head_record(j, rt, x, st);
done:
    arena_free(&memory);
    return st->code;
}

ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const visits *steer, const jacobian_plan *plan, ps_status *st) {
    int head = plan->kind != TARGET_SITE;
    j->m = m;
    j->kind = plan->kind;
    j->mean = plan->mean;
    j->source_layer = plan->source_layer;
    j->source_site = plan->source_site;
    j->target_layer = head ? m->n_layers - 1 : plan->target_layer;
    j->target_site = head ? SITE_RESID_POST : plan->target_site;
    j->first_taped = j->source_layer + (j->source_site >= SITE_MLP_OUT);
    j->width = head ? m->n_vocab : m->d_model;
    j->cols = m->d_model;
    if (batch_make(&j->b, m, n_seq, tokens, length, NULL, NULL, st)
        || subset_make(&j->all, &j->b, NULL, NULL, st)
        || subset_make(&j->source, &j->b, plan->source_positions, plan->n_source, st)
        || subset_make(&j->target, &j->b, plan->target_positions, plan->n_target, st)
        || size_mul(j->mean ? n_seq : j->target.n, j->width, &j->rows, st))
        return st->code;
    size_t n = j->target.n, n_tapes = j->target_layer + 1 - j->first_taped; /* 0 when both lie behind the same block */
    arena_slice table[] = {
        SLICE(j->base, n, j->width), SLICE(j->head.xhat, head ? n : 0, m->d_model), SLICE(j->head.r, head ? n : 0),
        SLICE(j->head.slope, head ? n : 0, m->n_vocab), SLICE(j->tapes, n_tapes),
    };
    if (arena_make(&j->memory, table, COUNT(table), st)) return st->code;
    memset(j->tapes, 0, n_tapes * sizeof *j->tapes);
    return record(j, rt, steer, st);
}

void jacobian_free(jacobian *j) {
    if (j->memory.base)
        for (size_t l = j->first_taped; l <= j->target_layer; l++) tape_free(&j->tapes[l - j->first_taped]);
    batch_free(&j->b);
    subset_free(&j->all);
    subset_free(&j->source);
    subset_free(&j->target);
    arena_free(&j->memory);
}

size_t jacobian_bytes(const jacobian *j) {
    size_t bytes = j->memory.bytes + j->b.memory.bytes + j->all.memory.bytes + j->source.memory.bytes + j->target.memory.bytes;
    for (size_t l = j->first_taped; l <= j->target_layer; l++) bytes += j->tapes[l - j->first_taped].memory.bytes;
    return bytes;
}

size_t jacobian_block(const jacobian *j, size_t n) {
    size_t most = SWEEP_ROWS / j->b.n_rows;
    if (most < 1) most = 1;
    return n < most ? n : most;
}

/* ---- the two ends of a sweep ---- */

/* x (n, rows of q, C) = v at the source rows, 0 elsewhere. q holds every row, or in the last block the target's. */
static void inject_source(const jacobian *j, const subset *q, size_t n, const real *V, real *x) {
    size_t C = j->m->d_model;
    memset(x, 0, n * q->n * C * sizeof(real));
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < j->source.n && j->source.row[s] < q->row[i]) s++;
            if (s < j->source.n && j->source.row[s] == q->row[i]) memcpy(x + (t * q->n + i) * C, V + t * C, C * sizeof(real));
        }
}

/* v = sum over the source rows of x (n, rows of q, C) */
static void extract_source(const jacobian *j, const subset *q, size_t n, const real *x, real *V) {
    size_t C = j->m->d_model;
    memset(V, 0, n * C * sizeof(real));
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < j->source.n && j->source.row[s] < q->row[i]) s++;
            if (s < j->source.n && j->source.row[s] == q->row[i])
                for (size_t c = 0; c < C; c++) V[t * C + c] += x[(t * q->n + i) * C + c];
        }
}

/* x (n, target rows, width) -> U (n, rows) */
static void reduce_target(const jacobian *j, size_t n, const real *x, real *U) {
    size_t w = j->width, Q = j->target.n;
    if (!j->mean) {
        if (U != x) memcpy(U, x, n * Q * w * sizeof(real));
        return;
    }
    for (size_t t = 0; t < n; t++)
        for (size_t s = 0; s < j->b.n_seq; s++) {
            real *u = U + t * j->rows + s * w, share = 1 / (real)(j->target.row0[s + 1] - j->target.row0[s]);
            memset(u, 0, w * sizeof(real));
            for (size_t i = j->target.row0[s]; i < j->target.row0[s + 1]; i++)
                for (size_t c = 0; c < w; c++) u[c] += share * x[(t * Q + i) * w + c];
        }
}

/* the transpose: U (n, rows) -> x (n, target rows, width) */
static void spread_target(const jacobian *j, size_t n, const real *U, real *x) {
    size_t w = j->width, Q = j->target.n;
    if (!j->mean) {
        memcpy(x, U, n * Q * w * sizeof(real));
        return;
    }
    for (size_t t = 0; t < n; t++)
        for (size_t s = 0; s < j->b.n_seq; s++) {
            const real *u = U + t * j->rows + s * w;
            real share = 1 / (real)(j->target.row0[s + 1] - j->target.row0[s]);
            for (size_t i = j->target.row0[s]; i < j->target.row0[s + 1]; i++)
                for (size_t c = 0; c < w; c++) x[(t * Q + i) * w + c] = share * u[c];
        }
}

/* ---- the head ---- */

static norm_rows final_norm_of(const jacobian *j, size_t n) {
    return (norm_rows){.kind = j->m->norm, .eps = j->m->norm_eps, .width = j->m->d_model, .groups = 1,
                       .gain = j->m->final_norm.gain, .xhat = j->head.xhat, .r = j->head.r, .n_t = n, .n = j->target.n,
                       .scale = 1};
}

typedef struct {
    const jacobian *j;
    real *z;
} head_rows;

/* z = head product's tangent -> dlogits = slope z -> Fisher: sqrt p o (dlogits - p.dlogits) */
static void head_jvp_row(void *ctx, size_t i, int worker) {
    const head_rows *h = ctx;
    size_t V = h->j->width, row = i % h->j->target.n;
    const real *slope = h->j->head.slope + row * V, *p = h->j->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    for (size_t k = 0; k < V; k++) z[k] *= slope[k];
    if (h->j->kind != TARGET_NEXT_TOKEN) return;
    real mean = vec_dot(V, p, z);
    for (size_t k = 0; k < V; k++) z[k] = FN(sqrt)(p[k]) * (z[k] - mean);
}

/* u -> w = sqrt p o u -> w - p sum w -> times slope */
static void head_vjp_row(void *ctx, size_t i, int worker) {
    const head_rows *h = ctx;
    size_t V = h->j->width, row = i % h->j->target.n;
    const real *slope = h->j->head.slope + row * V, *p = h->j->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    if (h->j->kind == TARGET_NEXT_TOKEN) {
        for (size_t k = 0; k < V; k++) z[k] *= FN(sqrt)(p[k]);
        real total = vec_sum(V, z);
        for (size_t k = 0; k < V; k++) z[k] -= p[k] * total;
    }
    for (size_t k = 0; k < V; k++) z[k] *= slope[k];
}

/* Scratch of the head: z (n, target rows, n_vocab) and the panels. */
typedef struct {
    real *z, *panel;
    size_t stride;
    arena memory;
} head_scratch;

static ps_code head_scratch_make(head_scratch *h, const jacobian *j, const runtime *rt, size_t n, ps_status *st) {
    *h = (head_scratch){.stride = linear_scratch(&j->m->head)};
    arena_slice table[] = {SLICE(h->z, n, j->target.n, j->width),
                           SLICE(h->panel, (size_t)pool_threads(rt->pool), h->stride)};
    return arena_make(&h->memory, table, COUNT(table), st);
}

/* stream (n, Q, C) -> U */
static ps_code head_jvp(const jacobian *j, const runtime *rt, size_t n, real *x, real *U, ps_status *st) {
    head_scratch h;
    size_t rows = n * j->target.n;
    if (head_scratch_make(&h, j, rt, n, st)) return st->code;
    norm_rows a = final_norm_of(j, n);
    if (j->m->final_norm.present) rows_norm_jvp(rt, &a, x, x);
    linear(rt, rows, x, j->m->d_model, &j->m->head, NULL, h.z, j->width, h.panel, h.stride);
    head_rows r = {j, h.z};
    pool_run(rt->pool, rows, head_jvp_row, &r);
    reduce_target(j, n, h.z, U);
    arena_free(&h.memory);
    return PS_OK;
}

/* U -> stream (n, Q, C) */
static ps_code head_vjp(const jacobian *j, const runtime *rt, size_t n, const real *U, real *x, ps_status *st) {
    head_scratch h;
    size_t rows = n * j->target.n;
    if (head_scratch_make(&h, j, rt, n, st)) return st->code;
    spread_target(j, n, U, h.z);
    head_rows r = {j, h.z};
    pool_run(rt->pool, rows, head_vjp_row, &r);
    linear_t(rt, rows, h.z, j->width, &j->m->head, 0, x, j->m->d_model, h.panel, h.stride);
    norm_rows a = final_norm_of(j, n);
    if (j->m->final_norm.present) rows_norm_vjp(rt, &a, x, x);
    arena_free(&h.memory);
    return PS_OK;
}

/* ---- sweeps ---- */

static block_call call_at(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, size_t l) {
    return (block_call){.rt = rt, .m = j->m, .b = &j->b, .t = l >= j->first_taped ? &j->tapes[l - j->first_taped] : NULL,
                        .layer = l, .q = l == j->target_layer ? &j->target : &j->all, .n_t = n, .s = s};
}

/* The stations of a block in the order of computation, at each of which the source may enter and the target leave:
 *
 *   stream -RESID_PRE- attn -ATTN_OUT- stream + attn -RESID_MID- mlp -DOWN_PROJ- post -MLP_OUT- stream + mlp -RESID_POST-
 *
 * In a parallel block both branches read RESID_PRE and are added after MLP_OUT. The forward sweep is live from the
 * source on; the backward sweep from the target back. */
typedef struct {
    const jacobian *j;
    const runtime *rt;
    sweep_scratch *s;
    size_t n, l;
    int live;
    const real *in;
} sweep;

static int source_at(const sweep *w, site at) { return w->l == w->j->source_layer && w->j->source_site == at; }
static int target_at(const sweep *w, site at) { /* the head lies beyond every station */
    return w->j->kind == TARGET_SITE && w->l == w->j->target_layer && w->j->target_site == at;
}

static void zero_branches(const sweep *w, const subset *q) {
    size_t size = w->n * q->n * w->j->m->d_model * sizeof(real);
    memset(w->s->stream, 0, size);
    memset(w->s->attn, 0, size);
    memset(w->s->mlp, 0, size);
}

/* A station of the forward sweep: the source enters at x, with zeros beside it. 1 if the target leaves here. */
static int pass_forward(sweep *w, site at, const subset *q, real *x) {
    if (source_at(w, at)) {
        zero_branches(w, q);
        inject_source(w->j, q, w->n, w->in, x);
        w->live = 1;
    }
    return target_at(w, at);
}

/* Layer l forward. Returns the target's tangent (n, target rows, C) if it lies in this layer. */
static const real *block_forward_sweep(sweep *w, const block_call *c) {
    const jacobian *j = w->j;
    sweep_scratch *s = w->s;
    int parallel = j->m->parallel, out = pass_forward(w, SITE_RESID_PRE, &j->all, s->stream), whole = w->live;
    if (whole && !out) block_attn_jvp(c);
    if (whole) rows_gather(w->n, j->b.n_rows, c->q->n, c->q->row, j->m->d_model, s->stream, s->stream);
    if (out) return s->stream;
    size_t size = w->n * c->q->n * j->m->d_model;
    if (pass_forward(w, SITE_ATTN_OUT, c->q, s->attn)) return s->attn;
    if (w->live && !parallel) rows_add(w->rt, size, s->attn, s->stream);
    if (pass_forward(w, SITE_RESID_MID, c->q, s->stream)) return s->stream;
    if (whole || (w->live && !parallel)) block_mlp_jvp(c);
    if (pass_forward(w, SITE_DOWN_PROJ, c->q, s->mlp)) return s->mlp;
    if (w->live) block_post_mlp_jvp(c);
    if (pass_forward(w, SITE_MLP_OUT, c->q, s->mlp)) return s->mlp;
    if (w->live) rows_add(w->rt, size, s->mlp, s->stream);
    if (w->live && parallel) rows_add(w->rt, size, s->attn, s->stream);
    return pass_forward(w, SITE_RESID_POST, c->q, s->stream) ? s->stream : NULL;
}

ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const real *V, real *U, ps_status *st) {
    sweep w = {.j = j, .rt = rt, .s = s, .n = n, .in = V};
    const real *out = NULL;
    for (w.l = j->source_layer; w.l <= j->target_layer; w.l++) {
        block_call c = call_at(j, rt, s, n, w.l);
        out = block_forward_sweep(&w, &c);
        if (runtime_poll(rt, st)) return st->code;
    }
    if (j->kind != TARGET_SITE) return head_jvp(j, rt, n, s->stream, U, st);
    reduce_target(j, n, out, U);
    return PS_OK;
}

/* A station of the backward sweep: the target's cotangent enters at x, with zeros beside it. 1 if the source is here. */
static int pass_backward(sweep *w, site at, real *x) {
    if (target_at(w, at)) {
        zero_branches(w, &w->j->target);
        spread_target(w->j, w->n, w->in, x);
        w->live = 1;
    }
    return source_at(w, at);
}

/* Layer l backward. Returns the source's cotangent if it lies in this layer, and the rows that it has in *rows. */
static const real *block_backward_sweep(sweep *w, const block_call *c, const subset **rows) {
    const jacobian *j = w->j;
    sweep_scratch *s = w->s;
    int parallel = j->m->parallel;
    size_t size = w->n * c->q->n * j->m->d_model;
    *rows = c->q;
    if (pass_backward(w, SITE_RESID_POST, s->stream)) return s->stream;
    if (w->live) memcpy(s->mlp, s->stream, size * sizeof(real));
    if (w->live && parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(w, SITE_MLP_OUT, s->mlp)) return s->mlp;
    if (w->live) block_post_mlp_vjp(c);
    if (pass_backward(w, SITE_DOWN_PROJ, s->mlp)) return s->mlp;
    int through_mlp = w->live;
    if (w->live && !(parallel && source_at(w, SITE_ATTN_OUT))) block_mlp_vjp(c);
    if (pass_backward(w, SITE_RESID_MID, s->stream)) return s->stream;
    if (w->live && !parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(w, SITE_ATTN_OUT, s->attn)) return s->attn;
    if (w->live) block_attn_vjp(c, through_mlp && block_shares_norm(j->m, w->l));
    *rows = &j->all;
    if (target_at(w, SITE_RESID_PRE)) { /* enters at the target rows; every row counts from here on */
        pass_backward(w, SITE_RESID_PRE, s->stream);
        rows_expand(w->n, j->b.n_rows, j->target.n, j->target.row, j->m->d_model, s->stream);
    }
    return source_at(w, SITE_RESID_PRE) ? s->stream : NULL;
}

ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const real *U, real *V, ps_status *st) {
    sweep w = {.j = j, .rt = rt, .s = s, .n = n, .in = U};
    const subset *rows;
    const real *out;
    if (j->kind != TARGET_SITE) { /* enters above the last block's RESID_POST */
        if (head_vjp(j, rt, n, U, s->stream, st)) return st->code;
        w.live = 1;
    }
    for (w.l = j->target_layer;; w.l--) {
        block_call c = call_at(j, rt, s, n, w.l);
        out = block_backward_sweep(&w, &c, &rows);
        if (runtime_poll(rt, st)) return st->code;
        if (out) break; /* the source's layer is >= 0 and always reached */
    }
    extract_source(j, rows, n, out, V);
    return PS_OK;
}
