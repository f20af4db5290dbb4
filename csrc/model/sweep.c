#include "model/sweep.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

size_t jacobian_block(size_t n_rows, size_t n) {
    size_t most = SWEEP_ROWS / n_rows;
    if (most < 1) most = 1;
    return n < most ? n : most;
}

/* ---- the two ends of a sweep ---- */

/* x (n, rows of q, C) = each column's v at the source rows, 0 elsewhere. q: every row, or the target's. */
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

/* The transpose: each column's v = sum over the source rows of x (n, rows of q, C) */
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

/* Each column's u = rows row[] of x (n, n_x, width), stacked, or averaged over each sequence if mean. row NULL: 0, 1, ... */
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

/* Each column's u from x (n, target rows, width) */
static void reduce_target(const jacobian *j, const target *to, size_t n, const real *x, const column *columns) {
    reduce_rows(j, to, n, x, to->at.n, NULL, columns);
}

/* The transpose: x (n, target rows, width) from each column's u */
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

/* u from x (n, target rows, C), the tangent of the last layer's RESID_POST, which is overwritten */
static ps_code lm_head_jvp(const jacobian *j, const target *to, const runtime *rt, size_t n, real *x, const column *columns,
                           ps_status *st) {
    lm_head_scratch h;
    size_t rows = n * to->at.n;
    if (lm_head_scratch_make(&h, j, to, rt, n, st)) return st->code;
    norm_rows a = final_norm_of(j, to, n);
    if (j->m->final_norm.present) rowwise_norm_jvp(rt, &a, x, x);
    linear(rt, rows, x, j->m->d_model, &j->m->lm_head, NULL, h.z, to->width, h.panel, h.stride);
    lm_head_rows r = {to, h.z};
    runtime_run(rt, rows, 10.0 * (double)rows * (double)to->width, lm_head_jvp_row, &r);
    reduce_target(j, to, n, h.z, columns);
    arena_free(&h.memory);
    return PS_OK;
}

/* The transpose: x (n, target rows, C) from u */
static ps_code lm_head_vjp(const jacobian *j, const target *to, const runtime *rt, size_t n, const column *columns, real *x,
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

/* ---- sweeps ---- */

/* A group of columns in one layer: those of one target in this layer (to), or those whose targets are deeper (to NULL), which
 * pass through the whole layer.
 *
 * A forward sweep adds the columns' v at the source's site and reads u at the target's; a backward sweep adds u at the
 * target's site and reads v at the source's. The sites of a block, in the order of computation:
 *
 *   stream -RESID_PRE- attn -ATTN_OUT- stream + attn -RESID_MID- mlp -DOWN_PROJ- post -MLP_OUT- stream + mlp -RESID_POST-
 *
 * In a parallel block both branches read RESID_PRE and are added after MLP_OUT. `live` is 0 while everything is still zero:
 * forward before the source, backward behind the target. Products of zeros are left out. */
typedef struct {
    const jacobian *j;
    const runtime *rt;
    const target *to;
    const subset *q;  /* rows computed of the layer's output: the target's, or all */
    size_t n, l;
    column *columns;  /* (n) */
    sweep_scratch *s; /* of these columns */
    int live;
    const column *all_columns; /* (n_targets, n) of jacobian_apply_all, else NULL */
} group;

static int source_at(const group *g, site at) { return g->l == g->j->source_layer && g->j->source_site == at; }
static int target_at(const group *g, site at) { /* the LM head is behind every site */
    return g->to && g->to->kind == TARGET_SITE && g->to->site == at;
}

/* The scratch of columns i and up. Only the stream is kept from layer to layer, so only the stream is divided among the groups;
 * they use the other buffers one after the other. */
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

/* Where source or target enter: the other parts of the sum are zero. */
static void zero_branches(const group *g, const subset *q) {
    size_t size = g->n * q->n * g->j->m->d_model * sizeof(real);
    memset(g->s->stream, 0, size);
    memset(g->s->attn, 0, size);
    memset(g->s->mlp, 0, size);
}

/* jacobian_apply_all: every target at this site reads x (n, rows, C). */
static void write_targets(const group *g, site at, const real *x) {
    const jacobian *j = g->j;
    for (size_t i = 0; i < j->n_targets; i++) {
        const target *to = &j->targets[i];
        if (to->kind == TARGET_SITE && to->layer == g->l && to->site == at)
            reduce_rows(j, to, g->n, x, j->b.n_rows, to->at.row, g->all_columns + i * g->n);
    }
}

/* A site of the forward sweep, whose tangent is x: adds the source if it is here. Returns 1 if the target is here. */
static int pass_forward(group *g, site at, const subset *q, real *x) {
    if (source_at(g, at)) {
        zero_branches(g, q);
        inject_source(g->j, q, g->n, g->columns, x);
        g->live = 1;
    }
    if (g->all_columns && g->live) write_targets(g, at, x);
    return target_at(g, at);
}

/* One layer forward. Returns the target's tangent (n, target rows, C) if the target is in this layer, else NULL. `whole`: the
 * sweep is live from RESID_PRE on, so that attention has an input. */
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

/* A site of the backward sweep, whose cotangent is x: adds the target if it is here. Returns 1 if the source is here. */
static int pass_backward(group *g, site at, real *x) {
    if (target_at(g, at)) {
        zero_branches(g, g->q);
        spread_target(g->j, g->to, g->n, g->columns, x);
        g->live = 1;
    }
    return source_at(g, at);
}

/* One layer backward. Returns the source's cotangent if the source is in this layer, else NULL, and in *rows the rows that the
 * cotangent has: those of the output until attention, which spreads it to all. */
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
    if (target_at(g, SITE_RESID_PRE)) { /* enters at the target rows, and the layer before it needs every row */
        pass_backward(g, SITE_RESID_PRE, s->stream);
        rowwise_expand(g->n, j->b.n_rows, g->q->n, g->q->row, j->m->d_model, s->stream);
    }
    return source_at(g, SITE_RESID_PRE) ? s->stream : NULL;
}

/* Sorts by falling layer of the target, then by target: the columns that are live in a layer are then the first ones, and
 * those of a target are neighbours. Insertion sort is stable, and fast for columns that are few and often sorted. */
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

/* End of the columns from i on that have column i's target */
static size_t same_target(const column *columns, size_t i, size_t n) {
    size_t end = i + 1;
    while (end < n && columns[end].target == columns[i].target) end++;
    return end;
}

/* Number of columns, among the first n, whose target is in a layer behind this one */
static size_t deeper_than(const jacobian *j, const column *columns, size_t n, size_t layer) {
    size_t i = 0;
    while (i < n && j->targets[columns[i].target].layer > layer) i++;
    return i;
}

ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st) {
    sort_columns(j, n, columns);
    /* Columns 0..left are on their way: 0..through of them pass through layer l, and through..left end in it, a group for each
     * target. The next layer has left = through. */
    for (size_t l = j->source_layer, left = n; left; l++) {
        size_t through = deeper_than(j, columns, left, l);
        for (size_t i = through, end; i < left; i = end) {
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
    /* From the deepest target's layer down to the source's. Columns 0..on have started: at the head of a layer those are the
     * `through` whose targets are deeper, and they pass through it as one group. Then the columns whose target is in this
     * layer start, a group for each target, and `on` moves behind them; the next layer passes all of them through. */
    for (size_t l = j->targets[columns[0].target].layer, on = 0;; l--) {
        size_t through = on;
        if (through) {
            group g = {j, rt, NULL, &j->all, through, l, columns, s, 1, NULL};
            const real *out = block_backward_sweep(&g, &rows);
            if (out) extract_source(j, rows, g.n, out, g.columns);
        }
        for (size_t end; on < n && j->targets[columns[on].target].layer == l; on = end) {
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
