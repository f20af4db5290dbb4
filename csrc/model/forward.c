#include "model/forward.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/norm.h"
#include "ops/rowwise.h"
#include "base/reduce.h"
#include "model/stream.h"

/* x (n_rows, C) = token embeddings, scaled, plus position embeddings, normalised if the model does so. row (C): scratch */
static void embed(cpu_isa isa, const spec *m, const batch *b, real *x, real *row) {
    size_t C = m->d_model;
    for (size_t r = 0; r < b->n_rows; r++) {
        weight_row(isa, &m->embed, (size_t)b->token[r], x + r * C);
        if (m->embed_scale != 1)
            for (size_t c = 0; c < C; c++) x[r * C + c] *= (real)m->embed_scale;
        if (m->pos_embed.data) {
            weight_row(isa, &m->pos_embed, (size_t)b->pos[r], row);
            for (size_t c = 0; c < C; c++) x[r * C + c] += row[c];
        }
        real size;
        if (m->embed_norm.present)
            norm_forward(m->norm, m->norm_eps, C, x + r * C, m->embed_norm.gain, m->embed_norm.bias, row, &size, x + r * C);
    }
}

ps_code forward_keys_make(cache *c, const spec *m, const batch *b, ps_status *st) {
    arena memory = {0};
    size_t *lengths;
    arena_slice table[] = {SLICE(lengths, b->n_seq)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    for (size_t s = 0; s < b->n_seq; s++) lengths[s] = b->row0[s + 1] - b->row0[s];
    cache_make(c, m, CACHE_PASS, b->n_seq, lengths, st);
    arena_free(&memory);
    return st->code;
}

ps_code forward_keys_count(const spec *m, const batch *shape, size_t *bytes, ps_status *st) {
    return shape->n_seq < 2 && !m->shares_keys ? PS_OK : cache_count(m, CACHE_PASS, shape->n_seq, shape->n_rows, bytes, st);
}

ps_code forward_stream(const runtime *rt, const spec *m, const batch *b, const forward_plan *plan, real *x, ps_status *st) {
    block_scratch s = {0};
    sharing g = {0};
    cache keys = {0}; /* where the caller has none, and a layer's tape does not hold all that its queries see */
    tape once = {0};  /* for the layers that are not taped, one after the other: a forward pass writes to a tape in any case */
    if (!plan->tapes && !rt->few_rows && sharing_make(&g, m, b, plan->hooks, st)) goto done;
    if (!plan->cache && (m->shares_keys || sharing_saves(&g)) && forward_keys_make(&keys, m, b, st)) goto done;
    if (block_scratch_make(&s, m, b, thread_pool_threads(rt->pool), st)) goto done;
    if (plan->first_taped > 0 && tape_make(&once, m, m->n_layers, b->n_rows, st)) goto done;
    if (plan->cache) cache_begin_pass(plan->cache, b);
    const batch *now = sharing_enter(&g, b, 0, x, NULL); /* the rows of this layer */
    embed(rt->isa, m, now, x, s.normed);
    for (size_t l = 0; l < plan->n_layers; l++) {
        now = sharing_enter(&g, b, l, x, m->d_input ? s.embedding : NULL);
        stream_layer(m, now->n_rows, (ptrdiff_t)l - 1, l + 1 < plan->n_layers || l + 1 == m->n_layers ? (ptrdiff_t)l + 1 : NO_LAYER);
        tape *t = l < plan->first_taped ? &once : &plan->tapes[l - plan->first_taped];
        if (t != &once && tape_make(t, m, l, b->n_rows, st)) goto done;
        cache *c = plan->cache ? plan->cache : m->shares_keys || now != b ? &keys : NULL;
        if (block_forward(rt, m, l, now, c, t, &s, plan->hooks, x, st)) goto done;
        if (plan->n_computed) *plan->n_computed += now->n_rows;
    }
    if (plan->cache) cache_end_pass(plan->cache, b);
    batch_spread(now, m->d_model, x, x);
    for (size_t r = 0; plan->same && r < b->n_rows; r++) plan->same[r] = now == b ? r : now->of[r];
done:
    tape_free(&once);
    cache_free(&keys);
    block_scratch_free(&s);
    sharing_free(&g);
    return st->code;
}

typedef struct {
    const spec *m;
    real *slope, *logits;
} cap_task_ctx;

/*  logits = c tanh(s z / c)
 * dlogits = s (1 - tanh^2) dz,  in place for one row */
static void cap_row(void *ctx, size_t i, int worker) {
    const cap_task_ctx *c = ctx;
    size_t V = c->m->n_vocab;
    real scale = (real)c->m->logit_scale, cap = (real)c->m->logit_softcap;
    real *z = c->logits + i * V, *slope = c->slope ? c->slope + i * V : NULL;
    (void)worker;
    for (size_t j = 0; j < V; j++) {
        real t = 0;
        z[j] *= scale;
        if (cap > 0) {
            t = FN(tanh)(z[j] / cap);
            z[j] = cap * t;
        }
        if (slope) slope[j] = scale * (1 - t * t);
    }
}

static ps_code lm_head_make_or_count(arena *memory, const spec *m, size_t n, int threads, real **xhat, real **r, real **panel,
                                     size_t *bytes, ps_status *st) {
    arena_slice table[] = {SLICE(*xhat, n, m->d_model), SLICE(*r, n), SLICE(*panel, (size_t)threads, linear_scratch(&m->lm_head))};
    return arena_make_or_count(memory, table, COUNT(table), bytes, st);
}

ps_code lm_head_count(const spec *m, size_t n, int threads, size_t *bytes, ps_status *st) {
    real *xhat, *r, *panel;
    return lm_head_make_or_count(NULL, m, n, threads, &xhat, &r, &panel, bytes, st);
}

ps_code lm_head_forward(const runtime *rt, const spec *m, size_t n, real *x, const lm_head_tape *t, real *logits, ps_status *st) {
    arena memory = {0};
    real *xhat, *r, *panel;
    size_t C = m->d_model, stride = linear_scratch(&m->lm_head);
    if (lm_head_make_or_count(&memory, m, n, thread_pool_threads(rt->pool), &xhat, &r, &panel, NULL, st)) return st->code;
    if (m->final_norm.present) {
        norm_rows a = {.kind = m->norm, .eps = m->norm_eps, .width = C, .groups = 1, .gain = m->final_norm.gain,
                       .bias = m->final_norm.bias, .xhat = t->xhat ? t->xhat : xhat, .r = t->r ? t->r : r,
                       .n_t = 1, .n = n, .scale = 1};
        rowwise_norm_forward(rt, &a, x, x);
    }
    linear(rt, n, x, C, &m->lm_head, m->lm_head_bias, logits, m->n_vocab, panel, stride);
    arena_free(&memory);
    if (m->logit_scale != 1 || m->logit_softcap > 0 || t->slope) {
        cap_task_ctx c = {m, t->slope, logits};
        runtime_run(rt, n, 10.0 * (double)n * (double)m->n_vocab, cap_row, &c);
    }
    if (runtime_poll(rt, st)) return st->code;
    for (size_t i = 0; i < n; i++)
        if (!reduce_finite(m->n_vocab, logits + i * m->n_vocab))
            return ps_fail(st, PS_ERR_NONFINITE, "the logits are not finite: NaN or infinity in the head's weights, or "
                           "activations beyond the range of this dtype");
    return PS_OK;
}

ps_code lm_head_last(const runtime *rt, const spec *m, const batch *b, const size_t *count, const size_t *same, real *x,
                     real *logits, ps_status *st) {
    const size_t none = SIZE_MAX;
    size_t C = m->d_model, V = m->n_vocab, n = 0, differ = 0, *number, *of;
    arena memory = {0};
    for (size_t s = 0; s < b->n_seq; s++) n += count[s];
    arena_slice table[] = {SLICE(number, b->n_rows), SLICE(of, n)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    for (size_t r = 0; r < b->n_rows; r++) number[r] = none;
    for (size_t s = 0, i = 0; s < b->n_seq; s++)
        for (size_t r = b->row0[s + 1] - count[s]; r < b->row0[s + 1]; r++, i++) {
            size_t *k = &number[same[r]];
            if (*k == none) {
                memmove(x + differ * C, x + r * C, C * sizeof(real));
                *k = differ++;
            }
            of[i] = *k;
        }
    if (!lm_head_forward(rt, m, differ, x, &(lm_head_tape){0}, logits, st))
        for (size_t i = n; i-- > 0;) /* descending, and of[i] <= i: none is overwritten before it is read */
            if (of[i] != i) memcpy(logits + i * V, logits + of[i] * V, V * sizeof(real));
    arena_free(&memory);
    return st->code;
}
