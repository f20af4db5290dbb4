#include "model/hooks.h"
#include <string.h>

int intervention_touches(const intervention *s, int id, int pos) {
    if (s->sequence >= 0 && s->sequence != id) return 0;
    for (size_t i = 0; i < s->n_ranges; i++)
        if (pos >= s->ranges[2 * i] && pos < s->ranges[2 * i + 1]) return 1;
    return 0;
}

int intervention_equal(const intervention *a, const intervention *b, size_t C) {
    return a->layer == b->layer && a->site == b->site && a->clamps == b->clamps && (!a->clamps || a->coefficient == b->coefficient)
        && (a->vector == b->vector || !memcmp(a->vector, b->vector, C * sizeof(real)));
}

/* x (C) += v (coefficient - v.x) */
static void clamp_row(const real *v, double coefficient, size_t C, real *x) {
    double along = 0;
    for (size_t c = 0; c < C; c++) along += (double)v[c] * (double)x[c];
    real step = (real)(coefficient - along);
    for (size_t c = 0; c < C; c++) x[c] += step * v[c];
}

real *hooks_captured(const hooks *v, size_t layer, site at) {
    for (size_t i = v->n_captures; i-- > 0;)
        if (v->captures[i].layer == layer && v->captures[i].site == at) return v->captures[i].out;
    return NULL;
}

void run_hooks(const hooks *v, size_t layer, site at, const batch *b, size_t C, real *x) {
    for (size_t i = 0; i < v->n_steer; i++) {
        const intervention *s = &v->steer[i];
        if (s->layer != layer || s->site != at) continue;
        for (size_t q = 0; q < b->n_seq; q++)
            for (size_t r = b->row0[q]; r < b->row0[q + 1]; r++) {
                if (!intervention_touches(s, b->id[q], b->pos[r])) continue;
                if (s->clamps) clamp_row(s->vector, s->coefficient, C, x + r * C);
                else for (size_t c = 0; c < C; c++) x[r * C + c] += s->vector[c];
            }
    }
    for (size_t i = 0; i < v->n_captures; i++)
        if (v->captures[i].layer == layer && v->captures[i].site == at)
            batch_spread(b, C, x, v->captures[i].out);
}

/* The derivative of one intervention there: a tangent is clamped to 0. */
static void derivative(const intervention *s, size_t layer, site at, const batch *b, const subset *q, size_t n_t, size_t C, real *x) {
    if (!s->clamps || s->layer != layer || s->site != at) return;
    for (size_t i = 0; i < b->n_seq; i++)
        for (size_t r = q->row0[i]; r < q->row0[i + 1]; r++)
            if (intervention_touches(s, b->id[i], q->pos[r]))
                for (size_t t = 0; t < n_t; t++) clamp_row(s->vector, 0, C, x + (t * q->n + r) * C);
}

void hooks_jvp(const hooks *v, size_t layer, site at, const batch *b, const subset *q, size_t n_t, size_t C, real *x) {
    for (size_t i = 0; i < v->n_steer; i++) derivative(&v->steer[i], layer, at, b, q, n_t, C, x);
}

void hooks_vjp(const hooks *v, size_t layer, site at, const batch *b, const subset *q, size_t n_t, size_t C, real *x) {
    for (size_t i = v->n_steer; i-- > 0;) derivative(&v->steer[i], layer, at, b, q, n_t, C, x);
}
