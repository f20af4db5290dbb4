#include "solver/svd_krylov.h"
#include <string.h>
#include "base/arena.h"
#include "solver/orth.h"
#include "base/rng.h"

/* PROBE_ROOM: vectors of V that a probe needs at least. NOISY_CHECKS: that many steps whose residual is above tol though the
 * recurrence is below NOISE * tol end the run. FIRST: the first probe's part of SVD_MISSED. */
enum { PROBE_ROOM = 10, NOISY_CHECKS = 3 };
static const double NOISE = 0.1, FIRST = 0.9, PI = 3.14159265358979323846;

typedef struct {
    const blas *b;
    const svd_observer *observer;
    svd_operator A;
    rng g;
    size_t rows, cols, k, block, max_basis, max_candidates, max_applications;
    double tol;
    size_t n_v, n_u, n_w, n_ritz;
    real *V, *AV, *U, *AtU;   /* (max_basis + max_candidates, cols) with W behind V; (max_basis, rows | rows | cols) */
    double *B, *R;            /* (max_basis, max_basis), (max_basis, max_candidates) */
    double *P, *Q, *sigma;    /* the SVD of B: P (n_u, n_ritz), Q (n_ritz, n_v), contiguous */
    double *residual;         /* (k, 2) */
    double worst, recurrence; /* the largest residual: the certificate's, the recurrence's |R'p| */
    size_t noisy;             /* checks after which noise_only held */
    double missed;            /* failure probability of the probes so far together */
    /* of a probe, in coordinates of V: the Ritz vectors before it, (n_held, max_basis), and its Lanczos vectors,
     * (max_basis + 1, max_basis + 1) */
    size_t n_held;
    double *held, *held_sigma, *lanczos;
    double *coef, *copy, *left, *rotation, *weight;
    real *work, *x, *y;
} krylov;

static size_t max2(size_t a, size_t b) { return a > b ? a : b; }
static size_t min2(size_t a, size_t b) { return a < b ? a : b; }
static size_t applications_left(const krylov *s) { return s->max_applications - s->A.applications; }
static real *candidate(const krylov *s, size_t l) { return s->V + (s->n_v + l) * s->cols; }

size_t krylov_min_basis(size_t rows, size_t cols, size_t k, size_t block) {
    size_t full = min2(rows, cols);
    return min2(full, k + max2(2 * min2(block, full), PROBE_ROOM + 2));
}

/* ---- Ritz triplets and their certificate ---- */

/* out (m, n_v) = -factor_i q_i or, for U, out (m, n_u) = -factor_i p_i;  factor NULL: q_i, p_i */
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
        for (size_t j = 0; j < s->n_u; j++) e += s->P[j * s->n_ritz + i] * s->R[j * s->max_candidates + l];
        sum += e * e;
    }
    return over(sqrt(sum), s->sigma[0]);
}

/* The residuals of the m leading Ritz triplets, from the operator's products */
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

/* The Ritz triplets of the bases as they are now, their residuals, and a report */
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

/* Makes the m rows behind W orthonormal to V and W, and returns how many are independent. The caller counts them in n_w and
 * sets their columns of R. coef: see orth. */
static size_t extend_candidates(krylov *s, size_t m, double scale) {
    size_t n = s->n_v + s->n_w;
    return orth(s->b, s->V, n, m, s->cols, scale, s->coef, n + m + 1, s->work);
}

/* Adds up to m random candidates. A'U lies in V and W, so their columns of R are 0. */
static void add_random(krylov *s, size_t m) {
    m = min2(m, min2(s->max_candidates - s->n_w, s->cols - s->n_v - s->n_w));
    rng_normal(&s->g, m * s->cols, candidate(s, s->n_w));
    size_t r = extend_candidates(s, m, 0);
    for (size_t i = 0; i < s->n_u; i++)
        for (size_t l = s->n_w; l < s->n_w + r; l++) s->R[i * s->max_candidates + l] = 0;
    s->n_w += r;
}

/* R (n_u, n_w) <- R rotation' */
static void rotate_R(krylov *s) {
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
static void rotate_candidates(krylov *s) {
    size_t n = s->n_w;
    for (size_t i = 0; i < n * n; i++) s->x[i] = (real)s->rotation[i];
    svd_rotate(s->b, n, n, s->cols, s->x, candidate(s, 0), s->work);
    rotate_R(s);
}

/* Reflects the candidates so that the first is sum_l e_l W_l / |e| or its opposite. Returns |e|, negative for the opposite,
 * 0 if e is 0. */
static double aim_candidates(krylov *s, const double *e) {
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

/* Rotates the candidates by the right singular vectors of the residuals R'p of the triplets that are not certified, or of
 * all k if all are: the first candidates then carry most of them. */
static ps_code order_candidates(krylov *s, ps_status *st) {
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
static void move_to_V(krylov *s, size_t n) {
    s->n_v += n;
    s->n_w -= n;
    for (size_t i = 0; i < s->n_u; i++)
        memmove(s->R + i * s->max_candidates, s->R + i * s->max_candidates + n, s->n_w * sizeof *s->R);
}

/* New rows of U from the products of the last n vectors of V, and the columns of B. Returns the number of new rows. */
static size_t grow_U(krylov *s, size_t n) {
    size_t from = s->n_v - n, ldc = s->n_u + n + 1;
    memcpy(s->U + s->n_u * s->rows, s->AV + from * s->rows, n * s->rows * sizeof *s->U);
    size_t r = orth(s->b, s->U, s->n_u, n, s->rows, s->A.largest, s->coef, ldc, s->work);
    for (size_t i = 0; i < s->n_u + r; i++)
        for (size_t j = 0; j < n; j++) s->B[i * s->max_basis + from + j] = s->coef[j * ldc + i];
    for (size_t i = s->n_u; i < s->n_u + r; i++) memset(s->B + i * s->max_basis, 0, from * sizeof *s->B);
    return r;
}

/* Random rows of U behind the r new ones, when the range of AV is used up. They are orthogonal to it: their rows of B are 0. */
static size_t fill_U(krylov *s, size_t r, size_t want) {
    size_t n = s->n_u + r, m = min2(want - r, s->rows - n);
    rng_normal(&s->g, m * s->rows, s->U + n * s->rows);
    m = orth(s->b, s->U, n, m, s->rows, 0, s->coef, n + m + 1, s->work);
    for (size_t i = n; i < n + m; i++) memset(s->B + i * s->max_basis, 0, s->n_v * sizeof *s->B);
    return r + m;
}

/* New candidates and the rows of R from the products of the last r rows of U. */
static void grow_W(krylov *s, size_t r) {
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
static ps_code step(krylov *s, size_t n, ps_status *st) {
    size_t from = s->n_v;
    if (svd_multiply(&s->A, 0, n, candidate(s, 0), s->AV + from * s->rows, st)) return st->code;
    move_to_V(s, n);
    size_t r = grow_U(s, n);
    if (s->n_u + r < s->k) r = fill_U(s, r, n);
    r = min2(r, applications_left(s));
    if (svd_multiply(&s->A, 1, r, s->U + s->n_u * s->rows, s->AtU + s->n_u * s->cols, st)) return st->code;
    s->n_u += r;
    grow_W(s, r);
    return check(s, st);
}

/* Ritz triplets that a restart keeps: the k that are wanted and half of the room beside them. Those beyond k keep their
 * convergence, and the k-th converges at the rate of the gap to the first that is dropped; the other half is for new
 * directions, so that restarts, which cost as much as several steps, are few. The room for a step or a probe stays free. */
static size_t restart_size(const krylov *s) {
    size_t room = max2(s->block, PROBE_ROOM);
    return min2(s->n_ritz, s->k + (s->max_basis - s->k - room) / 2);
}

/* V and U become the p leading Ritz vectors; W stays. */
static void restart(krylov *s, size_t p) {
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

/* ---- the run ---- */

/* Whether the operator's rounding errors alone keep the residuals above tol */
static int noise_only(const krylov *s) { return s->worst > s->tol && s->recurrence <= NOISE * s->tol; }

/* Makes the first candidate a random unit vector of the complement of V, W included, uniform on its sphere. A random vector
 * that is orthogonalised to V and W has coefficients e along W and the new candidate, which together are its projection. */
static double aim_random(krylov *s) {
    double *e = s->coef + s->n_v; /* add_random's coefficients along W and the new candidate */
    if (s->n_v + s->n_w < s->cols) add_random(s, 1);
    else {
        rng_normal(&s->g, s->n_w, s->x);
        for (size_t l = 0; l < s->n_w; l++) e[l] = (double)s->x[l];
    }
    return aim_candidates(s, e);
}

/* t -= (q't) q, over n entries; returns q't */
static double subtract_along(const double *q, size_t n, double *t) {
    double dot = 0;
    for (size_t j = 0; j < n; j++) dot += q[j] * t[j];
    for (size_t j = 0; j < n; j++) t[j] -= dot * q[j];
    return dot;
}

/* A'A sum_j z_j V_j = sum_j t_j V_j + sum_l e_l W_l */
static void normal_product(const krylov *s, const double *z, double *t, double *e) {
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
static void reduced_product(const krylov *s, double *z, size_t from, double bound, double *t, double *e) {
    normal_product(s, z, t, e);
    for (size_t i = s->k; i < s->n_held; i++) {
        const double *v = s->held + i * s->max_basis;
        double c = 0;
        for (size_t j = 0; j < from; j++) c += v[j] * t[j];
        if (c != 0) c /= bound - s->held_sigma[i] * s->held_sigma[i];
        for (size_t j = 0; j < from; j++) z[j] += c * v[j];
    }
    normal_product(s, z, t, e);
    memset(z, 0, from * sizeof *z);
    memset(t, 0, from * sizeof *t);
}

typedef enum { PROBE_PASSED, PROBE_FOUND, PROBE_FULL, PROBE_UNFINISHED } probe_end;

/* Makes room in V for a sequence and in W for its start. If W is full, the candidates that the k triplets couple to stay. */
static ps_code make_room(krylov *s, ps_status *st) {
    if (s->n_v + PROBE_ROOM > s->max_basis && s->max_basis < s->cols) restart(s, restart_size(s));
    if (s->n_w < s->max_candidates || s->n_v + s->n_w == s->cols) return PS_OK;
    restart(s, s->k);
    if (order_candidates(s, st)) return st->code;
    s->n_w = s->k;
    return PS_OK;
}

/* One closing probe (see the header). *end: PROBE_PASSED: nothing is missing. PROBE_FOUND: a value above the limit exists, or
 * the triplets are no longer certified. PROBE_FULL: V was full and has been restarted; another probe must follow.
 * PROBE_UNFINISHED: no applications are left. */
static ps_code probe(krylov *s, probe_end *end, ps_status *st) {
    *end = PROBE_PASSED;
    if (s->n_v == s->cols) return PS_OK; /* the complement is empty */
    if (make_room(s, st)) return st->code;
    size_t from = s->n_v, stride = s->max_basis + 1, steps = 0;
    double limit = s->sigma[s->k - 1] + s->tol * s->sigma[0], bound = limit * limit;
    double allowed = (s->missed == 0 ? FIRST : 0.5) * (SVD_MISSED - s->missed), poly = 1, poly_before = 0, beta = 0, sum = 1;
    double scale = 2 / PI * (double)(s->cols - from);
    s->missed += allowed;
    s->n_held = s->n_ritz;
    for (size_t i = 0; i < s->n_held; i++) memcpy(s->held + i * s->max_basis, s->Q + i * from, from * sizeof *s->Q);
    memcpy(s->held_sigma, s->sigma, s->n_held * sizeof *s->sigma);
    memset(s->lanczos, 0, stride * stride * sizeof *s->lanczos);
    s->lanczos[from] = 1;
    double length = aim_random(s);
    while (length != 0 && !(scale <= allowed * allowed * sum)) {
        double *q = s->lanczos + steps * stride, *next = q + stride, *e = s->coef;
        *end = applications_left(s) < 2 ? PROBE_UNFINISHED : s->n_v == s->max_basis ? PROBE_FULL : PROBE_FOUND;
        if (*end == PROBE_FULL) restart(s, restart_size(s));
        if (*end != PROBE_FOUND) return PS_OK;
        if (step(s, 1, st) || s->worst > s->tol) return st->code;
        steps++;
        reduced_product(s, q, from, bound, next, e);
        double alpha = subtract_along(q, s->n_v, next), size = 0;
        for (size_t i = 0; i < steps; i++) subtract_along(s->lanczos + i * stride, s->n_v, next);
        for (size_t j = 0; j < s->n_v; j++) size += next[j] * next[j];
        double rise = (bound - alpha) * poly - beta * poly_before;
        if (rise < 0) return PS_OK; /* a Ritz value of the sequence is above the limit */
        length = aim_candidates(s, e);
        beta = sqrt(size + length * length);
        if (length == 0) break;
        for (size_t j = 0; j < s->n_v; j++) next[j] /= beta;
        next[s->n_v] = length / beta;
        poly_before = poly, poly = rise / beta;
        sum += poly * poly;
    }
    *end = PROBE_PASSED;
    return PS_OK;
}

static ps_code solve(krylov *s, svd_stop *stop, ps_status *st) {
    for (;;) {
        if (!s->n_w) add_random(s, s->block);
        if (!s->n_w) { /* V spans everything: B is exact */
            *stop = s->worst <= s->tol ? SVD_CERTIFIED : SVD_PRECISION;
            s->missed = 0;
            return PS_OK;
        }
        if (!applications_left(s)) {
            *stop = SVD_MAX_APPLICATIONS;
            return PS_OK;
        }
        size_t n = min2(min2(s->block, s->n_w), (applications_left(s) + 1) / 2);
        if (s->n_v + n > s->max_basis) restart(s, restart_size(s));
        if (s->n_w > n && order_candidates(s, st)) return st->code;
        if (step(s, n, st)) return st->code;
        probe_end end = PROBE_FOUND;
        while (s->worst <= s->tol && (end == PROBE_FOUND || end == PROBE_FULL))
            if (probe(s, &end, st)) return st->code;
        if (s->worst <= s->tol) {
            *stop = end == PROBE_PASSED ? SVD_CERTIFIED : SVD_MAX_APPLICATIONS;
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
    out->missed_probability = out->stop == SVD_CERTIFIED ? s->missed : 1;
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

static ps_code krylov_make(krylov *s, arena *memory, ps_status *st) {
    s->max_candidates = min2(s->cols, s->k + 2 * s->block);
    s->worst = INFINITY;
    size_t n = s->max_basis, w = s->max_candidates, all = n + w, big = max2(n, max2(w, s->k));
    arena_slice table[] = {
        SLICE(s->V, all, s->cols), SLICE(s->AV, n, s->rows), SLICE(s->U, n, s->rows), SLICE(s->AtU, n, s->cols),
        SLICE(s->B, n, n), SLICE(s->R, n, w), SLICE(s->P, n, n), SLICE(s->Q, n, n), SLICE(s->sigma, n),
        SLICE(s->residual, s->k, 2), SLICE(s->coef, s->block, all + 1), SLICE(s->copy, big, big),
        SLICE(s->left, big, big), SLICE(s->rotation, big, big), SLICE(s->weight, big), SLICE(s->held, n, n),
        SLICE(s->held_sigma, n),
        SLICE(s->lanczos, n + 1, n + 1), SLICE(s->work, all, max2(SVD_PANEL, s->block)), SLICE(s->x, big, big),
        SLICE(s->y, big, big)};
    return arena_make(memory, table, COUNT(table), st);
}

ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st) {
    arena memory = {0};
    if (check_options(J, o, st)) return st->code;
    size_t rows = max2(J->rows, J->cols), cols = min2(J->rows, J->cols);
    krylov s = {.b = b, .observer = observer, .A = {.J = J, .flipped = J->rows < J->cols}, .g = {.seed = o->seed},
                .rows = rows, .cols = cols, .k = o->k, .block = min2(o->block, cols), .max_basis = min2(o->max_basis, cols),
                .max_applications = o->max_applications, .tol = o->tol};
    if (krylov_make(&s, &memory, st)) return st->code;
    ps_code code = solve(&s, &out->stop, st);
    if (!code) extract(&s, out);
    arena_free(&memory);
    return code;
}

ps_code krylov_probe(const blas *b, const svd_found *f, const krylov_options *o, size_t *spent,
                     double *missed_probability, ps_status *st) {
    arena memory = {0};
    size_t rows = f->A.J->rows, cols = f->A.J->cols, k = o->k;
    krylov s = {.b = b, .A = f->A, .g = {.seed = o->seed, .stream = 1}, .rows = rows, .cols = cols, .k = k, .block = k,
                .max_basis = min2(cols, max2(o->max_basis, krylov_min_basis(cols, cols, k, k))), .tol = o->tol,
                .max_applications = f->A.applications + o->max_applications};
    *missed_probability = 1;
    *spent = 0;
    if (krylov_make(&s, &memory, st)) return st->code;
    s.n_v = s.n_u = k;
    memcpy(s.V, f->V, k * cols * sizeof *s.V);
    memcpy(s.AV, f->AV, k * rows * sizeof *s.V);
    memcpy(s.U, f->U, k * rows * sizeof *s.V);
    memcpy(s.AtU, f->AtU, k * cols * sizeof *s.V);
    memset(s.B, 0, s.max_basis * s.max_basis * sizeof *s.B);
    for (size_t i = 0; i < k; i++) s.B[i * s.max_basis + i] = f->sigma[i];
    grow_W(&s, k);
    probe_end end = PROBE_FULL;
    ps_code code = check(&s, st);
    while (!code && end == PROBE_FULL && s.worst <= s.tol) code = probe(&s, &end, st);
    if (end == PROBE_PASSED) *missed_probability = s.missed;
    *spent = s.A.applications - f->A.applications;
    arena_free(&memory);
    return code;
}
