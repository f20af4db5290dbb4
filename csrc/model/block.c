#include "model/block.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

int block_shares_norm(const spec *m, size_t layer) { return m->parallel && !m->layer[layer].norm2.present; }

/* Reals of scratch that each worker needs for any weight of the model */
static size_t panel_stride(const spec *m) {
    size_t most = 0;
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        const expert *e = y->router.data ? y->experts : &(expert){0}; /* all experts are stored alike */
        const weight *all[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down, &y->router, &e->gate, &e->up, &e->down};
        for (size_t i = 0; i < COUNT(all); i++) {
            size_t n = linear_scratch(all[i]);
            if (n > most) most = n;
        }
    }
    return most;
}

static ps_code block_make_or_count(block_scratch *s, const spec *m, const batch *b, int threads, size_t *bytes, ps_status *st) {
    size_t n = b->n_rows, C = m->d_model;
    *s = (block_scratch){.head_stride = attention_scratch(b->max_keys, m->head_dim), .panel_stride = panel_stride(m)};
    arena_slice table[] = {
        SLICE(s->normed, n, C), SLICE(s->attn, n, C), SLICE(s->mlp, n, C), SLICE(s->heads, n, m->n_heads, m->head_dim),
        SLICE(s->hidden, n, m->d_ff), SLICE(s->moe, moe_scratch(m, 1, n)), SLICE(s->head_scratch, (size_t)threads, s->head_stride),
        SLICE(s->panel, (size_t)threads, s->panel_stride), SLICE(s->seq, b->n_seq),
    };
    return arena_make_or_count(&s->memory, table, COUNT(table), bytes, st);
}

ps_code block_scratch_make(block_scratch *s, const spec *m, const batch *b, int threads, ps_status *st) {
    return block_make_or_count(s, m, b, threads, NULL, st);
}

ps_code block_scratch_count(const spec *m, const batch *b, int threads, size_t *bytes, ps_status *st) {
    return block_make_or_count(&(block_scratch){0}, m, b, threads, bytes, st);
}

void block_scratch_free(block_scratch *s) { arena_free(&s->memory); }

static ps_code sweep_make_or_count(sweep_scratch *s, const spec *m, const batch *b, size_t n_t, size_t n_streams, int threads,
                                   size_t *bytes, ps_status *st) {
    size_t n, C = m->d_model, W, WKV;
    *s = (sweep_scratch){.n_t = n_t, .n = b->n_rows, .n_streams = n_streams, .head_stride = attention_scratch(b->max_keys, m->head_dim),
                         .panel_stride = panel_stride(m)};
    if (size_mul(n_t, b->n_rows, &n, st) || size_mul(m->n_heads, m->head_dim, &W, st)
        || size_mul(m->n_kv_heads, m->head_dim, &WKV, st))
        return st->code;
    arena_slice table[] = {
        SLICE(s->stream, n_streams, b->n_rows, C), SLICE(s->attn, n, C), SLICE(s->mlp, n, C), SLICE(s->normed, n, C),
        SLICE(s->taped_q, b->n_rows, W), SLICE(s->dq, n, W), SLICE(s->heads, n, W), SLICE(s->dk, n, WKV), SLICE(s->dv, n, WKV),
        SLICE(s->gate, m->gated ? n : 0, m->d_ff), SLICE(s->up, n, m->d_ff),
        SLICE(s->moe, moe_scratch(m, n_t, b->n_rows)), SLICE(s->moe_index, 2, m->n_experts ? b->n_rows : 0),
        SLICE(s->head_scratch, (size_t)threads, s->head_stride), SLICE(s->panel, (size_t)threads, s->panel_stride),
        SLICE(s->seq, b->n_seq),
    };
    return arena_make_or_count(&s->memory, table, COUNT(table), bytes, st);
}

ps_code sweep_scratch_make(sweep_scratch *s, const spec *m, const batch *b, size_t n_t, size_t n_streams, int threads, ps_status *st) {
    return sweep_make_or_count(s, m, b, n_t, n_streams, threads, NULL, st);
}

ps_code sweep_scratch_count(const spec *m, const batch *b, size_t n_t, size_t n_streams, int threads, size_t *bytes, ps_status *st) {
    return sweep_make_or_count(&(sweep_scratch){0}, m, b, n_t, n_streams, threads, bytes, st);
}

void sweep_scratch_free(sweep_scratch *s) { arena_free(&s->memory); }

/* ---- arguments of the ops ---- */

static norm_rows norm_of(const spec *m, const norm *w, real *xhat, real *r, const size_t *map, size_t n_t, size_t n,
                         double scale) {
    return (norm_rows){.kind = m->norm, .eps = m->norm_eps, .width = m->d_model, .groups = 1, .gain = w->gain,
                       .bias = w->bias, .xhat = xhat, .r = r, .map = map, .n_t = n_t, .n = n, .scale = (real)scale};
}

/* qk-norm of n_heads heads: one for each head, or one over all */
static norm_rows head_norm_of(const spec *m, const norm *w, size_t n_heads, real *xhat, real *r, const size_t *map,
                              size_t n_t, size_t n) {
    norm_rows a = norm_of(m, w, xhat, r, map, n_t, n, 1);
    a.groups = m->qk_norm == QK_NORM_HEAD ? n_heads : 1;
    a.width = n_heads * m->head_dim / a.groups;
    return a;
}

static rope_rows rope_of(const spec *m, const batch *b, size_t layer, size_t n_heads, const size_t *map, size_t n_t, size_t n) {
    size_t at = (size_t)m->layer[layer].rope * b->n_rows * (m->rope_dim / 2);
    return (rope_rows){.style = m->rope_style, .rope_dim = m->rope_dim, .head_dim = m->head_dim, .n_heads = n_heads,
                       .cosine = b->cosine + at, .sine = b->sine + at, .map = map, .n_t = n_t, .n = n};
}

static attention attention_of(const spec *m, size_t layer, size_t n_seq, const attention_seq *seq, const real *q,
                              const int *pos, real *scratch, size_t stride) {
    return (attention){.n_heads = m->n_heads, .n_kv_heads = m->n_kv_heads, .head_dim = m->head_dim,
                       .window = m->layer[layer].window, .scale = (real)m->layer[layer].attn_scale,
                       .softcap = (real)m->attn_softcap, .n_seq = n_seq, .seq = seq, .q = q,
                       .ldq = m->n_heads * m->head_dim, .pos = pos, .scratch = scratch, .scratch_stride = stride};
}

/* ---- forward ---- */

/* s->attn = attn_out of x, resid_pre. Leaves norm1's output in s->normed. */
static void attn_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                         block_scratch *s, const hooks *v, const real *x) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model, W = m->n_heads * m->head_dim, WKV = m->n_kv_heads * m->head_dim;
    const real *in = x;
    if (y->norm1.present) {
        norm_rows a = norm_of(m, &y->norm1, t->xhat1, t->r1, NULL, 1, n, 1);
        rowwise_norm_forward(rt, &a, x, s->normed);
        in = s->normed;
    }
    linear(rt, n, in, C, &y->q, y->q_bias, t->q, W, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->k, y->k_bias, t->k, WKV, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->v, y->v_bias, t->v, WKV, s->panel, s->panel_stride);
    run_hooks(v, layer, READ_Q, b, W, t->q);
    run_hooks(v, layer, READ_K, b, WKV, t->k);
    run_hooks(v, layer, READ_V, b, WKV, t->v);
    if (m->qk_norm != QK_NORM_NONE) {
        norm_rows aq = head_norm_of(m, &y->q_norm, m->n_heads, t->xhat_q, t->r_q, NULL, 1, n);
        norm_rows ak = head_norm_of(m, &y->k_norm, m->n_kv_heads, t->xhat_k, t->r_k, NULL, 1, n);
        rowwise_norm_forward(rt, &aq, t->q, t->q);
        rowwise_norm_forward(rt, &ak, t->k, t->k);
    }
    if (y->rope >= 0) {
        rope_rows rq = rope_of(m, b, layer, m->n_heads, NULL, 1, n), rk = rope_of(m, b, layer, m->n_kv_heads, NULL, 1, n);
        rowwise_rope(rt, &rq, 0, t->q);
        rowwise_rope(rt, &rk, 0, t->k);
    }
    run_hooks(v, layer, READ_ROT_Q, b, W, t->q);
    run_hooks(v, layer, READ_ROT_K, b, WKV, t->k);
    if (c) cache_write(c, layer, b, t->k, t->v);
    for (size_t i = 0; i < b->n_seq; i++) {
        size_t r = b->row0[i], end = b->row0[i + 1], id = (size_t)b->id[i];
        s->seq[i] = (attention_seq){.k = c ? cache_k(c, layer, id) : t->k + r * WKV,
                                    .v = c ? cache_v(c, layer, id) : t->v + r * WKV,
                                    .n_keys = (size_t)b->pos[end - 1] + 1, .ld = WKV, .q0 = r, .q1 = end, .key0 = r};
    }
    attention a = attention_of(m, layer, b->n_seq, s->seq, t->q, b->pos, s->head_scratch, s->head_stride);
    a.panel = s->panel;
    a.panel_stride = s->panel_stride;
    a.pattern = hooks_captured(v, layer, READ_PATTERN);
    a.ldp = b->max_keys;
    attention_forward(rt, &a, s->heads, W);
    run_hooks(v, layer, READ_PATTERN, b, m->n_heads * a.ldp, a.pattern);
    run_hooks(v, layer, READ_Z, b, W, s->heads);
    linear(rt, n, s->heads, W, &y->o, y->o_bias, s->attn, C, s->panel, s->panel_stride);
    if (y->post1.present) {
        norm_rows p = norm_of(m, &y->post1, t->xhat_a, t->r_a, NULL, 1, n, m->resid_scale);
        rowwise_norm_forward(rt, &p, s->attn, s->attn);
    } else {
        rowwise_scale(rt, n * C, (real)m->resid_scale, s->attn);
    }
}

/* s->mlp = down_proj. x: resid_mid, or resid_pre in a parallel block */
static void mlp_forward_rows(const runtime *rt, const spec *m, size_t layer, const batch *b, tape *t, block_scratch *s,
                             const hooks *v, const real *x) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model, F = m->d_ff;
    const real *in = block_shares_norm(m, layer) && y->norm1.present ? s->normed : x;
    if (y->norm2.present) {
        norm_rows a = norm_of(m, &y->norm2, t->xhat2, t->r2, NULL, 1, n, 1);
        rowwise_norm_forward(rt, &a, x, s->normed);
        in = s->normed;
    }
    if (y->router.data) {
        moe_call c = {.rt = rt, .m = m, .y = y, .t = &t->moe, .n_t = 1, .n = n, .scratch = s->moe, .panel = s->panel,
                      .panel_stride = s->panel_stride};
        moe_forward(&c, in, s->mlp);
        return;
    }
    if (m->gated) linear(rt, n, in, C, &y->gate, y->gate_bias, t->slope, F, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->up, y->up_bias, t->lift, F, s->panel, s->panel_stride);
    run_hooks(v, layer, READ_PRE, b, F, m->gated ? t->slope : t->lift);
    run_hooks(v, layer, READ_PRE_LINEAR, b, F, t->lift);
    rowwise_mlp_forward(rt, m->act, n, F, m->gated ? t->slope : NULL, t->lift, s->hidden);
    run_hooks(v, layer, READ_POST, b, F, s->hidden);
    linear(rt, n, s->hidden, F, &y->down, y->down_bias, s->mlp, C, s->panel, s->panel_stride);
}

ps_code block_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                      block_scratch *s, const hooks *v, real *x, ps_status *st) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model;
    run_hooks(v, layer, SITE_RESID_PRE, b, C, x);
    attn_forward(rt, m, layer, b, c, t, s, v, x);
    run_hooks(v, layer, SITE_ATTN_OUT, b, C, s->attn);
    if (!m->parallel) {
        rowwise_add(rt, n * C, s->attn, x);
        run_hooks(v, layer, SITE_RESID_MID, b, C, x);
    }
    if (runtime_poll(rt, st)) return st->code;
    mlp_forward_rows(rt, m, layer, b, t, s, v, x);
    run_hooks(v, layer, SITE_DOWN_PROJ, b, C, s->mlp);
    if (y->post2.present) {
        norm_rows p = norm_of(m, &y->post2, t->xhat_m, t->r_m, NULL, 1, n, m->resid_scale);
        rowwise_norm_forward(rt, &p, s->mlp, s->mlp);
    } else {
        rowwise_scale(rt, n * C, (real)m->resid_scale, s->mlp);
    }
    run_hooks(v, layer, SITE_MLP_OUT, b, C, s->mlp);
    if (m->parallel) rowwise_add(rt, n * C, s->attn, x);
    rowwise_add(rt, n * C, s->mlp, x);
    run_hooks(v, layer, SITE_RESID_POST, b, C, x);
    if (runtime_poll(rt, st)) return st->code;
    for (size_t r = 0; r < n; r++)
        if (!reduce_finite(C, x + r * C))
            return ps_fail(st, PS_ERR_NONFINITE, "the output of layer %zu at position %d is not finite: NaN or infinity in "
                           "the weights or the steering vector, or activations beyond the range of this dtype", layer, b->pos[r]);
    return PS_OK;
}

/* ---- jvp ---- */

static void lin(const block_call *c, size_t rows, const real *X, const weight *W, real *Y) {
    linear(c->rt, rows, X, W->n_in, W, NULL, Y, W->n_out, c->s->panel, c->s->panel_stride);
}

static void lin_t(const block_call *c, size_t rows, const real *Y, const weight *W, real beta, real *X) {
    linear_t(c->rt, rows, Y, W->n_out, W, beta, X, W->n_in, c->s->panel, c->s->panel_stride);
}

/* The taped attention with the queries of the subset, which are copied to s->taped_q unless they are all. */
static attention taped_attention(const block_call *c) {
    const batch *b = c->b;
    size_t W = c->m->n_heads * c->m->head_dim, WKV = c->m->n_kv_heads * c->m->head_dim;
    for (size_t i = 0; i < b->n_seq; i++) {
        size_t r = b->row0[i];
        c->s->seq[i] = (attention_seq){.k = c->t->k + r * WKV, .v = c->t->v + r * WKV, .n_keys = b->row0[i + 1] - r,
                                       .ld = WKV, .q0 = c->q->row0[i], .q1 = c->q->row0[i + 1], .key0 = r};
    }
    const real *q = c->t->q;
    if (c->q->n != b->n_rows) {
        rowwise_gather(1, b->n_rows, c->q->n, c->q->row, W, c->t->q, c->s->taped_q);
        q = c->s->taped_q;
    }
    return attention_of(c->m, c->layer, b->n_seq, c->s->seq, q, c->q->pos, c->s->head_scratch, c->s->head_stride);
}

/* resid_scale * post(x) of a branch, in place in x (n_t, Q, C): jvp, or vjp if transposed */
static void post_rows(const block_call *c, const norm *w, real *xhat, real *r, real *x, int transposed) {
    if (w->present) {
        norm_rows p = norm_of(c->m, w, xhat, r, c->q->row, c->n_t, c->q->n, c->m->resid_scale);
        (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &p, x, x);
    } else {
        rowwise_scale(c->rt, c->n_t * c->q->n * c->m->d_model, (real)c->m->resid_scale, x);
    }
}

void block_post_mlp_jvp(const block_call *c) {
    post_rows(c, &c->m->layer[c->layer].post2, c->t->xhat_m, c->t->r_m, c->s->mlp, 0);
}

void block_post_mlp_vjp(const block_call *c) {
    post_rows(c, &c->m->layer[c->layer].post2, c->t->xhat_m, c->t->r_m, c->s->mlp, 1);
}

/* qk-norm, then rotation, of dq (n_t, Q, W) and dk (n_t, n, WKV), in place; the transpose is the transposes in the other order. */
static void transform_heads(const block_call *c, int transposed) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows;
    for (int step = 0; step < 2; step++) {
        int rotate = transposed ? step == 0 : step == 1;
        if (rotate && y->rope >= 0) {
            rope_rows rq = rope_of(c->m, c->b, c->layer, c->m->n_heads, c->q->row, c->n_t, c->q->n);
            rope_rows rk = rope_of(c->m, c->b, c->layer, c->m->n_kv_heads, NULL, c->n_t, n);
            rowwise_rope(c->rt, &rq, transposed, s->dq);
            rowwise_rope(c->rt, &rk, transposed, s->dk);
        } else if (!rotate && c->m->qk_norm != QK_NORM_NONE) {
            norm_rows aq = head_norm_of(c->m, &y->q_norm, c->m->n_heads, c->t->xhat_q, c->t->r_q, c->q->row, c->n_t, c->q->n);
            norm_rows ak = head_norm_of(c->m, &y->k_norm, c->m->n_kv_heads, c->t->xhat_k, c->t->r_k, NULL, c->n_t, n);
            (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &aq, s->dq, s->dq);
            (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &ak, s->dk, s->dk);
        }
    }
}

void block_attn_jvp(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = c->m->d_model;
    const real *in = s->stream;
    if (y->norm1.present) {
        norm_rows a = norm_of(c->m, &y->norm1, c->t->xhat1, c->t->r1, NULL, c->n_t, n, 1);
        rowwise_norm_jvp(c->rt, &a, s->stream, s->normed);
        in = s->normed;
    }
    lin(c, c->n_t * n, in, &y->k, s->dk);
    lin(c, c->n_t * n, in, &y->v, s->dv);
    if (Q != n) { /* keys and values of every row, queries of the subset */
        rowwise_gather(c->n_t, n, Q, c->q->row, C, in, s->attn);
        in = s->attn;
    }
    lin(c, c->n_t * Q, in, &y->q, s->dq);
    transform_heads(c, 0);
    attention a = taped_attention(c);
    attention_jvp(c->rt, &a, c->n_t, Q, n, s->dq, s->dk, s->dv, s->heads);
    lin(c, c->n_t * Q, s->heads, &y->o, s->attn);
    post_rows(c, &y->post1, c->t->xhat_a, c->t->r_a, s->attn, 0);
}

static moe_call moe_of(const block_call *c) {
    return (moe_call){.rt = c->rt, .m = c->m, .y = &c->m->layer[c->layer], .t = &c->t->moe, .n_t = c->n_t, .n = c->q->n,
                      .map = c->q->row, .scratch = c->s->moe, .index = c->s->moe_index, .panel = c->s->panel,
                      .panel_stride = c->s->panel_stride};
}

void block_mlp_jvp(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t Q = c->q->n, rows = c->n_t * Q, F = c->m->d_ff;
    const real *in = s->stream;
    if (y->norm2.present) {
        norm_rows a = norm_of(c->m, &y->norm2, c->t->xhat2, c->t->r2, c->q->row, c->n_t, Q, 1);
        rowwise_norm_jvp(c->rt, &a, s->stream, s->normed);
        in = s->normed;
    } else if (block_shares_norm(c->m, c->layer) && y->norm1.present) {
        rowwise_gather(c->n_t, c->b->n_rows, Q, c->q->row, c->m->d_model, s->normed, s->normed);
        in = s->normed;
    }
    if (y->router.data) {
        moe_call e = moe_of(c);
        moe_jvp(&e, in, s->mlp);
        return;
    }
    if (c->m->gated) lin(c, rows, in, &y->gate, s->gate);
    lin(c, rows, in, &y->up, s->up);
    rowwise_mlp_jvp(c->rt, c->n_t, Q, c->q->row, F, c->m->gated ? c->t->slope : NULL, c->t->lift, s->gate, s->up);
    lin(c, rows, s->up, &y->down, s->mlp);
}

/* ---- vjp ---- */

void block_mlp_vjp(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t Q = c->q->n, rows = c->n_t * Q, F = c->m->d_ff, C = c->m->d_model;
    if (y->router.data) {
        moe_call e = moe_of(c);
        moe_vjp(&e, s->mlp, s->normed);
    } else {
        lin_t(c, rows, s->mlp, &y->down, 0, s->up);
        rowwise_mlp_vjp(c->rt, c->n_t, Q, c->q->row, F, c->m->gated ? c->t->slope : NULL, c->t->lift, s->gate, s->up);
        lin_t(c, rows, s->up, &y->up, 0, s->normed);
        if (c->m->gated) lin_t(c, rows, s->gate, &y->gate, 1, s->normed);
    }
    if (block_shares_norm(c->m, c->layer)) return;
    if (y->norm2.present) {
        norm_rows a = norm_of(c->m, &y->norm2, c->t->xhat2, c->t->r2, c->q->row, c->n_t, Q, 1);
        rowwise_norm_vjp(c->rt, &a, s->normed, s->normed);
    }
    rowwise_add(c->rt, rows * C, s->normed, s->stream);
}

void block_attn_vjp(const block_call *c, int add_normed) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = c->m->d_model;
    post_rows(c, &y->post1, c->t->xhat_a, c->t->r_a, s->attn, 1);
    lin_t(c, c->n_t * Q, s->attn, &y->o, 0, s->heads);
    attention a = taped_attention(c);
    attention_vjp(c->rt, &a, c->n_t, Q, n, s->heads, s->dq, s->dk, s->dv);
    transform_heads(c, 1);
    if (add_normed) rowwise_expand(c->n_t, n, Q, c->q->row, C, s->normed);
    lin_t(c, c->n_t * n, s->dk, &y->k, add_normed, s->normed);
    lin_t(c, c->n_t * n, s->dv, &y->v, 1, s->normed);
    if (Q == n) {
        lin_t(c, c->n_t * Q, s->dq, &y->q, 1, s->normed);
    } else {
        lin_t(c, c->n_t * Q, s->dq, &y->q, 0, s->attn);
        rowwise_scatter_add(c->n_t, n, Q, c->q->row, C, s->attn, s->normed);
    }
    if (y->norm1.present) {
        norm_rows a1 = norm_of(c->m, &y->norm1, c->t->xhat1, c->t->r1, NULL, c->n_t, n, 1);
        rowwise_norm_vjp(c->rt, &a1, s->normed, s->normed);
    }
    rowwise_expand(c->n_t, n, Q, c->q->row, C, s->stream);
    rowwise_add(c->rt, c->n_t * n * C, s->normed, s->stream);
}
