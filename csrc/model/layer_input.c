#include "model/layer_input.h"
#include <string.h>
#include "kernels/linear.h"
#include "ops/rowwise.h"

static norm_rows in_norm_of(const spec *m, const layer_spec *y, const tape *t, const size_t *map, size_t n_t, size_t n) {
    return (norm_rows){.kind = NORM_RMS, .eps = m->input_eps, .width = m->d_input, .groups = 1, .gain = y->in_norm.gain,
                       .bias = y->in_norm.bias, .xhat = t->xhat_u, .r = t->r_u, .map = map, .n_t = n_t, .n = n, .scale = 1};
}

static norm_rows post_of(const spec *m, const layer_spec *y, const tape *t, const size_t *map, size_t n_t, size_t n) {
    return (norm_rows){.kind = m->norm, .eps = m->norm_eps, .width = m->d_model, .groups = 1, .gain = y->post_in.gain,
                       .bias = y->post_in.bias, .xhat = t->xhat_i, .r = t->r_i, .map = map, .n_t = n_t, .n = n, .scale = 1};
}

/* ---- forward ---- */

/* u (n, P); row (P): scratch */
static void input_forward(const runtime *rt, const spec *m, const layer_spec *y, const batch *b, tape *t, const block_scratch *s,
                          real *row, real *u) {
    size_t n = b->n_rows, P = m->d_input;
    linear(rt, n, s->embedding, m->d_model, &y->in_proj, NULL, u, P, s->panel, s->panel_stride);
    norm_rows a = in_norm_of(m, y, t, NULL, 1, n);
    rowwise_norm_forward(rt, &a, u, u);
    for (size_t r = 0; r < n; r++) {
        weight_row(rt->isa, &y->in_embed, (size_t)b->token[r], row);
        for (size_t i = 0; i < P; i++) u[r * P + i] += (real)m->input_scale * row[i];
    }
}

void layer_input_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, tape *t, block_scratch *s, real *x) {
    const layer_spec *y = &m->layer[layer];
    size_t n = b->n_rows, C = m->d_model, P = m->d_input;
    if (y->in_gate.data) {
        input_forward(rt, m, y, b, t, s, s->hidden, t->lift_u);
        linear(rt, n, x, C, &y->in_gate, NULL, t->slope_u, P, s->panel, s->panel_stride);
        rowwise_mlp_forward(rt, &y->act, n, P, t->slope_u, t->lift_u, s->hidden);
        linear(rt, n, s->hidden, P, &y->in_out, NULL, s->mlp, C, s->panel, s->panel_stride);
        norm_rows a = post_of(m, y, t, NULL, 1, n);
        if (y->post_in.present) rowwise_norm_forward(rt, &a, s->mlp, s->mlp);
        rowwise_add(rt, n * C, s->mlp, x);
    }
    if (y->out_scale != 1) rowwise_scale(rt, n * C, (real)y->out_scale, x);
}

/* ---- jvp ---- */

static void lin(const block_call *c, const real *X, const weight *W, real *Y) {
    linear(c->rt, c->n_t * c->q->n, X, W->n_in, W, NULL, Y, W->n_out, c->s->panel, c->s->panel_stride);
}

static void lin_t(const block_call *c, const real *Y, const weight *W, real beta, real *X) {
    linear_t(c->rt, c->n_t * c->q->n, Y, W->n_out, W, beta, X, W->n_in, c->s->panel, c->s->panel_stride);
}

/*  h = act(g) . u
 * dh = slope . dg + lift . du */
void layer_input_jvp(const block_call *c) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = m->d_model, P = m->d_input;
    if (y->in_gate.data) {
        lin(c, s->stream, &y->in_gate, s->gate);
        if (c->from_embedding) {
            norm_rows a = in_norm_of(m, y, c->t, c->q->row, c->n_t, Q);
            rowwise_gather(c->n_t, n, Q, c->q->row, C, sweep_carried(s, m, m->n_carried - 1), s->attn);
            lin(c, s->attn, &y->in_proj, s->up);
            rowwise_norm_jvp(c->rt, &a, s->up, s->up);
        } else {
            memset(s->up, 0, c->n_t * Q * P * sizeof(real));
        }
        rowwise_mlp_jvp(c->rt, c->n_t, Q, c->q->row, P, c->t->slope_u, c->t->lift_u, s->gate, s->up);
        lin(c, s->up, &y->in_out, s->mlp);
        norm_rows a = post_of(m, y, c->t, c->q->row, c->n_t, Q);
        if (y->post_in.present) rowwise_norm_jvp(c->rt, &a, s->mlp, s->mlp);
        rowwise_add(c->rt, c->n_t * Q * C, s->mlp, s->stream);
    }
    if (y->out_scale != 1) rowwise_scale(c->rt, c->n_t * Q * C, (real)y->out_scale, s->stream);
}

/* ---- vjp ---- */

void layer_input_vjp(const block_call *c) {
    const spec *m = c->m;
    const layer_spec *y = &m->layer[c->layer];
    sweep_scratch *s = c->s;
    size_t n = c->b->n_rows, Q = c->q->n, C = m->d_model, P = m->d_input;
    if (y->out_scale != 1) rowwise_scale(c->rt, c->n_t * Q * C, (real)y->out_scale, s->stream);
    if (!y->in_gate.data) return;
    memcpy(s->mlp, s->stream, c->n_t * Q * C * sizeof(real));
    norm_rows a = post_of(m, y, c->t, c->q->row, c->n_t, Q);
    if (y->post_in.present) rowwise_norm_vjp(c->rt, &a, s->mlp, s->mlp);
    lin_t(c, s->mlp, &y->in_out, 0, s->up);
    rowwise_mlp_vjp(c->rt, c->n_t, Q, c->q->row, P, c->t->slope_u, c->t->lift_u, s->gate, s->up);
    lin_t(c, s->gate, &y->in_gate, 1, s->stream);
    if (!c->from_embedding) return;
    a = in_norm_of(m, y, c->t, c->q->row, c->n_t, Q);
    rowwise_norm_vjp(c->rt, &a, s->up, s->up);
    lin_t(c, s->up, &y->in_proj, 0, s->normed);
    rowwise_scatter_add(c->n_t, n, Q, c->q->row, C, s->normed, sweep_carried(s, m, m->n_carried - 1));
}
