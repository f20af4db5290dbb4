#include "model/jacobian.h"
#include <stdlib.h>
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

enum { SWEEP_ROWS = 1024 };

/* ---- recording ---- */

/* base of a logits or next-token target, from the stream (n_rows, C); work (n_rows, C) */
static ps_code lm_head_record(const jacobian *j, const runtime *rt, target *t, const real *stream, real *work, ps_status *st) {
    size_t n = t->at.n, V = t->width;
    rowwise_gather(1, j->b.n_rows, n, t->at.row, j->m->d_model, stream, work);
    if (lm_head_forward(rt, j->m, n, work, &t->head, t->base, st)) return st->code;
    for (size_t i = 0; t->kind == TARGET_NEXT_TOKEN && i < n; i++) { /* softmax */
        real *p = t->base + i * V, top = reduce_max(V, p);
        for (size_t k = 0; k < V; k++) p[k] = FN(exp)(p[k] - top);
        real total = 1 / reduce_sum(V, p);
        for (size_t k = 0; k < V; k++) p[k] *= total;
    }
    return PS_OK;
}

static real mean_norm(const subset *at, size_t C, const real *x) {
    double total = 0;
    for (size_t i = 0; i < at->n; i++) {
        double square = 0;
        for (size_t c = 0; c < C; c++) square += (double)x[at->row[i] * C + c] * (double)x[at->row[i] * C + c];
        total += sqrt(square);
    }
    return (real)(total / (double)at->n);
}

typedef struct {
    real *x, *work; /* (n, C) each */
    real *seen;     /* (n_targets + 1, n, C) */
    capture *captures;
    arena memory;
} record_buffers;

static ps_code record_make_or_count(record_buffers *r, const spec *m, size_t n, size_t n_targets, size_t *bytes, ps_status *st) {
    size_t C = m->d_model;
    arena_slice table[] = {SLICE(r->x, n, C), SLICE(r->work, n, C), SLICE(r->seen, n_targets + 1, n, C),
                           SLICE(r->captures, n_targets + 1)};
    return arena_make_or_count(&r->memory, table, COUNT(table), bytes, st);
}

static ps_code record(jacobian *j, const runtime *rt, const hooks *steer, ps_status *st) {
    const spec *m = j->m;
    size_t n = j->b.n_rows, C = m->d_model;
    record_buffers r = {0};
    if (record_make_or_count(&r, m, n, j->n_targets, NULL, st)) return st->code;
    real *x = r.x, *seen = r.seen;
    capture *captures = r.captures;
    hooks v = {steer->steer, steer->n_steer, captures, j->n_targets + 1};
    captures[0] = (capture){j->source_layer, j->source_site, seen};
    for (size_t i = 0; i < j->n_targets; i++) /* a head's is its stream */
        captures[i + 1] = (capture){j->targets[i].layer, j->targets[i].site, seen + (i + 1) * n * C};
    forward_plan plan = {.hooks = &v, .n_layers = j->last_layer + 1, .first_taped = j->first_taped, .tapes = j->tapes};
    if (forward_stream(rt, m, &j->b, &plan, x, st)) goto done;
    j->source_norm = mean_norm(&j->source, C, seen);
    for (size_t i = 0; i < j->n_targets; i++) {
        target *t = &j->targets[i];
        if (t->kind == TARGET_SITE) rowwise_gather(1, n, t->at.n, t->at.row, C, captures[i + 1].out, t->base);
        else if (lm_head_record(j, rt, t, captures[i + 1].out, r.work, st)) goto done;
    }
done:
    arena_free(&r.memory);
    return st->code;
}

static ps_code target_make_or_count(target *t, const spec *m, size_t n, size_t *bytes, ps_status *st) {
    int head = t->kind != TARGET_SITE;
    arena_slice table[] = {SLICE(t->base, n, t->width), SLICE(t->head.xhat, head ? n : 0, m->d_model),
                           SLICE(t->head.r, head ? n : 0), SLICE(t->head.slope, head ? n : 0, m->n_vocab)};
    return arena_make_or_count(&t->memory, table, COUNT(table), bytes, st);
}

static ps_code target_make(target *t, const jacobian *j, const target_plan *plan, ps_status *st) {
    int head = plan->kind != TARGET_SITE;
    t->kind = plan->kind;
    t->mean = plan->mean;
    t->layer = head ? j->m->n_layers - 1 : plan->layer;
    t->site = head ? SITE_RESID_POST : plan->site;
    t->width = head ? j->m->n_vocab : j->m->d_model;
    if (subset_make(&t->at, &j->b, plan->positions, plan->n_positions, st)
        || size_mul(t->mean ? j->b.n_seq : t->at.n, t->width, &t->rows, st))
        return st->code;
    return target_make_or_count(t, j->m, t->at.n, NULL, st);
}

size_t jacobian_first_taped(size_t layer, site at) { return layer + (at >= SITE_MLP_OUT); }

ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const hooks *steer, const jacobian_plan *plan, ps_status *st) {
    j->m = m;
    j->source_layer = plan->source_layer;
    j->source_site = plan->source_site;
    j->first_taped = jacobian_first_taped(j->source_layer, j->source_site);
    for (size_t i = 0; i < plan->n_targets; i++) {
        size_t layer = plan->targets[i].kind == TARGET_SITE ? plan->targets[i].layer : m->n_layers - 1;
        if (layer > j->last_layer) j->last_layer = layer;
    }
    if (batch_make(&j->b, m, n_seq, tokens, length, NULL, NULL, st) || subset_make(&j->all, &j->b, NULL, NULL, st)
        || subset_make(&j->source, &j->b, plan->positions, plan->n_positions, st))
        return st->code;
    size_t n_tapes = j->last_layer + 1 - j->first_taped; /* 0 when both ends lie behind the last block */
    arena_slice table[] = {SLICE(j->tapes, n_tapes), SLICE(j->targets, plan->n_targets)};
    if (arena_make(&j->memory, table, COUNT(table), st)) return st->code;
    memset(j->tapes, 0, n_tapes * sizeof *j->tapes);
    memset(j->targets, 0, plan->n_targets * sizeof *j->targets);
    j->n_targets = plan->n_targets;
    for (size_t i = 0; i < j->n_targets; i++)
        if (target_make(&j->targets[i], j, &plan->targets[i], st)) return st->code;
    return record(j, rt, steer, st);
}

static void target_free(target *t) {
    subset_free(&t->at);
    arena_free(&t->memory);
}

void jacobian_free(jacobian *j) {
    if (j->memory.base)
        for (size_t l = j->first_taped; l <= j->last_layer; l++) tape_free(&j->tapes[l - j->first_taped]);
    for (size_t i = 0; i < j->n_targets; i++) target_free(&j->targets[i]);
    batch_free(&j->b);
    subset_free(&j->all);
    subset_free(&j->source);
    arena_free(&j->memory);
}

size_t jacobian_bytes(const jacobian *j) {
    size_t bytes = j->memory.bytes + j->b.memory.bytes + j->all.memory.bytes + j->source.memory.bytes;
    for (size_t i = 0; i < j->n_targets; i++) bytes += j->targets[i].at.memory.bytes + j->targets[i].memory.bytes;
    for (size_t l = j->first_taped; l <= j->last_layer; l++)
        bytes += j->tapes[l - j->first_taped].memory.bytes + j->tapes[l - j->first_taped].moe.memory.bytes;
    return bytes;
}

size_t jacobian_block(size_t n_rows, size_t n) {
    size_t most = SWEEP_ROWS / n_rows;
    if (most < 1) most = 1;
    return n < most ? n : most;
}

/* ---- the two ends of a sweep ---- */

/* x (n, rows of q, C) = each column's v at the source rows, 0 elsewhere. q holds every row, or those of the target. */
static void inject_source(const jacobian *j, const subset *q, size_t n, const column *columns, real *x) {
    size_t C = j->m->d_model;
    memset(x, 0, n * q->n * C * sizeof(real));
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < j->source.n && j->source.row[s] < q->row[i]) s++;
            if (s < j->source.n && j->source.row[s] == q->row[i])
                memcpy(x + (t * q->n + i) * C, columns[t].v, C * sizeof(real));
        }
}

/* each column's v = sum over the source rows of x (n, rows of q, C) */
static void extract_source(const jacobian *j, const subset *q, size_t n, const real *x, const column *columns) {
    size_t C = j->m->d_model;
    for (size_t t = 0; t < n; t++) {
        memset(columns[t].v, 0, C * sizeof(real));
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < j->source.n && j->source.row[s] < q->row[i]) s++;
            if (s < j->source.n && j->source.row[s] == q->row[i])
                for (size_t c = 0; c < C; c++) columns[t].v[c] += x[(t * q->n + i) * C + c];
        }
    }
}

/* x (n, n_x, width), of which the target's rows are row[], or all where row is NULL -> u */
static void reduce_rows(const jacobian *j, const target *to, size_t n, const real *x, size_t n_x, const size_t *row,
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

/* x (n, target rows, width) -> u */
static void reduce_target(const jacobian *j, const target *to, size_t n, const real *x, const column *columns) {
    reduce_rows(j, to, n, x, to->at.n, NULL, columns);
}

/* the transpose: u -> x (n, target rows, width) */
static void spread_target(const jacobian *j, const target *to, size_t n, const column *columns, real *x) {
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

/* ---- the head ---- */

static norm_rows final_norm_of(const jacobian *j, const target *to, size_t n) {
    return (norm_rows){.kind = j->m->norm, .eps = j->m->norm_eps, .width = j->m->d_model, .groups = 1,
                       .gain = j->m->final_norm.gain, .xhat = to->head.xhat, .r = to->head.r, .n_t = n, .n = to->at.n,
                       .scale = 1};
}

typedef struct {
    const target *to;
    real *z;
} head_rows;

/* z = head product's tangent -> dlogits = slope z -> Fisher: sqrt p o (dlogits - p.dlogits) */
static void lm_head_jvp_row(void *ctx, size_t i, int worker) {
    const head_rows *h = ctx;
    size_t V = h->to->width, row = i % h->to->at.n;
    const real *slope = h->to->head.slope + row * V, *p = h->to->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    for (size_t k = 0; k < V; k++) z[k] *= slope[k];
    if (h->to->kind != TARGET_NEXT_TOKEN) return;
    real mean = reduce_dot(V, p, z);
    for (size_t k = 0; k < V; k++) z[k] = FN(sqrt)(p[k]) * (z[k] - mean);
}

/* u -> w = sqrt p o u -> w - p sum w -> times slope */
static void lm_head_vjp_row(void *ctx, size_t i, int worker) {
    const head_rows *h = ctx;
    size_t V = h->to->width, row = i % h->to->at.n;
    const real *slope = h->to->head.slope + row * V, *p = h->to->base + row * V;
    real *z = h->z + i * V;
    (void)worker;
    if (h->to->kind == TARGET_NEXT_TOKEN) {
        for (size_t k = 0; k < V; k++) z[k] *= FN(sqrt)(p[k]);
        real total = reduce_sum(V, z);
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

static ps_code head_make_or_count(head_scratch *h, const spec *m, size_t n, size_t n_target, int threads, size_t *bytes,
                                  ps_status *st) {
    *h = (head_scratch){.stride = linear_scratch(&m->lm_head)};
    arena_slice table[] = {SLICE(h->z, n, n_target, m->n_vocab), SLICE(h->panel, (size_t)threads, h->stride)};
    return arena_make_or_count(&h->memory, table, COUNT(table), bytes, st);
}

static ps_code head_scratch_make(head_scratch *h, const jacobian *j, const target *to, const runtime *rt, size_t n, ps_status *st) {
    return head_make_or_count(h, j->m, n, to->at.n, thread_pool_threads(rt->pool), NULL, st);
}

/* stream (n, target rows, C) -> u */
static ps_code lm_head_jvp(const jacobian *j, const target *to, const runtime *rt, size_t n, real *x, const column *columns, ps_status *st) {
    head_scratch h;
    size_t rows = n * to->at.n;
    if (head_scratch_make(&h, j, to, rt, n, st)) return st->code;
    norm_rows a = final_norm_of(j, to, n);
    if (j->m->final_norm.present) rowwise_norm_jvp(rt, &a, x, x);
    linear(rt, rows, x, j->m->d_model, &j->m->lm_head, NULL, h.z, to->width, h.panel, h.stride);
    head_rows r = {to, h.z};
    runtime_run(rt, rows, 10.0 * (double)rows * (double)to->width, lm_head_jvp_row, &r);
    reduce_target(j, to, n, h.z, columns);
    arena_free(&h.memory);
    return PS_OK;
}

/* u -> stream (n, target rows, C) */
static ps_code lm_head_vjp(const jacobian *j, const target *to, const runtime *rt, size_t n, const column *columns, real *x, ps_status *st) {
    head_scratch h;
    size_t rows = n * to->at.n;
    if (head_scratch_make(&h, j, to, rt, n, st)) return st->code;
    spread_target(j, to, n, columns, h.z);
    head_rows r = {to, h.z};
    runtime_run(rt, rows, 10.0 * (double)rows * (double)to->width, lm_head_vjp_row, &r);
    linear_t(rt, rows, h.z, to->width, &j->m->lm_head, 0, x, j->m->d_model, h.panel, h.stride);
    norm_rows a = final_norm_of(j, to, n);
    if (j->m->final_norm.present) rowwise_norm_vjp(rt, &a, x, x);
    arena_free(&h.memory);
    return PS_OK;
}

/* ---- sweeps ---- */

/* A group of columns in one layer: those whose target lies in it (to), or those that go through it (to NULL).
 *
 * The stations of a block in the order of computation, at each of which the source may enter and the target leave:
 *
 *   stream -RESID_PRE- attn -ATTN_OUT- stream + attn -RESID_MID- mlp -DOWN_PROJ- post -MLP_OUT- stream + mlp -RESID_POST-
 *
 * In a parallel block both branches read RESID_PRE and are added after MLP_OUT. A forward sweep is live from the source
 * on, a backward sweep from the target back. */
typedef struct {
    const jacobian *j;
    const runtime *rt;
    const target *to;
    const subset *q;  /* output rows: the target's, or all */
    size_t n, l;
    column *columns;      /* (n) */
    sweep_scratch *s; /* of these columns */
    int live;
    const column *every;  /* (n_targets, n) of a forward sweep that every target reads on its way, else NULL */
} group;

static int source_at(const group *g, site at) { return g->l == g->j->source_layer && g->j->source_site == at; }
static int target_at(const group *g, site at) { /* the head lies beyond every station */
    return g->to && g->to->kind == TARGET_SITE && g->to->site == at;
}

/* The columns i.. of the scratch. Only what outlives a layer has a place of its own: the stream. */
static sweep_scratch scratch_from(const sweep_scratch *s, const jacobian *j, size_t i) {
    sweep_scratch part = *s;
    part.stream += i * j->b.n_rows * j->m->d_model;
    return part;
}

static block_call call_of(const group *g) {
    const jacobian *j = g->j;
    return (block_call){.rt = g->rt, .m = j->m, .b = &j->b, .t = g->l >= j->first_taped ? &j->tapes[g->l - j->first_taped] : NULL,
                        .layer = g->l, .q = g->q, .n_t = g->n, .s = g->s};
}

static void zero_branches(const group *g, const subset *q) {
    size_t size = g->n * q->n * g->j->m->d_model * sizeof(real);
    memset(g->s->stream, 0, size);
    memset(g->s->attn, 0, size);
    memset(g->s->mlp, 0, size);
}

/* Every target at this station reads x (n, rows, C), which goes on. */
static void write_targets(const group *g, site at, const real *x) {
    const jacobian *j = g->j;
    for (size_t i = 0; i < j->n_targets; i++) {
        const target *to = &j->targets[i];
        if (to->kind == TARGET_SITE && to->layer == g->l && to->site == at)
            reduce_rows(j, to, g->n, x, j->b.n_rows, to->at.row, g->every + i * g->n);
    }
}

/* A station of the forward sweep: the source enters at x, with zeros beside it. 1 if the target leaves here. */
static int pass_forward(group *g, site at, const subset *q, real *x) {
    if (source_at(g, at)) {
        zero_branches(g, q);
        inject_source(g->j, q, g->n, g->columns, x);
        g->live = 1;
    }
    if (g->every && g->live) write_targets(g, at, x);
    return target_at(g, at);
}

/* One layer forward. Returns the target's tangent (n, target rows, C) if it lies in this layer. */
static const real *block_forward_sweep(group *g) {
    const jacobian *j = g->j;
    const block_call c = call_of(g);
    sweep_scratch *s = g->s;
    int parallel = j->m->parallel, out = pass_forward(g, SITE_RESID_PRE, &j->all, s->stream), whole = g->live;
    if (whole && !out) block_attn_jvp(&c);
    if (whole) rowwise_gather(g->n, j->b.n_rows, g->q->n, g->q->row, j->m->d_model, s->stream, s->stream);
    if (out) return s->stream;
    size_t size = g->n * g->q->n * j->m->d_model;
    if (pass_forward(g, SITE_ATTN_OUT, g->q, s->attn)) return s->attn;
    if (g->live && !parallel) rowwise_add(g->rt, size, s->attn, s->stream);
    if (pass_forward(g, SITE_RESID_MID, g->q, s->stream)) return s->stream;
    if (whole || (g->live && !parallel)) block_mlp_jvp(&c);
    if (pass_forward(g, SITE_DOWN_PROJ, g->q, s->mlp)) return s->mlp;
    if (g->live) block_post_mlp_jvp(&c);
    if (pass_forward(g, SITE_MLP_OUT, g->q, s->mlp)) return s->mlp;
    if (g->live) rowwise_add(g->rt, size, s->mlp, s->stream);
    if (g->live && parallel) rowwise_add(g->rt, size, s->attn, s->stream);
    return pass_forward(g, SITE_RESID_POST, g->q, s->stream) ? s->stream : NULL;
}

/* A station of the backward sweep: the target's cotangent enters at x, with zeros beside it. 1 if the source is here. */
static int pass_backward(group *g, site at, real *x) {
    if (target_at(g, at)) {
        zero_branches(g, g->q);
        spread_target(g->j, g->to, g->n, g->columns, x);
        g->live = 1;
    }
    return source_at(g, at);
}

/* One layer backward. Returns the source's cotangent if it lies in this layer, and in *rows the rows that it has. */
static const real *block_backward_sweep(group *g, const subset **rows) {
    const jacobian *j = g->j;
    const block_call c = call_of(g);
    sweep_scratch *s = g->s;
    int parallel = j->m->parallel;
    size_t size = g->n * g->q->n * j->m->d_model;
    *rows = g->q;
    if (pass_backward(g, SITE_RESID_POST, s->stream)) return s->stream;
    if (g->live) memcpy(s->mlp, s->stream, size * sizeof(real));
    if (g->live && parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(g, SITE_MLP_OUT, s->mlp)) return s->mlp;
    if (g->live) block_post_mlp_vjp(&c);
    if (pass_backward(g, SITE_DOWN_PROJ, s->mlp)) return s->mlp;
    int through_mlp = g->live;
    if (g->live && !(parallel && source_at(g, SITE_ATTN_OUT))) block_mlp_vjp(&c);
    if (pass_backward(g, SITE_RESID_MID, s->stream)) return s->stream;
    if (g->live && !parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(g, SITE_ATTN_OUT, s->attn)) return s->attn;
    if (g->live) block_attn_vjp(&c, through_mlp && block_shares_norm(j->m, g->l));
    *rows = &j->all;
    if (target_at(g, SITE_RESID_PRE)) { /* enters at the target rows; every row counts from here on */
        pass_backward(g, SITE_RESID_PRE, s->stream);
        rowwise_expand(g->n, j->b.n_rows, g->q->n, g->q->row, j->m->d_model, s->stream);
    }
    return source_at(g, SITE_RESID_PRE) ? s->stream : NULL;
}

/* Deepest layer first, then by target: the columns that a layer carries are the first so many, and a target's columns are
 * neighbours. Stable, by insertion: there are few columns, and often they come sorted. */
static void sort_columns(const jacobian *j, size_t n, column *columns) {
    for (size_t i = 1; i < n; i++) {
        column x = columns[i];
        size_t k = i, deep = j->targets[x.target].layer;
        for (; k; k--) {
            size_t other = j->targets[columns[k - 1].target].layer;
            if (other > deep || (other == deep && columns[k - 1].target <= x.target)) break;
            columns[k] = columns[k - 1];
        }
        columns[k] = x;
    }
}

/* The columns from i on that share column i's target. */
static size_t same_target(const column *columns, size_t i, size_t n) {
    size_t end = i + 1;
    while (end < n && columns[end].target == columns[i].target) end++;
    return end;
}

static size_t deeper_than(const jacobian *j, const column *columns, size_t n, size_t layer) {
    size_t i = 0;
    while (i < n && j->targets[columns[i].target].layer > layer) i++;
    return i;
}

ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st) {
    sort_columns(j, n, columns);
    for (size_t l = j->source_layer, left = n; left; l++) {
        size_t through = deeper_than(j, columns, left, l);
        for (size_t i = through, end; i < left; i = end) { /* the groups that end in this layer */
            end = same_target(columns, i, left);
            sweep_scratch part = scratch_from(s, j, i);
            const target *to = &j->targets[columns[i].target];
            group g = {j, rt, to, &to->at, end - i, l, columns + i, &part, l > j->source_layer, NULL};
            const real *out = block_forward_sweep(&g);
            if (to->kind == TARGET_SITE) reduce_target(j, to, g.n, out, g.columns);
            else if (lm_head_jvp(j, to, rt, g.n, part.stream, g.columns, st)) return st->code;
            if (runtime_poll(rt, st)) return st->code;
        }
        if (through) {
            group g = {j, rt, NULL, &j->all, through, l, columns, s, l > j->source_layer, NULL};
            block_forward_sweep(&g);
        }
        left = through;
        if (runtime_poll(rt, st)) return st->code;
    }
    return PS_OK;
}

ps_code jacobian_apply_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st) {
    for (size_t l = j->source_layer; n && l <= j->last_layer; l++) {
        group g = {j, rt, NULL, &j->all, n, l, columns, s, l > j->source_layer, columns};
        block_forward_sweep(&g);
        if (runtime_poll(rt, st)) return st->code;
    }
    for (size_t i = 0; n && i < j->n_targets; i++) {
        const target *to = &j->targets[i];
        if (to->kind == TARGET_SITE) continue;
        rowwise_gather(n, j->b.n_rows, to->at.n, to->at.row, j->m->d_model, s->stream, s->attn);
        if (lm_head_jvp(j, to, rt, n, s->attn, columns + i * n, st)) return st->code;
    }
    return PS_OK;
}

ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st) {
    sort_columns(j, n, columns);
    const subset *rows;
    if (!n) return PS_OK;
    for (size_t l = j->targets[columns[0].target].layer, on = 0;; l--) {
        size_t through = on;
        if (through) {
            group g = {j, rt, NULL, &j->all, through, l, columns, s, 1, NULL};
            const real *out = block_backward_sweep(&g, &rows);
            if (out) extract_source(j, rows, g.n, out, g.columns);
        }
        for (size_t end; on < n && j->targets[columns[on].target].layer == l; on = end) { /* those that start here */
            end = same_target(columns, on, n);
            sweep_scratch part = scratch_from(s, j, on);
            const target *to = &j->targets[columns[on].target];
            group g = {j, rt, to, &to->at, end - on, l, columns + on, &part, to->kind != TARGET_SITE, NULL};
            if (g.live && lm_head_vjp(j, to, rt, g.n, g.columns, part.stream, st)) return st->code;
            const real *out = block_backward_sweep(&g, &rows);
            if (out) extract_source(j, rows, g.n, out, g.columns);
            if (runtime_poll(rt, st)) return st->code;
        }
        if (runtime_poll(rt, st) || l == j->source_layer) return st->code;
    }
}

/* ---- sizes ---- */

ps_code forward_footprint(const spec *m, const batch *shape, size_t n_logits, int threads, size_t *bytes, ps_status *st) {
    real *x, *logits;
    arena_slice table[] = {SLICE(x, shape->n_rows, m->d_model), SLICE(logits, n_logits, m->n_vocab)};
    size_t blocks = 0, head = 0;
    if (arena_make_or_count(NULL, table, COUNT(table), bytes, st) || block_scratch_count(m, shape, threads, &blocks, st)
        || tape_count(m, m->n_layers, shape->n_rows, &blocks, st) || lm_head_count(m, n_logits, threads, &head, st))
        return st->code;
    *bytes += blocks > head ? blocks : head;
    return PS_OK;
}

ps_code jacobian_footprint(const spec *m, const batch *shape, const footprint_plan *p, int threads, footprint *f, ps_status *st) {
    int head = p->kind != TARGET_SITE;
    size_t first = jacobian_first_taped(p->source_layer, p->source_site), last = head ? m->n_layers - 1 : p->target_layer;
    target t = {.kind = p->kind, .width = head ? m->n_vocab : m->d_model};
    size_t blocks = 0, lm_head = 0;
    real *u;
    arena_slice products[] = {SLICE(u, p->n_columns, p->n_target, t.width)};
    *f = (footprint){0};
    for (size_t l = first; l <= last; l++)
        if (tape_count(m, l, shape->n_rows, &f->tape, st)) return st->code;
    if (target_make_or_count(&t, m, p->n_target, &f->tape, st)
        || record_make_or_count(&(record_buffers){0}, m, shape->n_rows, 1, &f->record, st)
        || block_scratch_count(m, shape, threads, &blocks, st)
        || (first > 0 && tape_count(m, m->n_layers, shape->n_rows, &blocks, st))
        || (head && lm_head_count(m, p->n_target, threads, &lm_head, st))
        || sweep_scratch_count(m, shape, p->n_columns, threads, &f->sweep, st)
        || (head && head_make_or_count(&(head_scratch){0}, m, p->n_columns, p->n_target, threads, &f->sweep, st))
        || arena_make_or_count(NULL, products, COUNT(products), &f->sweep, st))
        return st->code;
    f->record += blocks > lm_head ? blocks : lm_head;
    return PS_OK;
}
