#include "svd_krylov.h"
#include <string.h>
#include "arena.h"
#include "orth.h"
#include "rng.h"

enum { PROBE_STEPS = 10, PROBE_MIN = 3, NOISY_CHECKS = 3 };
static const double REACH = 3, NOISE = 0.1;

typedef struct {
    const blas *b;
    const svd_observer *observer;
    svd_operator A;
    rng g;
    size_t rows, cols, k, block, max_basis, max_pool, max_applications;
    double tol;
    size_t n_v, n_u, n_w, n_ritz;
    real *V, *AV, *U, *AtU;   /* (max_basis + max_pool, cols) with W behind V; (max_basis, rows | rows | cols) */
    double *B, *R;            /* (max_basis, max_basis), (max_basis, max_pool) */
    double *P, *Q, *sigma;    /* of the SVD of B: P (n_u, n_ritz), Q (n_ritz, n_v), in rows of just that length */
    double *residual;         /* (k, 2) */
    double worst, recurrence; /* largest residual; the same as R sees it */
    size_t noisy;             /* checks at which rounding noise was all that was left */
    double *coef, *copy, *left, *turn, *weight, *before;
    real *work, *x, *y;
} krylov;

static size_t max2(size_t a, size_t b) { return a > b ? a : b; }
static size_t min2(size_t a, size_t b) { return a < b ? a : b; }
static size_t left_over(const krylov *s) { return s->max_applications - s->A.applications; }
static real *pool_row(const krylov *s, size_t l) { return s->V + (s->n_v + l) * s->cols; }

size_t krylov_min_basis(size_t rows, size_t cols, size_t k, size_t block) {
    size_t full = min2(rows, cols);
    return min2(full, k + max2(2 * min2(block, full), PROBE_STEPS + 2));
}

/* ---- Ritz triplets and their certificate ---- */

/* out (m, n_v) = -factor_i q_i or, for U, out (m, n_u) = -factor_i p_i;  factor NULL: plainly q_i, p_i */
static void right_rows(const krylov *s, size_t m, const double *factor, real *out) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < s->n_v; j++)
            out[i * s->n_v + j] = (real)((factor ? -factor[i] : 1) * s->Q[i * s->n_v + j]);
}

static void left_rows(const krylov *s, size_t m, const double *factor, real *out) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < s->n_u; j++)
            out[i * s->n_u + j] = (real)((factor ? -factor[i] : 1) * s->P[j * s->n_ritz + i]);
}

static double over(double residual, double sigma1) { return residual == 0 ? 0 : residual / sigma1; }

/* |R'p| / sigma_1 of triplet i */
static double recurrence(const krylov *s, size_t i) {
    double sum = 0;
    for (size_t l = 0; l < s->n_w; l++) {
        double e = 0;
        for (size_t j = 0; j < s->n_u; j++) e += s->P[j * s->n_ritz + i] * s->R[j * s->max_pool + l];
        sum += e * e;
    }
    return over(sqrt(sum), s->sigma[0]);
}

static void certify(krylov *s, size_t m) {
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

static ps_code check(krylov *s, ps_status *st) {
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

/* Makes the m rows behind the pool orthogonal to V and W and adds them to W; coef: orth's. R is the caller's. */
static size_t extend_pool(krylov *s, size_t m, double scale) {
    size_t n = s->n_v + s->n_w;
    return orth(s->b, s->V, n, m, s->cols, scale, s->coef, n + m + 1, s->work);
}

/* Up to m random vectors join the pool. A'U has no part in them: it lies in V and W. */
static void add_random(krylov *s, size_t m) {
    m = min2(m, min2(s->max_pool - s->n_w, s->cols - s->n_v - s->n_w));
    rng_normal(&s->g, m * s->cols, pool_row(s, s->n_w));
    size_t r = extend_pool(s, m, 0);
    for (size_t i = 0; i < s->n_u; i++)
        for (size_t l = s->n_w; l < s->n_w + r; l++) s->R[i * s->max_pool + l] = 0;
    s->n_w += r;
}

/* R (n_u, n_w) <- R turn' */
static void turn_R(krylov *s) {
    for (size_t i = 0; i < s->n_u; i++) {
        double *r = s->R + i * s->max_pool;
        for (size_t l = 0; l < s->n_w; l++) {
            s->weight[l] = 0;
            for (size_t c = 0; c < s->n_w; c++) s->weight[l] += s->turn[l * s->n_w + c] * r[c];
        }
        memcpy(r, s->weight, s->n_w * sizeof *r);
    }
}

/* W <- turn W with R to match. Overwrites x and weight. */
static void turn_pool(krylov *s) {
    size_t n = s->n_w;
    for (size_t i = 0; i < n * n; i++) s->x[i] = (real)s->turn[i];
    svd_rotate(s->b, n, n, s->cols, s->x, pool_row(s, 0), s->work);
    turn_R(s);
}

/* Turns the pool so that its first vector is along sum_l e_l W_l, by the reflection that swaps e and the first axis.
 * Returns 0 if e is zero. */
static int aim_pool(krylov *s, const double *e) {
    size_t n = s->n_w;
    double length = 0, *h = s->left;
    for (size_t l = 0; l < n; l++) length += e[l] * e[l];
    if (!(length > 0)) return 0;
    length = sqrt(length);
    for (size_t l = 0; l < n; l++) h[l] = e[l] / length;
    double sign = h[0] > 0 ? -1 : 1; /* the first vector may as well be the opposite one: no cancellation */
    h[0] -= sign;
    double half = 1 - sign * e[0] / length; /* |h|^2 / 2 */
    for (size_t l = 0; l < n; l++)
        for (size_t c = 0; c < n; c++) s->turn[l * n + c] = (l == c) - h[l] * h[c] / half;
    turn_pool(s);
    return 1;
}

/* Turns the pool by the right singular vectors of the residuals R'p of the triplets that still need it. */
static ps_code order_pool(krylov *s, ps_status *st) {
    size_t n = s->n_w, m = 0;
    int all = s->worst <= s->tol;
    if (n <= 1 || !s->n_ritz) return PS_OK;
    for (size_t i = 0; i < min2(s->k, s->n_ritz); i++) {
        if (!all && s->residual[2 * i] <= s->tol && s->residual[2 * i + 1] <= s->tol) continue;
        for (size_t l = 0; l < n; l++) {
            s->copy[m * n + l] = 0;
            for (size_t j = 0; j < s->n_u; j++)
                s->copy[m * n + l] += s->P[j * s->n_ritz + i] * s->R[j * s->max_pool + l];
        }
        m++;
    }
    for (; m < n; m++) memset(s->copy + m * n, 0, n * sizeof *s->copy); /* square at least, for a full turn */
    if (small_svd(s->b, m, n, s->copy, s->left, s->weight, s->turn, st)) return st->code;
    turn_pool(s);
    return PS_OK;
}

/* The first n pool vectors become the last of V. */
static void move_to_V(krylov *s, size_t n) {
    s->n_v += n;
    s->n_w -= n;
    for (size_t i = 0; i < s->n_u; i++)
        memmove(s->R + i * s->max_pool, s->R + i * s->max_pool + n, s->n_w * sizeof *s->R);
}

/* U from the products of the last n vectors of V, and the columns of B. Returns how many rows of U are new. */
static size_t grow_U(krylov *s, size_t n) {
    size_t from = s->n_v - n, ldc = s->n_u + n + 1;
    memcpy(s->U + s->n_u * s->rows, s->AV + from * s->rows, n * s->rows * sizeof *s->U);
    size_t r = orth(s->b, s->U, s->n_u, n, s->rows, s->A.largest, s->coef, ldc, s->work);
    for (size_t i = 0; i < s->n_u + r; i++)
        for (size_t j = 0; j < n; j++) s->B[i * s->max_basis + from + j] = s->coef[j * ldc + i];
    for (size_t i = s->n_u; i < s->n_u + r; i++) memset(s->B + i * s->max_basis, 0, from * sizeof *s->B);
    return r;
}

/* Random rows of U behind the r new ones, as the range of AV has no more: orthogonal to it, so their row of B is 0. */
static size_t fill_U(krylov *s, size_t r, size_t want) {
    size_t n = s->n_u + r, m = min2(want - r, s->rows - n);
    rng_normal(&s->g, m * s->rows, s->U + n * s->rows);
    m = orth(s->b, s->U, n, m, s->rows, 0, s->coef, n + m + 1, s->work);
    for (size_t i = n; i < n + m; i++) memset(s->B + i * s->max_basis, 0, s->n_v * sizeof *s->B);
    return r + m;
}

/* W and the rows of R from the products of the last r rows of U. */
static void grow_W(krylov *s, size_t r) {
    size_t n = s->n_v + s->n_w, from = s->n_u - r, ldc = n + r + 1;
    memcpy(pool_row(s, s->n_w), s->AtU + from * s->cols, r * s->cols * sizeof *s->V);
    size_t fresh = extend_pool(s, r, s->A.largest);
    for (size_t i = 0; i < s->n_u; i++)
        for (size_t l = 0; l < s->n_w + fresh; l++) {
            double *entry = &s->R[i * s->max_pool + l];
            if (i >= from) *entry = s->coef[(i - from) * ldc + s->n_v + l];
            else if (l >= s->n_w) *entry = 0;
        }
    s->n_w += fresh;
}

static ps_code step(krylov *s, size_t n, ps_status *st) {
    size_t from = s->n_v;
    if (svd_multiply(&s->A, 0, n, pool_row(s, 0), s->AV + from * s->rows, st)) return st->code;
    move_to_V(s, n);
    size_t r = grow_U(s, n);
    if (s->n_u + r < s->k) r = fill_U(s, r, n);
    r = min2(r, left_over(s));
    if (svd_multiply(&s->A, 1, r, s->U + s->n_u * s->rows, s->AtU + s->n_u * s->cols, st)) return st->code;
    s->n_u += r;
    grow_W(s, r);
    return check(s, st);
}

static void restart(krylov *s) {
    size_t room = max2(s->block, PROBE_STEPS), p = min2(s->n_ritz, s->k + (s->max_basis - s->k - room) / 2);
    right_rows(s, p, NULL, s->x);
    svd_rotate(s->b, p, s->n_v, s->cols, s->x, s->V, s->work);
    svd_rotate(s->b, p, s->n_v, s->rows, s->x, s->AV, s->work);
    left_rows(s, p, NULL, s->x);
    svd_rotate(s->b, p, s->n_u, s->rows, s->x, s->U, s->work);
    svd_rotate(s->b, p, s->n_u, s->cols, s->x, s->AtU, s->work);
    memmove(s->V + p * s->cols, pool_row(s, 0), s->n_w * s->cols * sizeof *s->V);
    for (size_t l = 0; l < s->n_w; l++) { /* R <- P'R, column by column */
        for (size_t i = 0; i < p; i++) {
            s->weight[i] = 0;
            for (size_t j = 0; j < s->n_u; j++) s->weight[i] += s->P[j * s->n_ritz + i] * s->R[j * s->max_pool + l];
        }
        for (size_t i = 0; i < p; i++) s->R[i * s->max_pool + l] = s->weight[i];
    }
    memset(s->B, 0, s->max_basis * s->max_basis * sizeof *s->B);
    memset(s->P, 0, p * p * sizeof *s->P);
    memset(s->Q, 0, p * p * sizeof *s->Q);
    for (size_t i = 0; i < p; i++) s->B[i * s->max_basis + i] = s->sigma[i], s->P[i * p + i] = s->Q[i * p + i] = 1;
    s->n_v = s->n_u = s->n_ritz = p;
}

/* ---- the run ---- */

static int noise_only(const krylov *s) { return s->worst > s->tol && s->recurrence <= NOISE * s->tol; }

/* |A| on what was added to V since it had n_v vectors: the largest singular value of those columns of B. */
static ps_code probe_value(krylov *s, size_t n_v, double *theta, ps_status *st) {
    size_t n = s->n_v - n_v;
    for (size_t i = 0; i < s->n_u; i++) memcpy(s->copy + i * n, s->B + i * s->max_basis + n_v, n * sizeof *s->B);
    ps_code code = small_svd(s->b, s->n_u, n, s->copy, s->left, s->weight, s->turn, st);
    *theta = code ? 0 : s->weight[0];
    return code;
}

/* A random direction of the complement of V, W included, to the front of the pool. */
static int aim_random(krylov *s) {
    double *e = s->coef + s->n_v; /* what add_random's vector was made of, besides V */
    if (s->n_w < s->max_pool && s->n_v + s->n_w < s->cols) add_random(s, 1);
    else
        for (size_t l = 0; l < s->n_w; l++) e[l] = 1 - 2 * rng_uniform(&s->g);
    return aim_pool(s, e);
}

/* A'A x made orthogonal to V, x the newest vector of V, to the front of the pool: R'B x. 0 if there is nothing. */
static int aim_onward(krylov *s) {
    double *e = s->coef;
    for (size_t l = 0; l < s->n_w; l++) {
        e[l] = 0;
        for (size_t i = 0; i < s->n_u; i++) e[l] += s->B[i * s->max_basis + s->n_v - 1] * s->R[i * s->max_pool + l];
    }
    return aim_pool(s, e);
}

/* *found: the top k is not what it was before the probe. */
static ps_code probe(krylov *s, int *found, ps_status *st) {
    double theta = 0, last, reach = s->sigma[s->k - 1] + s->tol * s->sigma[0];
    *found = 0;
    if (s->n_v + PROBE_STEPS > s->max_basis && s->max_basis < s->cols) restart(s);
    memcpy(s->before, s->sigma, s->k * sizeof *s->sigma);
    size_t n_v = s->n_v;
    int on = aim_random(s);
    for (size_t i = 1; on && i <= PROBE_STEPS && left_over(s); i++) {
        if (step(s, 1, st)) return st->code;
        if (s->worst > s->tol) {
            *found = !noise_only(s);
            return PS_OK;
        }
        last = theta;
        if (probe_value(s, n_v, &theta, st)) return st->code;
        on = (i < PROBE_MIN || theta + REACH * (theta - last) >= reach) && aim_onward(s);
    }
    for (size_t i = 0; i < s->k; i++) *found |= s->sigma[i] > s->before[i] + s->tol * s->sigma[0];
    return PS_OK;
}

static ps_code solve(krylov *s, svd_stop *stop, ps_status *st) {
    for (;;) {
        int found = 0;
        if (!s->n_w) add_random(s, s->block);
        if (!s->n_w) { /* V spans everything: B is exact */
            *stop = s->worst <= s->tol ? SVD_CERTIFIED : SVD_PRECISION;
            return PS_OK;
        }
        if (!left_over(s)) {
            *stop = s->worst <= s->tol ? SVD_CERTIFIED : SVD_MAX_APPLICATIONS;
            return PS_OK;
        }
        size_t n = min2(min2(s->block, s->n_w), (left_over(s) + 1) / 2);
        if (s->n_v + n > s->max_basis) restart(s);
        if (s->n_w > n && order_pool(s, st)) return st->code;
        if (step(s, n, st)) return st->code;
        do
            if (s->worst <= s->tol && probe(s, &found, st)) return st->code;
        while (found && s->worst <= s->tol);
        if (s->worst <= s->tol) {
            *stop = SVD_CERTIFIED;
            return PS_OK;
        }
        if (noise_only(s) && ++s->noisy == NOISY_CHECKS) {
            *stop = SVD_PRECISION;
            return PS_OK;
        }
    }
}

static void extract(krylov *s, svd_result *out) {
    real *right = s->A.flipped ? out->U : out->V, *left = s->A.flipped ? out->V : out->U;
    right_rows(s, s->k, NULL, s->x);
    gemm(s->b, 'n', 'n', s->k, s->cols, s->n_v, 1, s->x, s->n_v, s->V, s->cols, 0, right, s->cols);
    left_rows(s, s->k, NULL, s->x);
    gemm(s->b, 'n', 'n', s->k, s->rows, s->n_u, 1, s->x, s->n_u, s->U, s->rows, 0, left, s->rows);
    double unit = s->A.unit != 0 ? s->A.unit : 1;
    for (size_t i = 0; i < s->k; i++) {
        out->sigma[i] = s->sigma[i] * unit;
        out->residuals[2 * i] = s->residual[2 * i + (s->A.flipped ? 1 : 0)];
        out->residuals[2 * i + 1] = s->residual[2 * i + (s->A.flipped ? 0 : 1)];
    }
    out->next_sigma = s->n_ritz > s->k ? s->sigma[s->k] * unit : (double)NAN;
    out->applications = s->A.applications;
    out->certificate_applications = 0;
}

static ps_code check_options(const linop *J, const krylov_options *o, ps_status *st) {
    size_t full = min2(J->rows, J->cols);
    if (o->k < 1 || o->k > full)
        return ps_fail(st, PS_ERR_VALUE, "k = %zu, but an operator of %zu x %zu has 1 to %zu singular triplets", o->k,
                       J->rows, J->cols, full);
    if (o->block < 1) return ps_fail(st, PS_ERR_VALUE, "block must be at least 1");
    if (!(o->tol > 0) || !isfinite(o->tol))
        return ps_fail(st, PS_ERR_VALUE, "tol must be a positive number, not %g", o->tol);
    if (o->max_applications / 2 < o->k)
        return ps_fail(st, PS_ERR_VALUE, "max_applications = %zu is not enough for k = %zu triplets: 2 k is the least",
                       o->max_applications, o->k);
    size_t least = krylov_min_basis(J->rows, J->cols, o->k, o->block);
    if (o->max_basis < least)
        return ps_fail(st, PS_ERR_VALUE, "max_basis = %zu is too small: k = %zu with block = %zu needs %zu",
                       o->max_basis, o->k, o->block, least);
    return PS_OK;
}

ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st) {
    arena memory = {0};
    if (check_options(J, o, st)) return st->code;
    size_t rows = max2(J->rows, J->cols), cols = min2(J->rows, J->cols);
    krylov s = {.b = b, .observer = observer, .A = {.J = J, .flipped = J->rows < J->cols}, .g = {.seed = o->seed},
                .rows = rows, .cols = cols, .k = o->k, .block = min2(o->block, cols), .max_basis = min2(o->max_basis, cols),
                .max_applications = o->max_applications, .tol = o->tol, .worst = INFINITY};
    s.max_pool = min2(cols, s.k + 2 * s.block);
    size_t n = s.max_basis, w = s.max_pool, all = n + w, big = max2(n, max2(w, s.k));
    arena_slice table[] = {
        SLICE(s.V, all, cols), SLICE(s.AV, n, rows), SLICE(s.U, n, rows), SLICE(s.AtU, n, cols),
        SLICE(s.B, n, n), SLICE(s.R, n, w), SLICE(s.P, n, n), SLICE(s.Q, n, n), SLICE(s.sigma, n),
        SLICE(s.residual, s.k, 2), SLICE(s.coef, s.block, all + 1), SLICE(s.copy, big, big),
        SLICE(s.left, big, big), SLICE(s.turn, big, big), SLICE(s.weight, big), SLICE(s.before, s.k),
        SLICE(s.work, all, max2(SVD_PANEL, s.block)), SLICE(s.x, big, big), SLICE(s.y, big, big)};
    if (arena_make(&memory, table, COUNT(table), st)) return st->code;
    ps_code code = solve(&s, &out->stop, st);
    if (!code) extract(&s, out);
    arena_free(&memory);
    return code;
}
