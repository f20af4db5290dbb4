#include "model/latent_heads.h"
#include "kernels/linear.h"
#include "ops/latent.h"
#include "ops/rowwise.h"

/* ---- arguments of the ops ---- */

static norm_rows norm_of(const spec *m, const norm *w, size_t width, size_t ld, real *xhat, real *r, const size_t *map, size_t n_t, size_t n) {
    return (norm_rows){.kind = NORM_RMS, .eps = m->latent_eps, .width = width, .groups = 1, .ld = ld, .gain = w->gain, .bias = w->bias,
                       .xhat = xhat, .r = r, .map = map, .n_t = n_t, .n = n, .scale = 1};
}

static norm_rows q_norm_of(const spec *m, size_t layer, const tape *t, const size_t *map, size_t n_t, size_t n) {
    return norm_of(m, &m->layer[layer].q_a_norm, m->q_rank, 0, t->xhat_q, t->r_q, map, n_t, n);
}

static norm_rows kv_norm_of(const spec *m, size_t layer, const tape *t, size_t n_t, size_t n) {
    return norm_of(m, &m->layer[layer].kv_norm, m->kv_rank, latent_key(m), t->xhat_k, t->r_k, NULL, n_t, n);
}

/* Rotates the last rope_dim of each head of width `width`: of the queries q, at the rows map, and of the keys k, at all rows. */
static void rotate(const runtime *rt, const spec *m, size_t layer, const batch *b, const size_t *map, size_t n_t, size_t n_q, int inverse,
                   real *q, real *k) {
    if (m->layer[layer].rope < 0) return;
    size_t at = (size_t)m->layer[layer].rope * b->n_rows * (m->rope_dim / 2);
    rope_rows rows = {.style = m->rope_style, .rope_dim = m->rope_dim, .head_dim = m->head_dim, .n_heads = m->n_heads,
                      .cosine = b->cosine + at, .sine = b->sine + at, .map = map, .n_t = n_t, .n = n_q};
    rowwise_rope(rt, &rows, inverse, q + m->head_dim - m->rope_dim);
    rows.head_dim = latent_key(m);
    rows.n_heads = 1;
    rows.map = NULL;
    rows.n = b->n_rows;
    rowwise_rope(rt, &rows, inverse, k + m->kv_rank);
}

static attention attention_of(const spec *m, size_t layer, size_t n_seq, const attention_seq *seq, const real *q, const int *pos,
                              real *scratch, size_t stride) {
    const layer_spec *y = &m->layer[layer];
    return (attention){.n_heads = m->n_heads, .n_kv_heads = 1, .head_dim = latent_key(m), .value_dim = m->kv_rank, .window = y->window,
                       .chunk = y->chunk, .scale = (real)y->attn_scale, .softcap = (real)m->attn_softcap, .sinks = y->sinks, .n_seq = n_seq, .seq = seq,
                       .q = q, .ldq = latent_queries(m), .pos = pos, .scratch = scratch, .scratch_stride = stride};
}

/* ---- forward ---- */

/* Writes what heads see of the rows to where it is captured, and runs the hooks on it. */
static void run_key_hooks(const latent_call *l, const hooks *v, size_t layer, site at, const batch *b, const real *k) {
    real *out = hooks_captured(v, layer, at);
    if (!out) return;
    latent_keys(l, b->n_rows, k, at == READ_V ? NULL : out, at == READ_V ? out : NULL);
    run_hooks(v, layer, at, b, at == READ_V ? latent_values(l->m) : latent_raw(l->m), out);
}

void latent_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t, block_scratch *s,
                    const hooks *v, const real *in) {
    const layer_spec *y = &m->layer[layer];
    const latent_call l = {rt, m, &y->kv_b, s->panel, s->panel_stride};
    size_t n = b->n_rows, WK = latent_key(m);
    const real *low = in;
    if (m->q_rank) {
        norm_rows a = q_norm_of(m, layer, t, NULL, 1, n);
        linear(rt, n, in, m->d_model, &y->q_a, y->q_a_bias, s->low, m->q_rank, s->panel, s->panel_stride);
        rowwise_norm_forward(rt, &a, s->low, s->low);
        low = s->low;
    }
    linear(rt, n, low, y->q.n_in, &y->q, y->q_bias, s->raw, latent_raw(m), s->panel, s->panel_stride);
    linear(rt, n, in, m->d_model, &y->k, y->k_bias, t->k, WK, s->panel, s->panel_stride);
    norm_rows a = kv_norm_of(m, layer, t, 1, n);
    rowwise_norm_forward(rt, &a, t->k, t->k);
    run_hooks(v, layer, READ_Q, b, latent_raw(m), s->raw);
    run_key_hooks(&l, v, layer, READ_K, b, t->k);
    run_key_hooks(&l, v, layer, READ_V, b, t->k);
    rotate(rt, m, layer, b, NULL, 1, n, 0, s->raw, t->k);
    run_hooks(v, layer, READ_ROT_Q, b, latent_raw(m), s->raw);
    run_key_hooks(&l, v, layer, READ_ROT_K, b, t->k);
    latent_absorb(&l, n, s->raw, t->q);
    if (c) cache_write(c, layer, b, t->k, t->k);
    for (size_t i = 0; i < b->n_seq; i++) {
        size_t r = b->row0[i], end = b->row0[i + 1];
        const real *k = c ? cache_k(c, layer, (size_t)b->id[i]) : t->k + r * WK;
        s->seq[i] = (attention_seq){.k = k, .v = k, .n_keys = (size_t)b->pos[end - 1] + 1, .ld = WK, .q0 = r, .q1 = end, .key0 = r};
    }
    attention heads = attention_of(m, layer, b->n_seq, s->seq, t->q, b->pos, s->head_scratch, s->head_stride);
    heads.panel = s->panel;
    heads.panel_stride = s->panel_stride;
    heads.pattern = hooks_captured(v, layer, READ_PATTERN);
    heads.ldp = b->max_keys;
    attention_forward(rt, &heads, s->raw, latent_sums(m));
    run_hooks(v, layer, READ_PATTERN, b, m->n_heads * heads.ldp, heads.pattern);
    latent_expand(&l, n, s->raw, s->heads);
    run_hooks(v, layer, READ_Z, b, latent_values(m), s->heads);
}

/* ---- derivatives ---- */

static void lin(const block_call *c, size_t rows, const real *X, const weight *W, real *Y) {
    linear(c->rt, rows, X, W->n_in, W, NULL, Y, W->n_out, c->s->panel, c->s->panel_stride);
}

static void lin_t(const block_call *c, size_t rows, const real *Y, const weight *W, real beta, real *X) {
    linear_t(c->rt, rows, Y, W->n_out, W, beta, X, W->n_in, c->s->panel, c->s->panel_stride);
}

/* The taped attention with the queries of the subset, which are copied to s->taped_q unless they are all. */
static attention taped_attention(const block_call *c) {
    const batch *b = c->b;
    size_t WK = latent_key(c->m);
    for (size_t i = 0; i < b->n_seq; i++) {
        size_t r = b->row0[i];
        const real *k = c->t->k + r * WK;
        c->s->seq[i] = (attention_seq){.k = k, .v = k, .n_keys = b->row0[i + 1] - r, .ld = WK, .q0 = c->q->row0[i], .q1 = c->q->row0[i + 1],
                                       .key0 = r};
    }
    const real *q = c->t->q;
    if (c->q->n != b->n_rows) {
        rowwise_gather(1, b->n_rows, c->q->n, c->q->row, latent_queries(c->m), c->t->q, c->s->taped_q);
        q = c->s->taped_q;
    }
    return attention_of(c->m, c->layer, b->n_seq, c->s->seq, q, c->q->pos, c->s->head_scratch, c->s->head_stride);
}

static latent_call call_of(const block_call *c) {
    return (latent_call){c->rt, c->m, &c->m->layer[c->layer].kv_b, c->s->panel, c->s->panel_stride};
}

void latent_jvp(const block_call *c, const real *in) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const latent_call l = call_of(c);
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, rows = c->n_t * Q;
    norm_rows of_k = kv_norm_of(m, c->layer, c->t, c->n_t, n), of_q = q_norm_of(m, c->layer, c->t, c->q->row, c->n_t, Q);
    lin(c, c->n_t * n, in, &y->k, s->dk);
    rowwise_norm_jvp(c->rt, &of_k, s->dk, s->dk);
    if (Q != n) { /* keys of every row, queries of the subset */
        rowwise_gather(c->n_t, n, Q, c->q->row, m->d_model, in, s->attn);
        in = s->attn;
    }
    if (m->q_rank) {
        lin(c, rows, in, &y->q_a, s->low);
        rowwise_norm_jvp(c->rt, &of_q, s->low, s->low);
        in = s->low;
    }
    lin(c, rows, in, &y->q, s->raw);
    rotate(c->rt, m, c->layer, c->b, c->q->row, c->n_t, Q, 0, s->raw, s->dk);
    latent_absorb(&l, rows, s->raw, s->dq);
    attention a = taped_attention(c);
    attention_jvp(c->rt, &a, c->n_t, Q, n, s->dq, s->dk, s->dk, s->raw);
    latent_expand(&l, rows, s->raw, s->heads);
}

void latent_vjp(const block_call *c, int add) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const latent_call l = call_of(c);
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, rows = c->n_t * Q;
    real *at_q = Q == n ? s->normed : s->attn; /* the cotangent at the rows of the subset */
    norm_rows of_k = kv_norm_of(m, c->layer, c->t, c->n_t, n), of_q = q_norm_of(m, c->layer, c->t, c->q->row, c->n_t, Q);
    latent_expand_t(&l, rows, s->heads, s->raw);
    attention a = taped_attention(c);
    attention_vjp(c->rt, &a, c->n_t, Q, n, s->raw, s->dq, s->dk, s->dk);
    latent_absorb_t(&l, rows, s->dq, s->raw);
    rotate(c->rt, m, c->layer, c->b, c->q->row, c->n_t, Q, 1, s->raw, s->dk);
    rowwise_norm_vjp(c->rt, &of_k, s->dk, s->dk);
    lin_t(c, c->n_t * n, s->dk, &y->k, add, s->normed);
    if (m->q_rank) {
        lin_t(c, rows, s->raw, &y->q, 0, s->low);
        rowwise_norm_vjp(c->rt, &of_q, s->low, s->low);
        lin_t(c, rows, s->low, &y->q_a, Q == n, at_q);
    } else {
        lin_t(c, rows, s->raw, &y->q, Q == n, at_q);
    }
    if (Q != n) rowwise_scatter_add(c->n_t, n, Q, c->q->row, m->d_model, s->attn, s->normed);
}
