#include "model/sweep.h"
#include <stdlib.h>
#include <string.h>
#include "model/layer_input.h"
#include "ops/rowwise.h"
#include "model/stream.h"

size_t jacobian_streams(const spec *m, size_t n_rows, size_t n) {
    size_t most = STREAM_BYTES / (n_rows * (m->d_model + carried_width(m)) * sizeof(real)), block = jacobian_block(n_rows, n);
    if (most < block) most = block;
    return n < most ? n : most;
}

size_t jacobian_block(size_t n_rows, size_t n) {
    size_t most = SWEEP_ROWS / n_rows;
    if (most < 1) most = 1;
    return n < most ? n : most;
}

/* ---- one layer ---- */

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
    const column *all_columns; /* (n_targets, n) of jacobian_apply_all, (n_sources, n) of jacobian_apply_t_all, else NULL */
    int per_seq;               /* see jacobian_apply_t_all */
} group;

static int source_at(const group *g, site at) { return g->from && g->from->site == at; }
static int target_at(const group *g, site at) { /* the LM head is behind every site */
    return g->to && g->to->kind == TARGET_SITE && g->to->site == at;
}

static block_call call_of(const group *g) {
    const jacobian *j = g->j;
    return (block_call){.rt = g->rt, .m = j->m, .b = &j->b, .t = g->l >= j->first_taped ? &j->tapes[g->l - j->first_taped] : NULL,
                        .layer = g->l, .q = g->q, .n_t = g->n, .s = g->s, .keys = &j->keys, .from_embedding = j->from_embedding};
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

/* A site of the forward sweep, whose tangent is x: passes the interventions, then adds the source if it is here. Returns 1 if
 * the target is here. */
static int pass_forward(group *g, site at, const subset *q, real *x) {
    if (g->live) hooks_jvp(&g->j->steer, g->l, at, &g->j->b, q, g->n, g->j->m->d_model, x);
    if (source_at(g, at)) {
        zero_branches(g, q);
        inject_source(g->from, q, g->j->m->d_model, g->n, g->columns, x);
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
    if (whole && !out) block_embedding_jvp(&c);
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
    if (g->live) layer_input_jvp(&c);
    return pass_forward(g, SITE_RESID_POST, g->q, s->stream) ? s->stream : NULL;
}

/* jacobian_apply_t_all: every source at this site reads x (n, rows, C). */
static void write_sources(const group *g, site at, const subset *q, const real *x) {
    const jacobian *j = g->j;
    for (size_t i = 0; i < j->n_sources; i++) {
        const source *from = &j->sources[i];
        if (from->layer == g->l && from->site == at && g->all_columns[i * g->n].v)
            extract_source(j, from, q, g->n, x, g->per_seq, g->all_columns + i * g->n);
    }
}

/* A site of the backward sweep, whose cotangent at the rows of q is x: adds the target if it is here, whose rows q then is.
 * Returns 1 if the source is here, which has read x, else passes the interventions. */
static int pass_backward(group *g, site at, const subset *q, real *x) {
    if (target_at(g, at)) {
        zero_branches(g, q);
        spread_target(g->j, g->to, g->n, g->columns, x);
        g->live = 1;
    }
    if (g->all_columns) write_sources(g, at, q, x);
    else if (source_at(g, at)) extract_source(g->j, g->from, q, g->n, x, 0, g->columns);
    int here = source_at(g, at);
    if (g->live && !here) hooks_vjp(&g->j->steer, g->l, at, &g->j->b, q, g->n, g->j->m->d_model, x);
    return here;
}

/* One layer backward, until the source if it is in this layer. The cotangent has the rows of the output until attention, which
 * spreads it to all. */
static void block_backward_sweep(group *g) {
    const jacobian *j = g->j;
    const block_call c = call_of(g);
    sweep_scratch *s = g->s;
    int parallel = j->m->parallel;
    size_t size = g->n * g->q->n * j->m->d_model;
    if (pass_backward(g, SITE_RESID_POST, g->q, s->stream)) return;
    if (g->live) layer_input_vjp(&c);
    if (g->live) memcpy(s->mlp, s->stream, size * sizeof(real));
    if (g->live && parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(g, SITE_MLP_OUT, g->q, s->mlp)) return;
    if (g->live) block_post_mlp_vjp(&c);
    if (pass_backward(g, SITE_DOWN_PROJ, g->q, s->mlp)) return;
    int through_mlp = g->live;
    if (g->live && !(parallel && source_at(g, SITE_ATTN_OUT))) block_mlp_vjp(&c);
    if (pass_backward(g, SITE_RESID_MID, g->q, s->stream)) return;
    if (g->live && !parallel) memcpy(s->attn, s->stream, size * sizeof(real));
    if (pass_backward(g, SITE_ATTN_OUT, g->q, s->attn)) return;
    if (g->live) block_attn_vjp(&c, through_mlp && block_shares_norm(j->m, g->l));
    if (g->live) block_embedding_vjp(&c);
    int enters = target_at(g, SITE_RESID_PRE); /* at the target rows, and the layer before needs every row */
    pass_backward(g, SITE_RESID_PRE, enters ? g->q : &j->all, s->stream);
    if (enters) rowwise_expand(g->n, j->b.n_rows, g->q->n, g->q->row, j->m->d_model, s->stream);
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
    arena_slice table[] = {SLICE(w->live, w->n), SLICE(w->goes_to, w->n),
                           SLICE(w->spare, w->j->b.n_rows, w->j->m->d_model + carried_width(w->j->m))};
    return arena_make(&w->memory, table, COUNT(table), st);
}

static int by_key(const void *a, const void *b) {
    const live_column *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->c.order < y->c.order ? -1 : 1;
}

static void move_part(real *x, size_t size, real *spare, size_t from, size_t to) {
    memcpy(to == NOWHERE ? spare : x + to * size, from == NOWHERE ? spare : x + from * size, size * sizeof(real));
}

/* A column's stream, and what is carried beside it */
static void move_stream(const sweep *w, size_t from, size_t to) {
    const spec *m = w->j->m;
    size_t n = w->j->b.n_rows;
    move_part(w->s->stream, n * m->d_model, w->spare, from, to);
    for (size_t i = 0; i < m->n_carried; i++)
        move_part(sweep_carried(w->s, m, i), n * m->carried[i].width, w->spare + n * (m->d_model + m->carried[i].offset), from, to);
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
    for (size_t i = 0; i < w->n_live; i++) { /* of a column that begins here */
        sweep_scratch at = *w->s;
        at.first = i;
        if (w->live[i].stream == NOWHERE) sweep_carry_nothing(&at, j->m, 1);
    }
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
    part->first = i;
    return (group){.j = j, .rt = w->rt, .from = from, .to = to, .q = to ? &to->at : &j->all, .n = *end - i, .l = l,
                   .columns = columns, .s = part};
}

static ps_code forward_group(group *g, ps_status *st) {
    g->live = !g->from;
    const real *out = block_forward_sweep(g);
    if (!g->to) return PS_OK;
    if (g->to->kind != TARGET_SITE) return lm_head_jvp(g->j, g->to, g->rt, g->n, g->s->stream, g->columns, st);
    reduce_rows(g->j, g->to, g->n, out, g->to->at.n, NULL, g->columns);
    return PS_OK;
}

static ps_code backward_group(group *g, ps_status *st) {
    g->live = !g->to || g->to->kind != TARGET_SITE;
    if (g->to && g->live && lm_head_vjp(g->j, g->to, g->rt, g->n, g->columns, g->s->stream, st)) return st->code;
    block_backward_sweep(g);
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
    sweep_carry_nothing(s, j->m, n);
    for (size_t l = begin; n && l <= j->last_layer; l++) {
        stream_layer(j->m, j->b.n_rows, l > begin ? (ptrdiff_t)l - 1 : NO_LAYER, l < j->last_layer ? (ptrdiff_t)l + 1 : NO_LAYER);
        group g = {.j = j, .rt = rt, .from = l == begin ? &j->sources[from] : NULL, .q = &j->all, .n = n, .l = l,
                   .columns = columns, .s = s, .live = l > begin, .all_columns = columns};
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

ps_code jacobian_apply_t_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t to, size_t n, int per_seq,
                             column *columns, ps_status *st) {
    const target *top = &j->targets[to];
    const source *end = NULL; /* the last one on the way */
    sweep_carry_nothing(s, j->m, n);
    for (size_t i = 0; n && i < j->n_sources; i++) {
        const source *from = &j->sources[i];
        if (columns[i * n].v && (!end || from->layer < end->layer || (from->layer == end->layer && from->site < end->site))) end = from;
    }
    for (size_t l = top->layer + 1; end && l-- > end->layer;) {
        stream_layer(j->m, j->b.n_rows, l < top->layer ? (ptrdiff_t)l + 1 : NO_LAYER, l > end->layer ? (ptrdiff_t)l - 1 : NO_LAYER);
        group g = {.j = j, .rt = rt, .from = l == end->layer ? end : NULL, .to = l == top->layer ? top : NULL,
                   .q = l == top->layer ? &top->at : &j->all, .n = n, .l = l, .columns = columns, .s = s,
                   .all_columns = columns, .per_seq = per_seq};
        if (backward_group(&g, st) || runtime_poll(rt, st)) return st->code;
    }
    return PS_OK;
}
