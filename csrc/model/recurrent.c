#include "model/recurrent.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/conv.h"
#include "ops/delta.h"
#include "ops/mamba.h"
#include "ops/rowwise.h"

static const double LENGTH_EPS = 1e-6; /* added to the squared length of a head of q and k: a constant in every implementation */

/* ---- states ---- */

static void take(int *keep, int *next, size_t row, int slot) {
    next[slot] = keep[row];
    keep[row] = slot;
}

/* Where the sequences of the batch begin, run and leave their states. A sequence of b->whole that has rows of its own begins behind
 * the row from which it parts; the others keep the state of the row that equals their last. */
static scan scan_of(const batch *b, cache *c, size_t nth, block_scratch *s) {
    const batch *all = b->whole ? b->whole : b;
    if (!c) return (scan){.n_seq = b->n_seq, .row0 = b->row0};
    for (size_t r = 0; r < b->n_rows; r++) s->keep[r] = SCAN_NONE;
    for (size_t q = 0, own = 0; q < all->n_seq; q++) {
        size_t id = (size_t)all->id[q], r0 = all->row0[q], start = (size_t)all->pos[r0], shared = all->row0[q + 1] - r0;
        cache_slots at = cache_slots_of(c, id, start);
        int has_rows = own < b->n_seq && b->id[own] == all->id[q];
        if (has_rows) shared = (size_t)b->pos[b->row0[own]] - start;
        if (shared) {
            take(s->keep, c->next, b->of[r0 + shared - 1], at.end);
            at.begin = at.end;
        }
        if (at.kept != SCAN_NONE) take(s->keep, c->next, b->whole ? b->of[r0 + c->keep[id] - 1] : r0 + c->keep[id] - 1, at.kept);
        if (!has_rows) continue;
        s->begin[own] = at.begin;
        s->end[own++] = at.end;
    }
    return (scan){.n_seq = b->n_seq, .row0 = b->row0, .states = c->states + nth % c->n_scans * c->n_seq * c->n_states * c->state,
                  .stride = c->state, .begin = s->begin, .end = s->end, .keep = s->keep, .next = c->next};
}

/* ---- arguments of the ops ---- */

/* A convolution of `width` channels, the first of which is channel c0 of the layer */
static conv conv_of(const spec *m, const layer_spec *y, size_t c0, size_t width, size_t channels, real *scratch, size_t stride) {
    return (conv){.taps = m->conv_taps, .width = width, .w = y->conv + c0, .ldw = channels, .bias = y->conv_bias ? y->conv_bias + c0 : NULL,
                  .state = (m->conv_taps - 1) * c0, .scratch = scratch, .scratch_stride = stride};
}

/* q, k and v of a delta rule or a state space, each convolved and passed through SiLU */
typedef struct {
    const weight *w;
    const real *bias;
    size_t width, c0;
    real *lift, *out, *d; /* taped: SiLU' of the convolution; its result; the tangent */
} branch;

static size_t branches_of(const layer_spec *y, const tape *t, const sweep_scratch *s, branch *all) {
    size_t k = y->q.n_out, v = y->k.n_out + k;
    all[0] = (branch){&y->q, y->q_bias, y->q.n_out, 0, t->lift_q, t->q, s ? s->dq : NULL};
    all[1] = (branch){&y->k, y->k_bias, y->k.n_out, k, t->lift_k, t->k, s ? s->dk : NULL};
    all[2] = (branch){&y->v, y->v_bias, y->v.n_out, v, t->lift_v, t->v, s ? s->dv : NULL};
    return v + y->v.n_out; /* channels */
}

/* x / sqrt(sum x^2 + eps) of each head of q (is_q, divided by sqrt(HK) besides) or k, as an RMS norm */
static norm_rows length_of(const spec *m, const tape *t, int is_q, size_t n_t, size_t n) {
    double HK = (double)m->state_k_dim;
    return (norm_rows){.kind = NORM_RMS, .eps = LENGTH_EPS / HK, .width = m->state_k_dim, .groups = m->state_k_heads,
                       .xhat = is_q ? t->xhat_q : t->xhat_k, .r = is_q ? t->r_q : t->r_k, .n_t = n_t, .n = n,
                       .scale = (real)(is_q ? 1 / HK : 1 / sqrt(HK))};
}

/* Of each head, or of a state space of the heads that share a key */
static norm_rows o_norm_of(const spec *m, const layer_spec *y, const tape *t, size_t n_t, size_t n) {
    size_t groups = y->mixer == MIX_MAMBA ? m->state_k_heads : m->state_v_heads;
    return (norm_rows){.kind = NORM_RMS, .eps = m->norm_eps, .width = y->o.n_in / groups, .groups = groups,
                       .gain = y->o_norm.gain, .bias = y->o_norm.bias, .xhat = t->xhat_o, .r = t->r_o, .n_t = n_t, .n = n, .scale = 1};
}

static mamba_steps steps_of(const spec *m, const layer_spec *y, const tape *t) {
    return (mamba_steps){.heads = m->state_v_heads, .rate = y->decay_rate, .bias = y->decay_bias, .min = (real)m->step_min,
                         .max = (real)m->step_max, .step = t->strength, .decay = t->decay, .slope = t->decay_slope};
}

static delta delta_of(const spec *m, const layer_spec *y, const tape *t, size_t channels, real *scratch, size_t stride) {
    return (delta){.k_heads = m->state_k_heads, .v_heads = m->state_v_heads, .k_dim = m->state_k_dim, .v_dim = m->state_v_dim,
                   .tiled = m->state_tiled, .q = t->q, .k = t->k, .v = t->v, .decay = t->decay, .strength = t->strength,
                   .uncorrected = y->mixer == MIX_MAMBA, .skip = y->skip,
                   .state = (m->conv_taps - 1) * channels, .scratch = scratch, .scratch_stride = stride};
}

/* ---- forward ---- */

/*  h = q . conv(k . v) */
static void short_conv_forward(const runtime *rt, const spec *m, const layer_spec *y, size_t n, const scan *at, tape *t, block_scratch *s,
                               const real *in) {
    size_t C = m->d_model;
    conv one = conv_of(m, y, 0, C, C, s->head_scratch, s->head_stride);
    linear(rt, n, in, C, &y->q, y->q_bias, t->q, C, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->k, y->k_bias, t->k, C, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->v, y->v_bias, t->v, C, s->panel, s->panel_stride);
    memcpy(t->convolved, t->v, n * C * sizeof(real));
    rowwise_multiply(rt, n * C, t->k, t->convolved);
    conv_forward(rt, &one, at, t->convolved);
    memcpy(s->heads, t->convolved, n * C * sizeof(real));
    rowwise_multiply(rt, n * C, t->q, s->heads);
}

/* q, k and v of a delta rule or a state space; returns their channels */
static size_t branches_forward(const runtime *rt, const spec *m, const layer_spec *y, size_t n, const scan *at, tape *t, block_scratch *s,
                               const real *in) {
    branch all[3];
    size_t channels = branches_of(y, t, NULL, all);
    for (size_t i = 0; i < COUNT(all); i++) {
        const branch *x = &all[i];
        conv one = conv_of(m, y, x->c0, x->width, channels, s->head_scratch, s->head_stride);
        linear(rt, n, in, m->d_model, x->w, x->bias, x->lift, x->width, s->panel, s->panel_stride);
        conv_forward(rt, &one, at, x->lift);
        rowwise_mlp_forward(rt, &(activation){.kind = ACT_SILU}, n, x->width, NULL, x->lift, x->out);
    }
    return channels;
}

/*  h = o_norm(delta rule) . silu(z) */
static void delta_mixer_forward(const runtime *rt, const spec *m, const layer_spec *y, size_t n, const scan *at, tape *t, block_scratch *s,
                                const real *in) {
    size_t C = m->d_model, NV = m->state_v_heads, VD = y->o.n_in, channels = branches_forward(rt, m, y, n, at, t, s, in);
    norm_rows lq = length_of(m, t, 1, 1, n), lk = length_of(m, t, 0, 1, n), on = o_norm_of(m, y, t, 1, n);
    rowwise_norm_forward(rt, &lq, t->q, t->q);
    rowwise_norm_forward(rt, &lk, t->k, t->k);
    linear(rt, n, in, C, &y->a, y->a_bias, t->decay, NV, s->panel, s->panel_stride);
    linear(rt, n, in, C, &y->b, NULL, t->strength, NV, s->panel, s->panel_stride);
    delta_gates_forward(rt, n, NV, y->decay_rate, y->decay_bias, t->decay, t->decay_slope, t->strength);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_forward(rt, &d, at, t->lift_z);
    rowwise_norm_forward(rt, &on, t->lift_z, t->lift_z);
    linear(rt, n, in, C, &y->z, y->z_bias, t->slope_z, VD, s->panel, s->panel_stride);
    rowwise_mlp_forward(rt, &(activation){.kind = ACT_SILU}, n, VD, t->slope_z, t->lift_z, s->heads);
}

/*  h = o_norm(state space . silu(z)) */
static void mamba_mixer_forward(const runtime *rt, const spec *m, const layer_spec *y, size_t n, const scan *at, tape *t, block_scratch *s,
                                const real *in) {
    size_t C = m->d_model, NV = m->state_v_heads, VD = y->o.n_in, channels = branches_forward(rt, m, y, n, at, t, s, in);
    mamba_steps steps = steps_of(m, y, t);
    norm_rows on = o_norm_of(m, y, t, 1, n);
    linear(rt, n, in, C, &y->a, y->a_bias, t->strength, NV, s->panel, s->panel_stride);
    mamba_steps_forward(rt, &steps, n);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_forward(rt, &d, at, t->lift_z);
    linear(rt, n, in, C, &y->z, y->z_bias, t->slope_z, VD, s->panel, s->panel_stride);
    rowwise_mlp_forward(rt, &(activation){.kind = ACT_SILU}, n, VD, t->slope_z, t->lift_z, s->heads);
    rowwise_norm_forward(rt, &on, s->heads, s->heads);
}

void recurrent_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t, block_scratch *s, const real *in) {
    const layer_spec *y = &m->layer[layer];
    scan at = scan_of(b, c, y->nth, s);
    (y->mixer == MIX_CONV ? short_conv_forward : y->mixer == MIX_DELTA ? delta_mixer_forward : mamba_mixer_forward)(
        rt, m, y, b->n_rows, &at, t, s, in);
}

/* ---- jvp ---- */

static void lin(const block_call *c, const real *X, const weight *W, real *Y) {
    linear(c->rt, c->n_t * c->b->n_rows, X, W->n_in, W, NULL, Y, W->n_out, c->s->panel, c->s->panel_stride);
}

static void lin_t(const block_call *c, const real *Y, const weight *W, int add, real *X) {
    linear_t(c->rt, c->n_t * c->b->n_rows, Y, W->n_out, W, add, X, W->n_in, c->s->panel, c->s->panel_stride);
}

/* The sequences of a taped batch, which are whole */
static scan whole_sequences(const block_call *c) { return (scan){.n_seq = c->b->n_seq, .row0 = c->b->row0}; }

/*  u = k . v       du = v . dk + k . dv
 *  h = q . conv u  dh = conv u . dq + q . conv du */
static void short_conv_jvp(const block_call *c, const real *in) {
    const layer_spec *y = &c->m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, C = c->m->d_model;
    scan at = whole_sequences(c);
    conv one = conv_of(c->m, y, 0, C, C, s->head_scratch, s->head_stride);
    lin(c, in, &y->q, s->dq);
    lin(c, in, &y->k, s->dk);
    lin(c, in, &y->v, s->heads);
    rowwise_mlp_jvp(c->rt, c->n_t, n, NULL, C, t->v, t->k, s->dk, s->heads);
    conv_jvp(c->rt, &one, &at, c->n_t, s->heads);
    rowwise_mlp_jvp(c->rt, c->n_t, n, NULL, C, t->convolved, t->q, s->dq, s->heads);
}

static void short_conv_vjp(const block_call *c, int add) {
    const layer_spec *y = &c->m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, C = c->m->d_model;
    scan at = whole_sequences(c);
    conv one = conv_of(c->m, y, 0, C, C, s->head_scratch, s->head_stride);
    rowwise_mlp_vjp(c->rt, c->n_t, n, NULL, C, t->convolved, t->q, s->dq, s->heads);
    conv_vjp(c->rt, &one, &at, c->n_t, s->heads);
    rowwise_mlp_vjp(c->rt, c->n_t, n, NULL, C, t->v, t->k, s->dk, s->heads);
    lin_t(c, s->dq, &y->q, add, s->normed);
    lin_t(c, s->dk, &y->k, 1, s->normed);
    lin_t(c, s->heads, &y->v, 1, s->normed);
}

/*  q' = silu(conv(q x))     dq' = slope . conv(q dx), and so k' and v'; returns their channels */
static size_t branches_jvp(const block_call *c, const scan *at, const real *in) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    branch all[3];
    size_t channels = branches_of(y, c->t, s, all);
    for (size_t i = 0; i < COUNT(all); i++) {
        const branch *x = &all[i];
        conv one = conv_of(c->m, y, x->c0, x->width, channels, s->head_scratch, s->head_stride);
        lin(c, in, x->w, x->d);
        conv_jvp(c->rt, &one, at, c->n_t, x->d);
        rowwise_mlp_jvp(c->rt, c->n_t, c->b->n_rows, NULL, x->width, NULL, x->lift, NULL, x->d);
    }
    return channels;
}

static void branches_vjp(const block_call *c, const scan *at) {
    const layer_spec *y = &c->m->layer[c->layer];
    sweep_scratch *s = c->s;
    branch all[3];
    size_t channels = branches_of(y, c->t, s, all);
    for (size_t i = 0; i < COUNT(all); i++) {
        const branch *x = &all[i];
        conv one = conv_of(c->m, y, x->c0, x->width, channels, s->head_scratch, s->head_stride);
        rowwise_mlp_vjp(c->rt, c->n_t, c->b->n_rows, NULL, x->width, NULL, x->lift, NULL, x->d);
        conv_vjp(c->rt, &one, at, c->n_t, x->d);
        lin_t(c, x->d, x->w, 1, s->normed);
    }
}

/*  q' by its length                  dq' through the norm
 *  h  = silu(z x) . o_norm(o)        dh  = slope . z dx + silu(z x) . do through the norm */
static void delta_mixer_jvp(const block_call *c, const real *in) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    scan at = whole_sequences(c);
    size_t n = c->b->n_rows, NV = m->state_v_heads, VD = y->o.n_in, channels = branches_jvp(c, &at, in);
    norm_rows lq = length_of(m, t, 1, c->n_t, n), lk = length_of(m, t, 0, c->n_t, n), on = o_norm_of(m, y, t, c->n_t, n);
    rowwise_norm_jvp(c->rt, &lq, s->dq, s->dq);
    rowwise_norm_jvp(c->rt, &lk, s->dk, s->dk);
    lin(c, in, &y->a, s->da);
    lin(c, in, &y->b, s->db);
    delta_gates_derivative(c->rt, c->n_t, n, NV, t->decay_slope, t->strength, s->da, s->db);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_jvp(c->rt, &d, &at, c->n_t, s->dq, s->dk, s->dv, s->da, s->db, s->heads);
    rowwise_norm_jvp(c->rt, &on, s->heads, s->heads);
    lin(c, in, &y->z, s->dz);
    rowwise_mlp_jvp(c->rt, c->n_t, n, NULL, VD, t->slope_z, t->lift_z, s->dz, s->heads);
}

static void delta_mixer_vjp(const block_call *c, int add) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, NV = m->state_v_heads, VD = y->o.n_in, channels = y->q.n_out + y->k.n_out + y->v.n_out;
    scan at = whole_sequences(c);
    norm_rows lq = length_of(m, t, 1, c->n_t, n), lk = length_of(m, t, 0, c->n_t, n), on = o_norm_of(m, y, t, c->n_t, n);
    rowwise_mlp_vjp(c->rt, c->n_t, n, NULL, VD, t->slope_z, t->lift_z, s->dz, s->heads);
    lin_t(c, s->dz, &y->z, add, s->normed);
    rowwise_norm_vjp(c->rt, &on, s->heads, s->heads);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_vjp(c->rt, &d, &at, c->n_t, s->heads, s->dq, s->dk, s->dv, s->da, s->db);
    delta_gates_derivative(c->rt, c->n_t, n, NV, t->decay_slope, t->strength, s->da, s->db);
    lin_t(c, s->da, &y->a, 1, s->normed);
    lin_t(c, s->db, &y->b, 1, s->normed);
    rowwise_norm_vjp(c->rt, &lq, s->dq, s->dq);
    rowwise_norm_vjp(c->rt, &lk, s->dk, s->dk);
    branches_vjp(c, &at);
}

/*  u = silu(z x) . o     du = slope . z dx + silu(z x) . do
 *  h = o_norm(u)         dh = du through the norm */
static void mamba_mixer_jvp(const block_call *c, const real *in) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    scan at = whole_sequences(c);
    size_t n = c->b->n_rows, channels = branches_jvp(c, &at, in);
    mamba_steps steps = steps_of(m, y, t);
    norm_rows on = o_norm_of(m, y, t, c->n_t, n);
    lin(c, in, &y->a, s->db);
    mamba_steps_jvp(c->rt, &steps, c->n_t, n, s->db, s->da);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_jvp(c->rt, &d, &at, c->n_t, s->dq, s->dk, s->dv, s->da, s->db, s->heads);
    lin(c, in, &y->z, s->dz);
    rowwise_mlp_jvp(c->rt, c->n_t, n, NULL, y->o.n_in, t->slope_z, t->lift_z, s->dz, s->heads);
    rowwise_norm_jvp(c->rt, &on, s->heads, s->heads);
}

static void mamba_mixer_vjp(const block_call *c, int add) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    const tape *t = c->t;
    sweep_scratch *s = c->s;
    scan at = whole_sequences(c);
    size_t n = c->b->n_rows, channels = y->q.n_out + y->k.n_out + y->v.n_out;
    mamba_steps steps = steps_of(m, y, t);
    norm_rows on = o_norm_of(m, y, t, c->n_t, n);
    rowwise_norm_vjp(c->rt, &on, s->heads, s->heads);
    rowwise_mlp_vjp(c->rt, c->n_t, n, NULL, y->o.n_in, t->slope_z, t->lift_z, s->dz, s->heads);
    lin_t(c, s->dz, &y->z, add, s->normed);
    delta d = delta_of(m, y, t, channels, s->head_scratch, s->head_stride);
    delta_vjp(c->rt, &d, &at, c->n_t, s->heads, s->dq, s->dk, s->dv, s->da, s->db);
    mamba_steps_vjp(c->rt, &steps, c->n_t, n, s->da, s->db);
    lin_t(c, s->db, &y->a, 1, s->normed);
    branches_vjp(c, &at);
}

/* All rows are computed, as each depends on those before it; then the rows of the subset are taken. */
void recurrent_jvp(const block_call *c, const real *in) {
    const layer_spec *y = &c->m->layer[c->layer];
    (y->mixer == MIX_CONV ? short_conv_jvp : y->mixer == MIX_DELTA ? delta_mixer_jvp : mamba_mixer_jvp)(c, in);
    rowwise_gather(c->n_t, c->b->n_rows, c->q->n, c->q->row, y->o.n_in, c->s->heads, c->s->heads);
}

void recurrent_vjp(const block_call *c, int add) {
    const layer_spec *y = &c->m->layer[c->layer];
    rowwise_expand(c->n_t, c->b->n_rows, c->q->n, c->q->row, y->o.n_in, c->s->heads);
    (y->mixer == MIX_CONV ? short_conv_vjp : y->mixer == MIX_DELTA ? delta_mixer_vjp : mamba_mixer_vjp)(c, add);
}
