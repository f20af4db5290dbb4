#include "model/block.h"
#include <string.h>
#include "kernels/linear.h"
#include "model/latent_heads.h"
#include "model/layer_input.h"
#include "model/recurrent.h"
#include "ops/conv.h"
#include "ops/delta.h"
#include "ops/latent.h"
#include "ops/rowwise.h"
#include "base/reduce.h"

static int block_has_mlp(const layer_spec *y) { return y->up.data || y->router.data; }

int block_shares_norm(const spec *m, size_t layer) { return m->parallel && !m->layer[layer].norm2.present; }

/* Reals of scratch that each worker needs for any weight of the model */
static size_t panel_stride(const spec *m) {
    size_t most = 0;
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        const expert *e = y->router.data ? y->experts : &(expert){0}; /* all experts are stored alike */
        const weight *all[] = {&y->q_a, &y->kv_b, &y->q, &y->k, &y->v, &y->o, &y->z, &y->a, &y->b, &y->gate, &y->up, &y->down, &y->router,
                               &y->in_proj, &y->in_gate, &y->in_out, &e->gate, &e->up, &e->down, &y->shared.gate, &y->shared.up, &y->shared.down, &y->shared_gate};
        for (size_t i = 0; i < COUNT(all); i++) {
            size_t n = linear_scratch(all[i]);
            if (n > most) most = n;
        }
    }
    return most;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The larger of the widths of all layers */
typedef struct {
    size_t q, k, v, z, heads; /* outputs of q, k, v and z, inputs of o */
    size_t head_dim, hidden;  /* HS; F or P */
} widths;

static widths widths_of(const spec *m) {
    widths w = {0};
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        w = (widths){larger(w.q, y->q.n_out), larger(w.k, y->k.n_out), larger(w.v, layer_values(m, y)), larger(w.z, y->z.n_out),
                     larger(w.heads, y->o.n_in), larger(w.head_dim, y->head_dim), larger(w.hidden, larger(y->d_ff, y->in_gate.n_out))};
    }
    if (m->kv_rank) w.q = larger(latent_queries(m), latent_raw(m));
    return w;
}

/* Reals of scratch that each worker needs in the mixer of any layer, for sequences of at most max_keys rows; derivatives: in those, too */
static size_t mixer_scratch(const spec *m, size_t max_keys, int derivatives) {
    size_t n = m->n_attention ? attention_scratch(max_keys, m->kv_rank ? latent_key(m) : widths_of(m).head_dim) : 0;
    if (m->conv_taps) n = larger(n, conv_scratch(m->conv_taps));
    if (m->state_v_heads) n = larger(n, delta_scratch(m->state_k_dim, m->state_v_dim, derivatives ? max_keys : 0));
    return n;
}

static ps_code block_make_or_count(block_scratch *s, const spec *m, const batch *b, int threads, size_t *bytes, ps_status *st) {
    size_t n = b->n_rows, C = m->d_model;
    size_t scans = m->n_recurrent ? 1 : 0;
    *s = (block_scratch){.head_stride = mixer_scratch(m, b->max_keys, 0), .panel_stride = panel_stride(m)};
    arena_slice table[] = {
        SLICE(s->normed, n, C), SLICE(s->attn, n, C), SLICE(s->mlp, n, C), SLICE(s->heads, n, widths_of(m).heads),
        SLICE(s->low, n, m->q_rank), SLICE(s->raw, m->kv_rank ? n : 0, m->n_heads, larger(m->head_dim, m->kv_rank)),
        SLICE(s->embedding, m->d_input ? n : 0, C), SLICE(s->hidden, n, widths_of(m).hidden), SLICE(s->moe, moe_scratch(m, 1, n)), SLICE(s->head_scratch, (size_t)threads, s->head_stride),
        SLICE(s->panel, (size_t)threads, s->panel_stride), SLICE(s->seq, b->n_seq),
        SLICE(s->begin, scans, b->n_seq), SLICE(s->end, scans, b->n_seq), SLICE(s->keep, scans, n),
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
    size_t n, C = m->d_model, NV = m->state_v_heads, parts = NV ? delta_parts(m->state_k_heads, NV) : 1;
    const widths w = widths_of(m);
    *s = (sweep_scratch){.n_t = n_t, .n = b->n_rows, .n_streams = n_streams, .head_stride = mixer_scratch(m, b->max_keys, 1),
                         .panel_stride = panel_stride(m)};
    if (size_mul(n_t, b->n_rows, &n, st)) return st->code;
    arena_slice table[] = {
        SLICE(s->stream, n_streams, b->n_rows, C), SLICE(s->carried, n_streams, b->n_rows, carried_width(m)), SLICE(s->attn, n, C), SLICE(s->mlp, n, C), SLICE(s->normed, n, C),
        SLICE(s->taped_q, b->n_rows, w.q), SLICE(s->dq, parts, n, w.q), SLICE(s->heads, n, w.heads), SLICE(s->dk, parts, n, w.k),
        SLICE(s->dv, n, w.v), SLICE(s->dz, n, w.z), SLICE(s->da, n, NV), SLICE(s->db, n, NV),
        SLICE(s->low, n, m->q_rank), SLICE(s->raw, m->kv_rank ? n : 0, m->n_heads, larger(m->head_dim, m->kv_rank)),
        SLICE(s->gate, m->gated || m->d_input ? n : 0, w.hidden), SLICE(s->up, n, w.hidden),
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

size_t carried_width(const spec *m) {
    return m->n_carried ? m->carried[m->n_carried - 1].offset + m->carried[m->n_carried - 1].width : 0;
}

real *sweep_carried(const sweep_scratch *s, const spec *m, size_t i) {
    return s->carried + (s->n_streams * m->carried[i].offset + s->first * m->carried[i].width) * s->n;
}

void sweep_carry_nothing(const sweep_scratch *s, const spec *m, size_t n_t) {
    for (size_t i = 0; i < m->n_carried; i++) memset(sweep_carried(s, m, i), 0, n_t * s->n * m->carried[i].width * sizeof(real));
}

/* ---- arguments of the ops ---- */

static norm_rows norm_of(const spec *m, const norm *w, real *xhat, real *r, const size_t *map, size_t n_t, size_t n,
                         double scale) {
    return (norm_rows){.kind = m->norm, .eps = m->norm_eps, .width = m->d_model, .groups = 1, .gain = w->gain,
                       .bias = w->bias, .xhat = xhat, .r = r, .map = map, .n_t = n_t, .n = n, .scale = (real)scale};
}

/* qk-norm of n_heads heads: one for each head, or one over all */
static norm_rows head_norm_of(const spec *m, const norm *w, size_t n_heads, size_t head_dim, real *xhat, real *r, const size_t *map,
                              size_t n_t, size_t n) {
    norm_rows a = norm_of(m, w, xhat, r, map, n_t, n, 1);
    a.groups = m->qk_norm == QK_NORM_HEAD ? n_heads : 1;
    a.width = n_heads * head_dim / a.groups;
    return a;
}

/* The norm of each head of values */
static norm_rows value_norm_of(const spec *m, const layer_spec *y, const tape *t, size_t n_t, size_t n) {
    norm_rows a = norm_of(m, &y->v_norm, t->xhat_v, t->r_v, NULL, n_t, n, 1);
    a.kind = NORM_RMS;
    a.groups = y->n_kv_heads;
    a.width = y->head_dim;
    return a;
}

static rope_rows rope_of(const spec *m, const batch *b, size_t layer, size_t n_heads, const size_t *map, size_t n_t, size_t n) {
    const layer_spec *y = &m->layer[layer];
    size_t half = m->rope_dim / 2, at = (size_t)y->rope * b->n_rows * half;
    return (rope_rows){.style = m->rope_style, .rope_dim = m->rope[y->rope].dim, .head_dim = y->head_dim, .n_heads = n_heads, .ld = half,
                       .cosine = b->cosine + at, .sine = b->sine + at, .map = map, .n_t = n_t, .n = n};
}

static attention attention_of(const spec *m, size_t layer, size_t n_seq, const attention_seq *seq, const real *q,
                              const int *pos, real *scratch, size_t stride) {
    const layer_spec *y = &m->layer[layer];
    return (attention){.n_heads = m->n_heads, .n_kv_heads = y->n_kv_heads, .head_dim = y->head_dim, .value_dim = y->head_dim,
                       .window = y->window, .chunk = y->chunk, .scale = (real)y->attn_scale,
                       .softcap = (real)m->attn_softcap, .sinks = y->sinks, .key_bias = m->key_bias, .ldb = m->n_ctx,
                       .n_seq = n_seq, .seq = seq, .q = q,
                       .ldq = m->n_heads * y->head_dim, .pos = pos, .scratch = scratch, .scratch_stride = stride};
}

/* ---- forward ---- */

/* t->k, before norm and rotation, and t->v, from in (n, C) */
static void keys_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, tape *t, block_scratch *s, const hooks *v,
                         const real *in) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model, WKV = y->n_kv_heads * y->head_dim;
    linear(rt, n, in, C, &y->k, y->k_bias, t->k, WKV, s->panel, s->panel_stride);
    if (y->v.data) linear(rt, n, in, C, &y->v, y->v_bias, t->v, WKV, s->panel, s->panel_stride);
    else memcpy(t->v, t->k, n * WKV * sizeof(real));
    if (m->clip_qkv > 0) {
        rowwise_clip(rt, n, WKV, (real)m->clip_qkv, t->k, t->kept_k);
        rowwise_clip(rt, n, WKV, (real)m->clip_qkv, t->v, t->kept_v);
    }
    if (y->v_norm.present) {
        norm_rows av = value_norm_of(m, y, t, 1, n);
        rowwise_norm_forward(rt, &av, t->v, t->v);
    }
    run_hooks(v, layer, READ_K, b, WKV, t->k);
    run_hooks(v, layer, READ_V, b, WKV, t->v);
}

/* s->heads (n, W) = the heads of attention, from in (n, C) */
static void heads_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                          block_scratch *s, const hooks *v, const real *in) {
    const layer_spec *y = &m->layer[layer];
    const int own = y->keys_of == layer;
    size_t n = b->n_rows, W = m->n_heads * y->head_dim, WKV = y->n_kv_heads * y->head_dim;
    linear(rt, n, in, m->d_model, &y->q, y->q_bias, t->q, W, s->panel, s->panel_stride);
    if (m->clip_qkv > 0) rowwise_clip(rt, n, W, (real)m->clip_qkv, t->q, t->kept_q);
    run_hooks(v, layer, READ_Q, b, W, t->q);
    if (own) keys_forward(rt, m, layer, b, t, s, v, in);
    for (int step = 0; step < 2; step++) {
        if (step != m->qk_norm_last && y->rope >= 0) {
            rope_rows rq = rope_of(m, b, layer, m->n_heads, NULL, 1, n), rk = rope_of(m, b, layer, y->n_kv_heads, NULL, 1, n);
            rowwise_rope(rt, &rq, 0, t->q);
            if (own) rowwise_rope(rt, &rk, 0, t->k);
        } else if (step == m->qk_norm_last && y->q_norm.present) {
            norm_rows aq = head_norm_of(m, &y->q_norm, m->n_heads, y->head_dim, t->xhat_q, t->r_q, NULL, 1, n);
            norm_rows ak = head_norm_of(m, &y->k_norm, y->n_kv_heads, y->head_dim, t->xhat_k, t->r_k, NULL, 1, n);
            rowwise_norm_forward(rt, &aq, t->q, t->q);
            if (own) rowwise_norm_forward(rt, &ak, t->k, t->k);
        }
    }
    if (m->temper_rate != 0 && y->tempered) rowwise_temper(rt, m, 1, n, b->pos, W, t->q);
    run_hooks(v, layer, READ_ROT_Q, b, W, t->q);
    if (own) run_hooks(v, layer, READ_ROT_K, b, WKV, t->k);
    if (c && own) cache_write(c, layer, b, t->k, t->v);
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
    attention_forward(rt, &a, y->z.data ? t->lift_z : s->heads, W);
    run_hooks(v, layer, READ_PATTERN, b, m->n_heads * a.ldp, a.pattern);
    if (y->z.data) { /* heads . sigmoid(z) */
        linear(rt, n, in, m->d_model, &y->z, y->z_bias, t->slope_z, W, s->panel, s->panel_stride);
        rowwise_mlp_forward(rt, &(activation){.kind = ACT_SIGMOID}, n, W, t->slope_z, t->lift_z, s->heads);
    }
    run_hooks(v, layer, READ_Z, b, W, s->heads);
}

/* s->attn = attn_out of x, resid_pre. Leaves norm1's output in s->normed. */
static void attn_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                         block_scratch *s, const hooks *v, const real *x) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model;
    const real *in = x;
    if (y->norm1.present) {
        norm_rows a = norm_of(m, &y->norm1, t->xhat1, t->r1, NULL, 1, n, 1);
        rowwise_norm_forward(rt, &a, x, s->normed);
        in = s->normed;
    }
    if (y->mixer == MIX_NONE) {
        memset(s->attn, 0, n * C * sizeof(real));
        return;
    }
    if (y->mixer == MIX_ATTENTION) (m->kv_rank ? latent_forward : heads_forward)(rt, m, layer, b, c, t, s, v, in);
    else recurrent_forward(rt, m, layer, b, c, t, s, in);
    linear(rt, n, s->heads, y->o.n_in, &y->o, y->o_bias, s->attn, C, s->panel, s->panel_stride);
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
    size_t n = b->n_rows, C = m->d_model, F = y->d_ff;
    const real *in = block_shares_norm(m, layer) && y->norm1.present ? s->normed : x;
    if (!block_has_mlp(y)) {
        memset(s->mlp, 0, n * C * sizeof(real));
        return;
    }
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
    rowwise_mlp_forward(rt, &y->act, n, F, m->gated ? t->slope : NULL, t->lift, s->hidden);
    run_hooks(v, layer, READ_POST, b, F, s->hidden);
    linear(rt, n, s->hidden, F, &y->down, y->down_bias, s->mlp, C, s->panel, s->panel_stride);
}

ps_code block_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                      block_scratch *s, const hooks *v, real *x, ps_status *st) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model;
    run_hooks(v, layer, SITE_RESID_PRE, b, C, x);
    if (!layer && m->d_input) memcpy(s->embedding, x, n * C * sizeof(real));
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
    layer_input_forward(rt, m, layer, b, t, s, x);
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
    const layer_spec *y = &c->m->layer[c->layer];
    const int own = y->keys_of == c->layer;
    size_t W = c->m->n_heads * y->head_dim, WKV = y->n_kv_heads * y->head_dim;
    for (size_t i = 0; i < b->n_seq; i++) {
        size_t r = b->row0[i], id = (size_t)b->id[i];
        c->s->seq[i] = (attention_seq){.k = own ? c->t->k + r * WKV : cache_k(c->keys, c->layer, id),
                                       .v = own ? c->t->v + r * WKV : cache_v(c->keys, c->layer, id), .n_keys = b->row0[i + 1] - r,
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

/* What limits q, k and v to a range, in place on dq (n_t, Q, W), dk and dv (n_t, n, WKV); it is its own transpose. */
static void keep_unclipped(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    size_t n = c->b->n_rows, W = c->m->n_heads * y->head_dim, WKV = y->n_kv_heads * y->head_dim;
    if (c->m->clip_qkv <= 0) return;
    rowwise_keep(c->rt, c->n_t, c->q->n, c->q->row, W, c->t->kept_q, c->s->dq);
    if (y->keys_of != c->layer) return;
    rowwise_keep(c->rt, c->n_t, n, NULL, WKV, c->t->kept_k, c->s->dk);
    rowwise_keep(c->rt, c->n_t, n, NULL, WKV, c->t->kept_v, c->s->dv);
}

/* qk-norm and rotation, in the model's order, and temperature, of dq (n_t, Q, W) and of the layer's own dk (n_t, n, WKV), and
 * the norm of dv, in place; the transpose is the transposes in the other order. */
static void transform_heads(const block_call *c, int transposed) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    const int own = y->keys_of == c->layer;
    size_t n = c->b->n_rows;
    if (own && y->v_norm.present) {
        norm_rows av = value_norm_of(c->m, y, c->t, c->n_t, n);
        (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &av, s->dv, s->dv);
    }
    for (int step = 0; step < 3; step++) {
        int now = transposed ? 2 - step : step, rotate = now != c->m->qk_norm_last;
        if (now == 2) {
            if (c->m->temper_rate != 0 && y->tempered)
                rowwise_temper(c->rt, c->m, c->n_t, c->q->n, c->q->pos, c->m->n_heads * y->head_dim, s->dq);
        } else if (rotate && y->rope >= 0) {
            rope_rows rq = rope_of(c->m, c->b, c->layer, c->m->n_heads, c->q->row, c->n_t, c->q->n);
            rope_rows rk = rope_of(c->m, c->b, c->layer, y->n_kv_heads, NULL, c->n_t, n);
            rowwise_rope(c->rt, &rq, transposed, s->dq);
            if (own) rowwise_rope(c->rt, &rk, transposed, s->dk);
        } else if (!rotate && y->q_norm.present) {
            norm_rows aq = head_norm_of(c->m, &y->q_norm, c->m->n_heads, y->head_dim, c->t->xhat_q, c->t->r_q, c->q->row, c->n_t, c->q->n);
            norm_rows ak = head_norm_of(c->m, &y->k_norm, y->n_kv_heads, y->head_dim, c->t->xhat_k, c->t->r_k, NULL, c->n_t, n);
            (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &aq, s->dq, s->dq);
            if (own) (transposed ? rowwise_norm_vjp : rowwise_norm_jvp)(c->rt, &ak, s->dk, s->dk);
        }
    }
}

/* s->heads (n_t, Q, W), the tangent of the heads of attention, from in (n_t, n, C) */
static void heads_jvp(const block_call *c, const real *in) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = c->m->d_model, of_keys = c->n_t * n * y->n_kv_heads * y->head_dim;
    const int own = y->keys_of == c->layer, carried = y->carried != NOT_CARRIED;
    real *dk = carried ? sweep_carried(s, c->m, y->carried) : s->dk, *dv = carried ? sweep_carried(s, c->m, y->carried + 1) : s->dv;
    if (own) lin(c, c->n_t * n, in, &y->k, s->dk);
    if (own && y->v.data) lin(c, c->n_t * n, in, &y->v, s->dv);
    else if (own) memcpy(s->dv, s->dk, of_keys * sizeof(real));
    if (Q != n) { /* keys and values of every row, queries of the subset */
        rowwise_gather(c->n_t, n, Q, c->q->row, C, in, s->attn);
        in = s->attn;
    }
    lin(c, c->n_t * Q, in, &y->q, s->dq);
    keep_unclipped(c);
    transform_heads(c, 0);
    if (own && carried) {
        memcpy(dk, s->dk, of_keys * sizeof(real));
        memcpy(dv, s->dv, of_keys * sizeof(real));
    }
    attention a = taped_attention(c);
    attention_jvp(c->rt, &a, c->n_t, Q, n, s->dq, dk, dv, s->heads);
    if (!y->z.data) return;
    /*  h = o . sigmoid(z)
     * dh = slope . dz + sigmoid(z) . do */
    lin(c, c->n_t * Q, in, &y->z, s->dz);
    rowwise_mlp_jvp(c->rt, c->n_t, Q, c->q->row, y->z.n_out, c->t->slope_z, c->t->lift_z, s->dz, s->heads);
}

void block_attn_jvp(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    const real *in = s->stream;
    if (y->norm1.present) {
        norm_rows a = norm_of(c->m, &y->norm1, c->t->xhat1, c->t->r1, NULL, c->n_t, c->b->n_rows, 1);
        rowwise_norm_jvp(c->rt, &a, s->stream, s->normed);
        in = s->normed;
    }
    if (y->mixer == MIX_NONE) {
        memset(s->attn, 0, c->n_t * c->q->n * c->m->d_model * sizeof(real));
        return;
    }
    (y->mixer != MIX_ATTENTION ? recurrent_jvp : c->m->kv_rank ? latent_jvp : heads_jvp)(c, in);
    lin(c, c->n_t * c->q->n, s->heads, &y->o, s->attn);
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
    size_t Q = c->q->n, rows = c->n_t * Q, F = y->d_ff;
    const real *in = s->stream;
    if (!block_has_mlp(y)) {
        memset(s->mlp, 0, rows * c->m->d_model * sizeof(real));
        return;
    }
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

void block_embedding_jvp(const block_call *c) {
    if (c->layer || !c->from_embedding || !c->m->d_input) return;
    memcpy(sweep_carried(c->s, c->m, c->m->n_carried - 1), c->s->stream, c->n_t * c->b->n_rows * c->m->d_model * sizeof(real));
}

/* ---- vjp ---- */

void block_mlp_vjp(const block_call *c) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t Q = c->q->n, rows = c->n_t * Q, F = y->d_ff, C = c->m->d_model;
    if (!block_has_mlp(y)) return;
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

/* s->normed (n_t, n, C) = the cotangent at the input of attention, or += if add, from s->heads (n_t, Q, W), which is overwritten */
static void heads_vjp(const block_call *c, int add) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = c->m->d_model, of_keys = c->n_t * n * y->n_kv_heads * y->head_dim;
    const int own = y->keys_of == c->layer, carried = y->carried != NOT_CARRIED;
    real *dk = carried ? sweep_carried(s, c->m, y->carried) : NULL, *dv = carried ? sweep_carried(s, c->m, y->carried + 1) : NULL;
    real *at_q = Q == n ? s->normed : s->attn; /* the cotangent at the rows of the subset */
    if (y->z.data) rowwise_mlp_vjp(c->rt, c->n_t, Q, c->q->row, y->z.n_out, c->t->slope_z, c->t->lift_z, s->dz, s->heads);
    attention a = taped_attention(c);
    attention_vjp(c->rt, &a, c->n_t, Q, n, s->heads, s->dq, s->dk, s->dv);
    if (carried) { /* cotangents of all layers that see these keys */
        rowwise_add(c->rt, of_keys, own ? dk : s->dk, own ? s->dk : dk);
        rowwise_add(c->rt, of_keys, own ? dv : s->dv, own ? s->dv : dv);
    }
    transform_heads(c, 1);
    keep_unclipped(c);
    if (own && !y->v.data) rowwise_add(c->rt, of_keys, s->dv, s->dk);
    if (own) lin_t(c, c->n_t * n, s->dk, &y->k, add, s->normed);
    else if (!add) memset(s->normed, 0, c->n_t * n * C * sizeof(real));
    if (own && y->v.data) lin_t(c, c->n_t * n, s->dv, &y->v, 1, s->normed);
    lin_t(c, c->n_t * Q, s->dq, &y->q, Q == n, at_q);
    if (y->z.data) lin_t(c, c->n_t * Q, s->dz, &y->z, 1, at_q);
    if (Q != n) rowwise_scatter_add(c->n_t, n, Q, c->q->row, C, s->attn, s->normed);
}

void block_attn_vjp(const block_call *c, int add_normed) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = c->m->d_model;
    if (y->mixer == MIX_NONE) {
        rowwise_expand(c->n_t, n, Q, c->q->row, C, s->stream);
        return;
    }
    post_rows(c, &y->post1, c->t->xhat_a, c->t->r_a, s->attn, 1);
    lin_t(c, c->n_t * Q, s->attn, &y->o, 0, s->heads);
    if (add_normed) rowwise_expand(c->n_t, n, Q, c->q->row, C, s->normed);
    (y->mixer != MIX_ATTENTION ? recurrent_vjp : c->m->kv_rank ? latent_vjp : heads_vjp)(c, add_normed);
    if (y->norm1.present) {
        norm_rows a1 = norm_of(c->m, &y->norm1, c->t->xhat1, c->t->r1, NULL, c->n_t, n, 1);
        rowwise_norm_vjp(c->rt, &a1, s->normed, s->normed);
    }
    rowwise_expand(c->n_t, n, Q, c->q->row, C, s->stream);
    rowwise_add(c->rt, c->n_t * n * C, s->normed, s->stream);
}

void block_embedding_vjp(const block_call *c) {
    if (c->layer || !c->from_embedding || !c->m->d_input) return;
    rowwise_add(c->rt, c->n_t * c->b->n_rows * c->m->d_model, sweep_carried(c->s, c->m, c->m->n_carried - 1), c->s->stream);
}
