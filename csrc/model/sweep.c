#include "model/sweep.h"
#include <stdlib.h>
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"
#include "model/stream.h"

size_t jacobian_streams(const spec *m, size_t n_rows, size_t n) {
    size_t most = STREAM_BYTES / (n_rows * m->d_model * sizeof(real)), block = jacobian_block(n_rows, n);
    if (most < block) most = block;
    return n < most ? n : most;
}

size_t jacobian_block(size_t n_rows, size_t n) {
    size_t most = SWEEP_ROWS / n_rows;
    if (most < 1) most = 1;
    return n < most ? n : most;
}

/* ---- the two ends of a sweep ---- */

/* x (n, rows of q, C) = each column's v at the rows of their source, 0 elsewhere. q: every row, or the target's. */
static void inject_source(const subset *at, const subset *q, size_t C, size_t n, const column *columns, real *x) {
    memset(x, 0, n * q->n * C * sizeof(real));
    for (size_t t = 0; t < n; t++)
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < at->n && at->row[s] < q->row[i]) s++;
            if (s < at->n && at->row[s] == q->row[i]) memcpy(x + (t * q->n + i) * C, columns[t].v, C * sizeof(real));
        }
}

/* The transpose: each column's v = sum over the source rows of x (n, rows of q, C) */
static void extract_source(const subset *at, const subset *q, size_t C, size_t n, const real *x, const column *columns) {
    for (size_t t = 0; t < n; t++) {
        memset(columns[t].v, 0, C * sizeof(real));
        for (size_t i = 0, s = 0; i < q->n; i++) {
            while (s < at->n && at->row[s] < q->row[i]) s++;
            if (s < at->n && at->row[s] == q->row[i])
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

/* A group of columns in one layer, which have the same source if it is in this layer (from, else NULL), and the same target
 * if it is (to, else NULL).
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
    const source *from;
    const target *to;
    const subset *q;  /* rows computed of the layer's output: the target's, or all */
    size_t n, l;
    column *columns;  /* (n) */
    sweep_scratch *s; /* of these columns */
    int live;
    const column *all_columns; /* (n_targets, n) of jacobian_apply_all, else NULL */
} group;

static int source_at(const group *g, site at) { return g->from && g->from->site == at; }
static int target_at(const group *g, site at) { /* the LM head is behind every site */
    return g->to && g->to->kind == TARGET_SITE && g->to->site == at;
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
        if (to->kind == TARGET_SITE && to->layer == g->l && to->site == at && g->all_columns[i * g->n].u)
            reduce_rows(j, to, g->n, x, j->b.n_rows, to->at.row, g->all_columns + i * g->n);
    }
}

/* A site of the forward sweep, whose tangent is x: adds the source if it is here. Returns 1 if the target is here. */
static int pass_forward(group *g, site at, const subset *q, real *x) {
    if (source_at(g, at)) {
        zero_branches(g, q);
        inject_source(&g->from->at, q, g->j->m->d_model, g->n, g->columns, x);
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

/* ---- columns on their way ---- */

static const size_t NOWHERE = (size_t)-1;

/* A column that is live in the present layer. Columns of a group are neighbours, and so are their streams. */
typedef struct {
    column c;
    size_t key;    /* of its group in this layer */
    size_t stream; /* index, NOWHERE before the column has one */
} live_column;

typedef struct {
    const jacobian *j;
    const runtime *rt;
    sweep_scratch *s;
    size_t n, n_live;
    const column *columns; /* (n) */
    live_column *live;     /* (n) in the order of their streams */
    size_t *goes_to;       /* (n) for move_streams */
    real *spare;           /* a stream */
    arena memory;
} sweep;

static size_t source_layer(const sweep *w, const column *c) { return w->j->sources[c->source].layer; }
static size_t target_layer(const sweep *w, const column *c) { return w->j->targets[c->target].layer; }

static ps_code sweep_make(sweep *w, ps_status *st) {
    arena_slice table[] = {SLICE(w->live, w->n), SLICE(w->goes_to, w->n), SLICE(w->spare, w->j->b.n_rows, w->j->m->d_model)};
    return arena_make(&w->memory, table, COUNT(table), st);
}

static int by_key(const void *a, const void *b) {
    const live_column *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->c.order < y->c.order ? -1 : 1;
}

static void move_stream(const sweep *w, size_t from, size_t to) {
    size_t size = w->j->b.n_rows * w->j->m->d_model;
    real *x = w->s->stream;
    memcpy(to == NOWHERE ? w->spare : x + to * size, from == NOWHERE ? w->spare : x + from * size, size * sizeof(real));
}

/* Moves the streams into the order of w->live. A stream whose place nobody needs starts a chain of moves; what is left then are
 * cycles. */
static void move_streams(sweep *w) {
    live_column *live = w->live;
    for (size_t i = 0; i < w->n; i++) w->goes_to[i] = NOWHERE;
    for (size_t i = 0; i < w->n_live; i++)
        if (live[i].stream != NOWHERE) w->goes_to[live[i].stream] = i;
    for (int cycles = 0; cycles < 2; cycles++)
        for (size_t i = 0; i < w->n_live; i++) {
            if (live[i].stream == NOWHERE || live[i].stream == i || (!cycles && w->goes_to[i] != NOWHERE)) continue;
            if (cycles) move_stream(w, i, NOWHERE);
            size_t to = i;
            for (size_t from; to < w->n_live && (from = live[to].stream) != NOWHERE && from != to && !(cycles && from == i); to = from) {
                move_stream(w, from, to);
                w->goes_to[from] = NOWHERE;
                live[to].stream = to;
            }
            if (!cycles) continue;
            move_stream(w, NOWHERE, to);
            live[to].stream = to;
        }
}

/* Arranges the columns of layer l: those that are live already, and those that begin here, at their source in a forward sweep,
 * at their target in a backward one. */
static void arrange(sweep *w, size_t l, int forward) {
    const jacobian *j = w->j;
    for (size_t i = 0; i < w->n; i++) {
        const column *c = &w->columns[i];
        if ((forward ? source_layer(w, c) : target_layer(w, c)) == l)
            w->live[w->n_live++] = (live_column){*c, 0, NOWHERE};
    }
    for (size_t i = 0; i < w->n_live; i++) {
        const column *c = &w->live[i].c;
        size_t from = source_layer(w, c) == l ? c->source + 1 : 0, to = target_layer(w, c) == l ? c->target + 1 : 0;
        w->live[i].key = from * (j->n_targets + 1) + to;
    }
    qsort(w->live, w->n_live, sizeof *w->live, by_key);
    move_streams(w);
}

/* Drops the columns that have ended in layer l. */
static void drop_ended(sweep *w, size_t l, int forward) {
    size_t left = 0;
    for (size_t i = 0; i < w->n_live; i++) {
        live_column x = w->live[i];
        if ((forward ? target_layer(w, &x.c) : source_layer(w, &x.c)) == l) continue;
        x.stream = i;
        w->live[left++] = x;
    }
    w->n_live = left;
}

/* The group of live columns from i on, or an even part of one that the scratch does not hold; *end: the column behind it.
 * columns: room for it */
static group group_from(const sweep *w, size_t l, size_t i, size_t *end, sweep_scratch *part, column *columns) {
    const jacobian *j = w->j;
    const column *c = &w->live[i].c;
    const source *from = source_layer(w, c) == l ? &j->sources[c->source] : NULL;
    const target *to = target_layer(w, c) == l ? &j->targets[c->target] : NULL;
    size_t n = 1;
    while (i + n < w->n_live && w->live[i + n].key == w->live[i].key) n++;
    size_t parts = (n + w->s->n_t - 1) / w->s->n_t;
    *end = i + (n + parts - 1) / parts;
    for (size_t k = i; k < *end; k++) columns[k - i] = w->live[k].c;
    *part = *w->s; /* only the stream is kept from layer to layer; groups use the other buffers one after the other */
    part->stream += i * j->b.n_rows * j->m->d_model;
    return (group){j, w->rt, from, to, to ? &to->at : &j->all, *end - i, l, columns, part, 0, NULL};
}

static ps_code forward_group(group *g, ps_status *st) {
    g->live = !g->from;
    const real *out = block_forward_sweep(g);
    if (!g->to) return PS_OK;
    if (g->to->kind != TARGET_SITE) return lm_head_jvp(g->j, g->to, g->rt, g->n, g->s->stream, g->columns, st);
    reduce_target(g->j, g->to, g->n, out, g->columns);
    return PS_OK;
}

static ps_code backward_group(group *g, ps_status *st) {
    const subset *rows;
    g->live = !g->to || g->to->kind != TARGET_SITE;
    if (g->to && g->live && lm_head_vjp(g->j, g->to, g->rt, g->n, g->columns, g->s->stream, st)) return st->code;
    const real *out = block_backward_sweep(g, &rows);
    if (out) extract_source(&g->from->at, rows, g->j->m->d_model, g->n, out, g->columns);
    return PS_OK;
}

/* One sweep. Every layer is visited once: its columns pass through it, a group at a time. */
static ps_code run_sweep(sweep *w, int forward, ps_status *st) {
    size_t first = w->j->m->n_layers, last = 0, begun = 0;
    column *columns = NULL;
    for (size_t i = 0; i < w->n; i++) {
        if (source_layer(w, &w->columns[i]) < first) first = source_layer(w, &w->columns[i]);
        if (target_layer(w, &w->columns[i]) > last) last = target_layer(w, &w->columns[i]);
    }
    arena memory = {0};
    arena_slice table[] = {SLICE(columns, w->s->n_t)};
    if (sweep_make(w, st) || arena_make(&memory, table, COUNT(table), st)) goto done;
    for (size_t step = 0; step <= last - first && w->n; step++) {
        size_t l = forward ? first + step : last - step;
        ptrdiff_t on = forward ? 1 : -1;
        arrange(w, l, forward);
        if (w->n_live) {
            stream_layer(w->j->m, w->j->b.n_rows, begun ? (ptrdiff_t)l - on : NO_LAYER, step < last - first ? (ptrdiff_t)l + on : NO_LAYER);
            begun = 1;
        }
        for (size_t i = 0, end; i < w->n_live; i = end) {
            sweep_scratch part;
            group g = group_from(w, l, i, &end, &part, columns);
            if ((forward ? forward_group : backward_group)(&g, st) || runtime_poll(w->rt, st)) goto done;
        }
        drop_ended(w, l, forward);
    }
done:
    arena_free(&memory);
    arena_free(&w->memory);
    return st->code;
}

ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const column *columns, ps_status *st) {
    return run_sweep(&(sweep){.j = j, .rt = rt, .s = s, .n = n, .columns = columns}, 1, st);
}

ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const column *columns, ps_status *st) {
    return run_sweep(&(sweep){.j = j, .rt = rt, .s = s, .n = n, .columns = columns}, 0, st);
}

ps_code jacobian_apply_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t from, size_t n, column *columns,
                           ps_status *st) {
    size_t begin = j->sources[from].layer;
    for (size_t l = begin; n && l <= j->last_layer; l++) {
        stream_layer(j->m, j->b.n_rows, l > begin ? (ptrdiff_t)l - 1 : NO_LAYER, l < j->last_layer ? (ptrdiff_t)l + 1 : NO_LAYER);
        group g = {j, rt, l == begin ? &j->sources[from] : NULL, NULL, &j->all, n, l, columns, s, l > begin, columns};
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
