#include "solver/svd_probe.h"
#include <string.h>

/* FIRST: the first probe's part of SVD_MISSED. */
static const double FIRST = 0.9, PI = 3.14159265358979323846;

/* Makes the first candidate a random unit vector of the complement of V, W included, uniform on its sphere. A random vector
 * that is orthogonalised to V and W has coefficients e along W and the new candidate, which together are its projection. */
static double aim_random(bases *s) {
    double *e = s->coef + s->n_v; /* bases_add_random's coefficients along W and the new candidate */
    if (s->n_v + s->n_w < s->cols) bases_add_random(s, 1);
    else {
        rng_normal(&s->g, s->n_w, s->x);
        for (size_t l = 0; l < s->n_w; l++) e[l] = (double)s->x[l];
    }
    return bases_aim(s, e);
}

/* t -= (q't) q, over n entries; returns q't */
static double subtract_along(const double *q, size_t n, double *t) {
    double dot = 0;
    for (size_t j = 0; j < n; j++) dot += q[j] * t[j];
    for (size_t j = 0; j < n; j++) t[j] -= dot * q[j];
    return dot;
}

/* A'A sum_j z_j V_j = sum_j t_j V_j + sum_l e_l W_l */
static void normal_product(const bases *s, const double *z, double *t, double *e) {
    memset(t, 0, s->n_v * sizeof *t);
    memset(e, 0, s->n_w * sizeof *e);
    for (size_t i = 0; i < s->n_u; i++) {
        const double *b = s->B + i * s->max_basis, *r = s->R + i * s->max_candidates;
        double u = 0;
        for (size_t j = 0; j < s->n_v; j++) u += b[j] * z[j];
        for (size_t j = 0; j < s->n_v; j++) t[j] += u * b[j];
        for (size_t l = 0; l < s->n_w; l++) e[l] += u * r[l];
    }
}

/* H q (see the header) = sum_j t_j V_j + sum_l e_l W_l, for q = sum_j z_j V_j. z and t are zero below `from`, the size of V
 * before the probe. The first product gives K'q; (limit^2 - Sigma^2)^-1 K'q is added to z along the Ritz vectors, and the
 * second product is H q outside of V. z is then as before. */
static void reduced_product(const probe *p, const bases *s, double *z, double *t, double *e) {
    normal_product(s, z, t, e);
    for (size_t i = s->k; i < p->n_held; i++) {
        const double *v = p->held + i * s->max_basis;
        double c = 0;
        for (size_t j = 0; j < p->from; j++) c += v[j] * t[j];
        if (c != 0) c /= p->bound - p->held_sigma[i] * p->held_sigma[i];
        for (size_t j = 0; j < p->from; j++) z[j] += c * v[j];
    }
    normal_product(s, z, t, e);
    memset(z, 0, p->from * sizeof *z);
    memset(t, 0, p->from * sizeof *t);
}

/* Makes room in V for a sequence and in W for its start. If W is full, the candidates that the k triplets couple to stay. */
static ps_code make_room(bases *s, ps_status *st) {
    if (s->n_v + PROBE_ROOM > s->max_basis && s->max_basis < s->cols) bases_restart(s, bases_restart_size(s));
    if (s->n_w < s->max_candidates || s->n_v + s->n_w == s->cols) return PS_OK;
    bases_restart(s, s->k);
    if (bases_order(s, st)) return st->code;
    s->n_w = s->k;
    return PS_OK;
}

/* The next step of the sequence, unless the bound holds or there is no room or no application for one */
static void next_step(probe *p, bases *s) {
    if (p->length == 0 || p->scale <= p->allowed * p->allowed * p->sum) p->state = PROBE_PASSED;
    else if (applications_left(s) < 2) p->state = PROBE_UNFINISHED;
    else if (s->n_v < s->max_basis) p->state = PROBE_STEP;
    else {
        p->state = PROBE_FULL;
        bases_restart(s, bases_restart_size(s));
    }
}

ps_code probe_begin(probe *p, bases *s, ps_status *st) {
    p->state = PROBE_PASSED;
    if (s->n_v == s->cols) return PS_OK; /* the complement is empty */
    if (make_room(s, st)) return st->code;
    size_t from = p->from = s->n_v;
    double limit = s->sigma[s->k - 1] + s->tol * s->sigma[0];
    p->bound = limit * limit;
    p->allowed = (p->missed == 0 ? FIRST : 0.5) * (SVD_MISSED - p->missed);
    p->missed += p->allowed;
    p->scale = 2 / PI * (double)(s->cols - from);
    p->poly = p->sum = 1;
    p->poly_before = p->beta = 0;
    p->n_held = s->n_ritz;
    for (size_t i = 0; i < p->n_held; i++) memcpy(p->held + i * s->max_basis, s->Q + i * from, from * sizeof *s->Q);
    memcpy(p->held_sigma, s->sigma, p->n_held * sizeof *s->sigma);
    memset(p->lanczos, 0, (s->max_basis + 1) * sizeof *p->lanczos);
    p->lanczos[from] = 1;
    p->steps = 0;
    p->length = aim_random(s);
    next_step(p, s);
    return PS_OK;
}

void probe_continue(probe *p, bases *s) {
    size_t stride = s->max_basis + 1;
    double *q = p->lanczos + p->steps * stride, *next = q + stride, *e = s->coef;
    p->state = PROBE_FOUND;
    if (s->worst > s->tol) return;
    p->steps++;
    memset(next, 0, stride * sizeof *next);
    reduced_product(p, s, q, next, e);
    double alpha = subtract_along(q, s->n_v, next), size = 0;
    for (size_t i = 0; i < p->steps; i++) subtract_along(p->lanczos + i * stride, s->n_v, next);
    for (size_t j = 0; j < s->n_v; j++) size += next[j] * next[j];
    double rise = (p->bound - alpha) * p->poly - p->beta * p->poly_before;
    if (rise < 0) return; /* a Ritz value of the sequence is above the limit */
    p->length = bases_aim(s, e);
    p->beta = sqrt(size + p->length * p->length);
    if (p->length != 0) {
        for (size_t j = 0; j < s->n_v; j++) next[j] /= p->beta;
        next[s->n_v] = p->length / p->beta;
        p->poly_before = p->poly, p->poly = rise / p->beta;
        p->sum += p->poly * p->poly;
    }
    next_step(p, s);
}

ps_code probe_make(probe *p, const bases *s, ps_status *st) {
    size_t n = s->max_basis;
    arena_slice table[] = {SLICE(p->held, n, n), SLICE(p->held_sigma, n), SLICE(p->lanczos, n + 1, n + 1)};
    p->state = PROBE_FOUND;
    return arena_make(&p->memory, table, COUNT(table), st);
}
