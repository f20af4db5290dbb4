#include "model/jacobian.h"
#include <string.h>
#include "ops/rowwise.h"
#include "base/reduce.h"

/* base of a logits or next-token target, from the residual stream (n_rows, C); work (n_rows, C) */
static ps_code record_logits(const jacobian *j, const runtime *rt, target *t, const real *stream, real *work, ps_status *st) {
    size_t n = t->at.n, V = t->width;
    rowwise_gather(1, j->b.n_rows, n, t->at.row, j->m->d_model, stream, work);
    if (lm_head_forward(rt, j->m, n, work, &t->lm_head, t->base, st)) return st->code;
    for (size_t i = 0; t->kind == TARGET_NEXT_TOKEN && i < n; i++) { /* softmax */
        real *p = t->base + i * V, top = reduce_max(V, p);
        for (size_t k = 0; k < V; k++) p[k] = FN(exp)(p[k] - top);
        real total = 1 / reduce_sum(V, p);
        for (size_t k = 0; k < V; k++) p[k] *= total;
    }
    return PS_OK;
}

/* Mean 2-norm of the rows */
static real mean_norm(const subset *at, size_t C, const real *x) {
    double total = 0;
    for (size_t i = 0; i < at->n; i++) {
        double square = 0;
        for (size_t c = 0; c < C; c++) square += (double)x[at->row[i] * C + c] * (double)x[at->row[i] * C + c];
        total += sqrt(square);
    }
    return (real)(total / (double)at->n);
}

/* Buffers of the taped forward pass */
typedef struct {
    real *x, *work; /* (n, C) each */
    real *captured; /* (n_sources + n_targets, n, C) the sources' activations, then the targets' */
    capture *captures;
    arena memory;
} record_buffers;

static ps_code record_make_or_count(record_buffers *r, const spec *m, size_t n, size_t n_ends, size_t *bytes, ps_status *st) {
    size_t C = m->d_model;
    arena_slice table[] = {SLICE(r->x, n, C), SLICE(r->work, n, C), SLICE(r->captured, n_ends, n, C), SLICE(r->captures, n_ends)};
    return arena_make_or_count(&r->memory, table, COUNT(table), bytes, st);
}

ps_code record_count(const spec *m, size_t n, size_t n_ends, size_t *bytes, ps_status *st) {
    return record_make_or_count(&(record_buffers){0}, m, n, n_ends, bytes, st);
}

/* The forward pass: tapes the layers and captures the activations at the sources and the targets. */
static ps_code record(jacobian *j, const runtime *rt, ps_status *st) {
    const spec *m = j->m;
    size_t n = j->b.n_rows, C = m->d_model, n_ends = j->n_sources + j->n_targets;
    record_buffers r = {0};
    if (record_make_or_count(&r, m, n, n_ends, NULL, st)) return st->code;
    real *x = r.x, *captured = r.captured;
    capture *captures = r.captures;
    hooks v = {j->steer.steer, j->steer.n_steer, captures, n_ends};
    for (size_t i = 0; i < j->n_sources; i++) captures[i] = (capture){j->sources[i].layer, j->sources[i].site, captured + i * n * C};
    for (size_t i = 0, e = j->n_sources; i < j->n_targets; i++, e++) /* of logits: the last layer's RESID_POST */
        captures[e] = (capture){j->targets[i].layer, j->targets[i].site, captured + e * n * C};
    forward_plan plan = {.hooks = &v, .n_layers = j->last_layer + 1, .first_taped = j->first_taped, .tapes = j->tapes};
    if (m->shares_keys) {
        if (forward_keys_make(&j->keys, m, &j->b, st)) goto done;
        plan.cache = &j->keys;
    }
    if (forward_stream(rt, m, &j->b, &plan, x, st)) goto done;
    for (size_t i = 0; i < j->n_sources; i++) j->sources[i].norm = mean_norm(&j->sources[i].at, C, captures[i].out);
    for (size_t i = 0; i < j->n_targets; i++) {
        target *t = &j->targets[i];
        const real *out = captures[j->n_sources + i].out;
        if (t->kind == TARGET_SITE) rowwise_gather(1, n, t->at.n, t->at.row, C, out, t->base);
        else if (record_logits(j, rt, t, out, r.work, st)) goto done;
    }
done:
    arena_free(&r.memory);
    return st->code;
}

static ps_code target_make_or_count(target *t, const spec *m, size_t n, size_t *bytes, ps_status *st) {
    size_t n_logits = t->kind != TARGET_SITE ? n : 0;
    arena_slice table[] = {SLICE(t->base, n, t->width), SLICE(t->lm_head.xhat, n_logits, m->d_model),
                           SLICE(t->lm_head.r, n_logits), SLICE(t->lm_head.slope, n_logits, m->n_vocab)};
    return arena_make_or_count(&t->memory, table, COUNT(table), bytes, st);
}

static size_t target_width(const spec *m, target_kind kind) { return kind == TARGET_SITE ? m->d_model : m->n_vocab; }

ps_code target_count(const spec *m, target_kind kind, size_t n, size_t *bytes, ps_status *st) {
    return target_make_or_count(&(target){.kind = kind, .width = target_width(m, kind)}, m, n, bytes, st);
}

static ps_code target_make(target *t, const jacobian *j, const target_plan *plan, ps_status *st) {
    int lm_head = plan->kind != TARGET_SITE;
    t->kind = plan->kind;
    t->mean = plan->mean;
    t->layer = lm_head ? j->m->n_layers - 1 : plan->layer;
    t->site = lm_head ? SITE_RESID_POST : plan->site;
    t->width = target_width(j->m, plan->kind);
    if (subset_make(&t->at, &j->b, plan->positions, plan->n_positions, st)
        || size_mul(t->mean ? j->b.n_seq : t->at.n, t->width, &t->rows, st))
        return st->code;
    return target_make_or_count(t, j->m, t->at.n, NULL, st);
}

size_t jacobian_first_taped(const spec *m, size_t layer, site at) {
    return layer + (at >= (m->layer[layer].in_gate.data ? SITE_RESID_POST : SITE_MLP_OUT));
}

ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const hooks *steer, const jacobian_plan *plan, ps_status *st) {
    j->m = m;
    j->steer = *steer;
    j->first_taped = m->n_layers;
    for (size_t i = 0; i < plan->n_sources; i++) {
        size_t first = jacobian_first_taped(m, plan->sources[i].layer, plan->sources[i].site);
        j->from_embedding |= plan->sources[i].layer == 0 && plan->sources[i].site == SITE_RESID_PRE;
        if (first < j->first_taped) j->first_taped = first;
    }
    for (size_t i = 0; i < plan->n_targets; i++) {
        size_t layer = plan->targets[i].kind == TARGET_SITE ? plan->targets[i].layer : m->n_layers - 1;
        if (layer > j->last_layer) j->last_layer = layer;
    }
    if (batch_make(&j->b, m, n_seq, tokens, length, NULL, NULL, st) || subset_make(&j->all, &j->b, NULL, NULL, st))
        return st->code;
    size_t n_tapes = j->last_layer + 1 - j->first_taped; /* 0 if sources and targets are behind the last block's MLP */
    arena_slice table[] = {SLICE(j->tapes, n_tapes), SLICE(j->sources, plan->n_sources), SLICE(j->targets, plan->n_targets)};
    if (arena_make(&j->memory, table, COUNT(table), st)) return st->code;
    memset(j->tapes, 0, n_tapes * sizeof *j->tapes);
    memset(j->sources, 0, plan->n_sources * sizeof *j->sources);
    memset(j->targets, 0, plan->n_targets * sizeof *j->targets);
    j->n_sources = plan->n_sources;
    j->n_targets = plan->n_targets;
    for (size_t i = 0; i < j->n_sources; i++) {
        const source_plan *from = &plan->sources[i];
        j->sources[i].layer = from->layer;
        j->sources[i].site = from->site;
        if (subset_make(&j->sources[i].at, &j->b, from->positions, from->n_positions, st)) return st->code;
    }
    for (size_t i = 0; i < j->n_targets; i++)
        if (target_make(&j->targets[i], j, &plan->targets[i], st)) return st->code;
    return record(j, rt, st);
}

static void target_free(target *t) {
    subset_free(&t->at);
    arena_free(&t->memory);
}

void jacobian_free(jacobian *j) {
    if (j->memory.base)
        for (size_t l = j->first_taped; l <= j->last_layer; l++) tape_free(&j->tapes[l - j->first_taped]);
    for (size_t i = 0; i < j->n_sources; i++) subset_free(&j->sources[i].at);
    for (size_t i = 0; i < j->n_targets; i++) target_free(&j->targets[i]);
    batch_free(&j->b);
    cache_free(&j->keys);
    subset_free(&j->all);
    arena_free(&j->memory);
}

size_t jacobian_bytes(const jacobian *j) {
    size_t bytes = j->memory.bytes + j->b.memory.bytes + j->all.memory.bytes + j->keys.memory.bytes;
    for (size_t i = 0; i < j->n_sources; i++) bytes += j->sources[i].at.memory.bytes;
    for (size_t i = 0; i < j->n_targets; i++) bytes += j->targets[i].at.memory.bytes + j->targets[i].memory.bytes;
    for (size_t l = j->first_taped; l <= j->last_layer; l++)
        bytes += j->tapes[l - j->first_taped].memory.bytes + j->tapes[l - j->first_taped].moe.memory.bytes;
    return bytes;
}
