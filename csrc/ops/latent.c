#include "ops/latent.h"
#include <string.h>
#include "kernels/blocks.h"
#include "kernels/linear.h"

/* K_h, or V_h */
static weight rows_of(const latent_call *c, size_t head, int of_values) {
    const spec *m = c->m;
    size_t D = m->head_dim - m->rope_dim, n = of_values ? m->v_dim : D, first = head * (D + m->v_dim) + (of_values ? D : 0);
    weight w = *c->kv_b;
    w.data = weight_at(c->kv_b, first, 0);
    w.n_out = w.group = n;
    if (w.factors) w.factors = (const char *)w.factors + (ptrdiff_t)first * w.factor_stride * wtype_layouts[w.type].factor_bytes;
    return w;
}

static void lin(const latent_call *c, size_t n, const real *x, size_t ldx, const weight *w, real *y, size_t ldy) {
    linear(c->rt, n, x, ldx, w, NULL, y, ldy, c->panel, c->panel_stride);
}

static void lin_t(const latent_call *c, size_t n, const real *y, size_t ldy, const weight *w, real *x, size_t ldx) {
    linear_t(c->rt, n, y, ldy, w, 0, x, ldx, c->panel, c->panel_stride);
}

/* The rotated parts of n heads: to[i*ldt ..] = from[i*ldf ..] */
static void copy_rotated(const spec *m, size_t n, const real *from, size_t ldf, real *to, size_t ldt) {
    for (size_t i = 0; i < n; i++) memcpy(to + i * ldt, from + i * ldf, m->rope_dim * sizeof(real));
}

void latent_absorb(const latent_call *c, size_t n, const real *q, real *out) {
    const spec *m = c->m;
    size_t HS = m->head_dim, WK = latent_key(m);
    for (size_t h = 0; h < m->n_heads; h++) {
        weight w = rows_of(c, h, 0);
        lin_t(c, n, q + h * HS, latent_raw(m), &w, out + h * WK, latent_queries(m));
    }
    copy_rotated(m, n * m->n_heads, q + HS - m->rope_dim, HS, out + m->kv_rank, WK);
}

void latent_absorb_t(const latent_call *c, size_t n, const real *out, real *q) {
    const spec *m = c->m;
    size_t HS = m->head_dim, WK = latent_key(m);
    for (size_t h = 0; h < m->n_heads; h++) {
        weight w = rows_of(c, h, 0);
        lin(c, n, out + h * WK, latent_queries(m), &w, q + h * HS, latent_raw(m));
    }
    copy_rotated(m, n * m->n_heads, out + m->kv_rank, WK, q + HS - m->rope_dim, HS);
}

void latent_expand(const latent_call *c, size_t n, const real *sums, real *values) {
    const spec *m = c->m;
    for (size_t h = 0; h < m->n_heads; h++) {
        weight w = rows_of(c, h, 1);
        lin(c, n, sums + h * m->kv_rank, latent_sums(m), &w, values + h * m->v_dim, latent_values(m));
    }
}

void latent_expand_t(const latent_call *c, size_t n, const real *values, real *sums) {
    const spec *m = c->m;
    for (size_t h = 0; h < m->n_heads; h++) {
        weight w = rows_of(c, h, 1);
        lin_t(c, n, values + h * m->v_dim, latent_values(m), &w, sums + h * m->kv_rank, latent_sums(m));
    }
}

void latent_keys(const latent_call *c, size_t n, const real *k, real *keys, real *values) {
    const spec *m = c->m;
    size_t HS = m->head_dim, WK = latent_key(m);
    for (size_t h = 0; h < m->n_heads; h++) {
        weight of_key = rows_of(c, h, 0), of_value = rows_of(c, h, 1);
        if (keys) {
            lin(c, n, k, WK, &of_key, keys + h * HS, latent_raw(m));
            copy_rotated(m, n, k + m->kv_rank, WK, keys + h * HS + HS - m->rope_dim, latent_raw(m));
        }
        if (values) lin(c, n, k, WK, &of_value, values + h * m->v_dim, latent_values(m));
    }
}
