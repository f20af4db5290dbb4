#include "solver/svd_bases.h"
#include <string.h>
#include "solver/orth.h"

/* ---- Ritz triplets and their certificate ---- */

/* out (m, n_v) = -factor_i q_i or, for U, out (m, n_u) = -factor_i p_i;  factor NULL: q_i, p_i */
static void right_rows(const bases *s, size_t m, const double *factor, real *out) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < s->n_v; j++)
            out[i * s->n_v + j] = (real)((factor ? -factor[i] : 1) * s->Q[i * s->n_v + j]);
}

static void left_rows(const bases *s, size_t m, const double *factor, real *out) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < s->n_u; j++)
            out[i * s->n_u + j] = (real)((factor ? -factor[i] : 1) * s->P[j * s->n_ritz + i]);
}

static double over(double residual, double sigma1) { return residual == 0 ? 0 : residual / sigma1; }

/* |R'p| / sigma_1 of triplet i */
static double recurrence(const bases *s, size_t i) {
    double sum = 0;
    for (size_t l = 0; l < s->n_w; l++) {
        double e = 0;
        for (size_t j = 0; j < s->n_u; j++) e += s->P[j * s->n_ritz + i] * s->R[j * s->max_candidates + l];
        sum += e * e;
    }
    return over(sqrt(sum), s->sigma[0]);
}

/* The residuals of the m leading Ritz triplets, from the operator's products */
static void certify(bases *s, size_t m) {
    right_rows(s, m, NULL, s->x);
    left_rows(s, m, s->sigma, s->y);
    svd_residual(s->b, m, s->rows, s->x, s->n_v, s->AV, s->y, s->n_u, s->U, s->residual, 2, s->work);
    left_rows(s, m, NULL, s->x);
    right_rows(s, m, s->sigma, s->y);
    svd_residual(s->b, m, s->cols, s->x, s->n_u, s->AtU, s->y, s->n_v, s->V, s->residual + 1, 2, s->work);
    s->worst = s->recurrence = m < s->k ? INFINITY : 0;
    for (size_t i = 0; i < m; i++) {
        for (size_t side = 0; side < 2; side++) {
            double *r = &s->residual[2 * i + side];
            *r = over(*r, s->sigma[0]);
            if (!(*r <= s->worst)) s->worst = *r;
        }
        double e = recurrence(s, i);
        if (e > s->recurrence) s->recurrence = e;
    }
}

ps_code bases_check(bases *s, ps_status *st) {
    s->n_ritz = min2(s->n_u, s->n_v);
    for (size_t i = 0; i < s->n_u; i++) memcpy(s->copy + i * s->n_v, s->B + i * s->max_basis, s->n_v * sizeof *s->B);
    if (small_svd(s->b, s->n_u, s->n_v, s->copy, s->P, s->sigma, s->Q, st)) return st->code;
    size_t m = min2(s->k, s->n_ritz);
    certify(s, m);
    double unit = s->A.unit != 0 ? s->A.unit : 1;
    for (size_t i = 0; i < m; i++) s->weight[i] = s->sigma[i] * unit;
    return svd_report(s->observer, s->A.applications, s->worst, m, s->weight, st);
}

/* ---- growing and shrinking the bases ---- */

/* Makes the m rows behind W orthonormal to V and W, and returns how many are independent. The caller counts them in n_w and
 * sets their columns of R. coef: see orth. */
static size_t extend_candidates(bases *s, size_t m, double scale) {
    size_t n = s->n_v + s->n_w;
    return orth(s->b, s->V, n, m, s->cols, scale, s->coef, n + m + 1, s->work);
}

void bases_add_random(bases *s, size_t m) {
    m = min2(m, min2(s->max_candidates - s->n_w, s->cols - s->n_v - s->n_w));
    rng_normal(&s->g, m * s->cols, candidate(s, s->n_w));
    size_t r = extend_candidates(s, m, 0);
    for (size_t i = 0; i < s->n_u; i++) /* A'U lies in V and W */
        for (size_t l = s->n_w; l < s->n_w + r; l++) s->R[i * s->max_candidates + l] = 0;
    s->n_w += r;
}

/* R (n_u, n_w) <- R rotation' */
static void rotate_R(bases *s) {
    for (size_t i = 0; i < s->n_u; i++) {
        double *r = s->R + i * s->max_candidates;
        for (size_t l = 0; l < s->n_w; l++) {
            s->weight[l] = 0;
            for (size_t c = 0; c < s->n_w; c++) s->weight[l] += s->rotation[l * s->n_w + c] * r[c];
        }
        memcpy(r, s->weight, s->n_w * sizeof *r);
    }
}

/* W <- rotation W, and R accordingly. Overwrites x and weight. */
static void rotate_candidates(bases *s) {
    size_t n = s->n_w;
    for (size_t i = 0; i < n * n; i++) s->x[i] = (real)s->rotation[i];
    svd_rotate(s->b, n, n, s->cols, s->x, candidate(s, 0), s->work);
    rotate_R(s);
}

double bases_aim(bases *s, const double *e) {
    size_t n = s->n_w;
    double length = 0, *h = s->left;
    for (size_t l = 0; l < n; l++) length += e[l] * e[l];
    if (!(length > 0)) return 0;
    length = sqrt(length);
    for (size_t l = 0; l < n; l++) h[l] = e[l] / length;
    double sign = h[0] > 0 ? -1 : 1; /* the sign for which h[0] - sign does not cancel */
    h[0] -= sign;
    double half = 1 - sign * e[0] / length; /* |h|^2 / 2 */
    for (size_t l = 0; l < n; l++)
        for (size_t c = 0; c < n; c++) s->rotation[l * n + c] = (l == c) - h[l] * h[c] / half;
    rotate_candidates(s);
    return sign * length;
}

ps_code bases_order(bases *s, ps_status *st) {
    size_t n = s->n_w, m = 0;
    int all = s->worst <= s->tol;
    if (n <= 1 || !s->n_ritz) return PS_OK;
    for (size_t i = 0; i < min2(s->k, s->n_ritz); i++) {
        if (!all && s->residual[2 * i] <= s->tol && s->residual[2 * i + 1] <= s->tol) continue;
        for (size_t l = 0; l < n; l++) {
            s->copy[m * n + l] = 0;
            for (size_t j = 0; j < s->n_u; j++)
                s->copy[m * n + l] += s->P[j * s->n_ritz + i] * s->R[j * s->max_candidates + l];
        }
        m++;
    }
    for (; m < n; m++) memset(s->copy + m * n, 0, n * sizeof *s->copy); /* at least as many rows as columns, so that the rotation is complete */
    if (small_svd(s->b, m, n, s->copy, s->left, s->weight, s->rotation, st)) return st->code;
    rotate_candidates(s);
    return PS_OK;
}

/* The first n candidates become the last vectors of V, which lie next to each other in memory. */
static void move_to_V(bases *s, size_t n) {
    s->n_v += n;
    s->n_w -= n;
    for (size_t i = 0; i < s->n_u; i++)
        memmove(s->R + i * s->max_candidates, s->R + i * s->max_candidates + n, s->n_w * sizeof *s->R);
}

/* New rows of U from the products of the last n vectors of V, and the columns of B. Returns the number of new rows. */
static size_t grow_U(bases *s, size_t n) {
    size_t from = s->n_v - n, ldc = s->n_u + n + 1;
    memcpy(s->U + s->n_u * s->rows, s->AV + from * s->rows, n * s->rows * sizeof *s->U);
    size_t r = orth(s->b, s->U, s->n_u, n, s->rows, s->A.largest, s->coef, ldc, s->work);
    for (size_t i = 0; i < s->n_u + r; i++)
        for (size_t j = 0; j < n; j++) s->B[i * s->max_basis + from + j] = s->coef[j * ldc + i];
    for (size_t i = s->n_u; i < s->n_u + r; i++) memset(s->B + i * s->max_basis, 0, from * sizeof *s->B);
    return r;
}

/* Random rows of U behind the r new ones, when the range of AV is used up. They are orthogonal to it: their rows of B are 0. */
static size_t fill_U(bases *s, size_t r, size_t want) {
    size_t n = s->n_u + r, m = min2(want - r, s->rows - n);
    rng_normal(&s->g, m * s->rows, s->U + n * s->rows);
    m = orth(s->b, s->U, n, m, s->rows, 0, s->coef, n + m + 1, s->work);
    for (size_t i = n; i < n + m; i++) memset(s->B + i * s->max_basis, 0, s->n_v * sizeof *s->B);
    return r + m;
}

/* New candidates and the rows of R from the products of the last r rows of U. */
static void grow_W(bases *s, size_t r) {
    size_t n = s->n_v + s->n_w, from = s->n_u - r, ldc = n + r + 1;
    memcpy(candidate(s, s->n_w), s->AtU + from * s->cols, r * s->cols * sizeof *s->V);
    size_t fresh = extend_candidates(s, r, s->A.largest);
    for (size_t i = 0; i < s->n_u; i++)
        for (size_t l = 0; l < s->n_w + fresh; l++) {
            double *entry = &s->R[i * s->max_candidates + l];
            if (i >= from) *entry = s->coef[(i - from) * ldc + s->n_v + l];
            else if (l >= s->n_w) *entry = 0;
        }
    s->n_w += fresh;
}

/* Moves n candidates to V and extends U, B, W and R: at most 2n applications. */

size_t bases_take_right(bases *s, size_t n) {
    move_to_V(s, n);
    size_t r = grow_U(s, n);
    if (s->n_u + r < s->k) r = fill_U(s, r, n);
    return min2(r, applications_left(s));
}

void bases_take_left(bases *s, size_t r) {
    s->n_u += r;
    grow_W(s, r);
}


size_t bases_restart_size(const bases *s) {
    size_t room = max2(s->block, PROBE_ROOM);
    return min2(s->n_ritz, s->k + (s->max_basis - s->k - room) / 2);
}

void bases_restart(bases *s, size_t p) {
    right_rows(s, p, NULL, s->x);
    svd_rotate(s->b, p, s->n_v, s->cols, s->x, s->V, s->work);
    svd_rotate(s->b, p, s->n_v, s->rows, s->x, s->AV, s->work);
    left_rows(s, p, NULL, s->x);
    svd_rotate(s->b, p, s->n_u, s->rows, s->x, s->U, s->work);
    svd_rotate(s->b, p, s->n_u, s->cols, s->x, s->AtU, s->work);
    memmove(s->V + p * s->cols, candidate(s, 0), s->n_w * s->cols * sizeof *s->V);
    for (size_t l = 0; l < s->n_w; l++) { /* R <- P'R, column by column */
        for (size_t i = 0; i < p; i++) {
            s->weight[i] = 0;
            for (size_t j = 0; j < s->n_u; j++) s->weight[i] += s->P[j * s->n_ritz + i] * s->R[j * s->max_candidates + l];
        }
        for (size_t i = 0; i < p; i++) s->R[i * s->max_candidates + l] = s->weight[i];
    }
    memset(s->B, 0, s->max_basis * s->max_basis * sizeof *s->B);
    memset(s->P, 0, p * p * sizeof *s->P);
    memset(s->Q, 0, p * p * sizeof *s->Q);
    for (size_t i = 0; i < p; i++) s->B[i * s->max_basis + i] = s->sigma[i], s->P[i * p + i] = s->Q[i * p + i] = 1;
    s->n_v = s->n_u = s->n_ritz = p;
}

void bases_start(bases *s, const svd_found *f) {
    s->n_v = s->n_u = s->k;
    memcpy(s->V, f->V, s->k * s->cols * sizeof *s->V);
    memcpy(s->AV, f->AV, s->k * s->rows * sizeof *s->V);
    memcpy(s->U, f->U, s->k * s->rows * sizeof *s->V);
    memcpy(s->AtU, f->AtU, s->k * s->cols * sizeof *s->V);
    memset(s->B, 0, s->max_basis * s->max_basis * sizeof *s->B);
    for (size_t i = 0; i < s->k; i++) s->B[i * s->max_basis + i] = f->sigma[i];
    grow_W(s, s->k);
}

void bases_ritz_vectors(const bases *s, real *right, real *left) {
    right_rows(s, s->k, NULL, s->x);
    gemm(s->b, 'n', 'n', s->k, s->cols, s->n_v, 1, s->x, s->n_v, s->V, s->cols, 0, right, s->cols);
    left_rows(s, s->k, NULL, s->x);
    gemm(s->b, 'n', 'n', s->k, s->rows, s->n_u, 1, s->x, s->n_u, s->U, s->rows, 0, left, s->rows);
}

ps_code bases_make(bases *s, ps_status *st) {
    s->max_candidates = min2(s->cols, s->k + 2 * s->block);
    s->worst = s->recurrence = INFINITY;
    size_t n = s->max_basis, w = s->max_candidates, all = n + w, big = max2(n, max2(w, s->k));
    arena_slice table[] = {
        SLICE(s->V, all, s->cols), SLICE(s->AV, n, s->rows), SLICE(s->U, n, s->rows), SLICE(s->AtU, n, s->cols),
        SLICE(s->B, n, n), SLICE(s->R, n, w), SLICE(s->P, n, n), SLICE(s->Q, n, n), SLICE(s->sigma, n),
        SLICE(s->residual, s->k, 2), SLICE(s->coef, s->block, all + 1), SLICE(s->copy, big, big),
        SLICE(s->left, big, big), SLICE(s->rotation, big, big), SLICE(s->weight, big),
        SLICE(s->work, all, max2(SVD_PANEL, s->block)), SLICE(s->x, big, big), SLICE(s->y, big, big)};
    return arena_make(&s->memory, table, COUNT(table), st);
}
