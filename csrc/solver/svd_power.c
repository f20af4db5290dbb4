#include "solver/svd_power.h"
#include <string.h>
#include "base/arena.h"
#include "solver/orth.h"
#include "base/rng.h"
#include "solver/svd_krylov.h"

typedef struct {
    const blas *b;
    const linop *J;
    const svd_observer *observer;
    svd_operator A;
    rng g;
    size_t rows, cols, k, p;
    real *V, *Y, *Z, *Q;               /* (p, cols), Y = A V (p, rows), Z = A'Y or A'U (p, cols), Y = C Q (p, rows) */
    double *coef, *C, *P, *sigma, *Wt; /* C (p, p) = P diag(sigma) Wt */
    double *residual, *seen;           /* (p, 2), (k) */
    real *work, *x, *y;
} power;

/* Y = A X or, if transposed, A'X, of n vectors */
static ps_code multiply(power *s, int transposed, size_t n, const real *X, real *Y, ps_status *st) {
    ps_code code = linop_multiply(s->J, transposed, n, X, Y, st);
    return code ? code : svd_accept(&s->A, transposed, n, Y, st);
}

/* Makes the p rows of X orthonormal. Dependent rows are dropped and random ones are added behind the others. coef (p, p + 1):
 * see orth; 0 for the random rows. */
static void orthonormal(power *s, real *X, size_t len) {
    size_t r = orth(s->b, X, 0, s->p, len, s->A.largest, s->coef, s->p + 1, s->work);
    double *spare = s->coef + s->p * (s->p + 1);
    while (r < s->p) {
        rng_normal(&s->g, len, X + r * len);
        r += orth(s->b, X, r, 1, len, 0, spare, r + 2, s->work);
    }
}

/* x (m, p) = -factor_i P_i' or, if left, -factor_i W_i';  factor NULL: P_i', W_i' */
static void rows_of(const power *s, int left, size_t m, const double *factor, real *x) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < s->p; j++)
            x[i * s->p + j] = (real)((factor ? -factor[i] : 1) * (left ? s->Wt[i * s->p + j] : s->P[j * s->p + i]));
}

/* Y = A V and its Rayleigh-Ritz triplets */
static ps_code ritz(power *s, ps_status *st) {
    ps_code code = multiply(s, 0, s->p, s->V, s->Y, st);
    if (code) return code;
    memcpy(s->Q, s->Y, s->p * s->rows * sizeof *s->Q);
    orthonormal(s, s->Q, s->rows);
    for (size_t i = 0; i < s->p; i++) memcpy(s->C + i * s->p, s->coef + i * (s->p + 1), s->p * sizeof *s->C);
    return small_svd(s->b, s->p, s->p, s->C, s->P, s->sigma, s->Wt, st);
}

/* Divides the residuals by sigma_1, writes the largest to *most and reports it. */
static ps_code report(power *s, double *most, ps_status *st) {
    double worst = 0, unit = s->A.unit != 0 ? s->A.unit : 1;
    for (size_t i = 0; i < 2 * s->k; i++) {
        double *r = &s->residual[i];
        *r = *r == 0 ? 0 : *r / s->sigma[0];
        if (!(*r <= worst)) worst = *r;
    }
    for (size_t i = 0; i < s->k; i++) s->seen[i] = s->sigma[i] * unit;
    *most = worst;
    return svd_report(s->observer, s->A.applications, worst, s->k, s->seen, st);
}

/* One iteration: Z = A'Y and V <- orth(Z). The residuals of the old V follow from u_i = P_i'Y / sigma_i, for which
 * A'u_i = P_i'Z / sigma_i; |A v_i - sigma_i u_i| is 0 by that definition. */
static ps_code iterate(power *s, ps_status *st) {
    ps_code code = ritz(s, st);
    if (!code) code = multiply(s, 1, s->p, s->Y, s->Z, st);
    if (code) return code;
    rows_of(s, 0, s->k, NULL, s->x);
    rows_of(s, 0, s->k, s->sigma, s->y);
    for (size_t i = 0; i < s->k; i++) {
        int zero = s->sigma[i] <= (double)REAL_EPS * s->sigma[0]; /* A'u would be rounding errors over rounding errors */
        for (size_t j = 0; j < s->p; j++)
            s->x[i * s->p + j] = zero ? 0 : (real)((double)s->x[i * s->p + j] / s->sigma[i]);
        s->residual[2 * i] = 0;
    }
    svd_residual(s->b, s->k, s->cols, s->x, s->p, s->Z, s->y, s->p, s->V, s->residual + 1, 2, s->work);
    memcpy(s->V, s->Z, s->p * s->cols * sizeof *s->V);
    orthonormal(s, s->V, s->cols);
    double worst;
    return report(s, &worst, st);
}

/* The probe of svd_krylov.h on the k certified triplets. Overwrites Q. */
static ps_code probe(power *s, const power_options *o, svd_result *out, ps_status *st) {
    const krylov_options options = {.k = s->k, .max_basis = o->max_basis, .max_applications = o->probe_most,
                                    .tol = o->tol, .seed = o->seed};
    rows_of(s, 0, s->k, NULL, s->x);
    gemm(s->b, 'n', 'n', s->k, s->rows, s->p, 1, s->x, s->p, s->Y, s->rows, 0, s->Q, s->rows);
    const svd_found found = {s->A, out->V, s->Q, out->U, s->Z, s->sigma};
    size_t spent;
    ps_code code = krylov_probe(s->b, s->J, &found, &options, &spent, &out->missed_probability, st);
    out->certificate_applications += spent;
    return code;
}

/* The last Rayleigh-Ritz and the certificate, which takes k applications of J' that the algorithm does not need. */
static ps_code finish(power *s, const power_options *o, svd_result *out, ps_status *st) {
    ps_code code = ritz(s, st);
    if (code) return code;
    double unit = s->A.unit != 0 ? s->A.unit : 1;
    rows_of(s, 0, s->k, NULL, s->x);
    rows_of(s, 1, s->k, s->sigma, s->y);
    svd_residual(s->b, s->k, s->rows, s->x, s->p, s->Y, s->y, s->p, s->Q, s->residual, 2, s->work);
    gemm(s->b, 'n', 'n', s->k, s->cols, s->p, 1, s->x, s->p, s->V, s->cols, 0, out->V, s->cols);
    rows_of(s, 1, s->k, NULL, s->y);
    gemm(s->b, 'n', 'n', s->k, s->rows, s->p, 1, s->y, s->p, s->Q, s->rows, 0, out->U, s->rows);
    out->applications = s->A.applications;
    if ((code = multiply(s, 1, s->k, out->U, s->Z, st))) return code;
    out->certificate_applications = s->k;
    s->A.applications = out->applications; /* counted apart */
    for (size_t i = 0; i < s->k; i++) {
        for (size_t j = 0; j < s->k; j++) s->x[i * s->k + j] = i == j, s->y[i * s->k + j] = 0;
        s->y[i * s->k + i] = (real)-s->sigma[i];
        out->sigma[i] = s->sigma[i] * unit;
    }
    svd_residual(s->b, s->k, s->cols, s->x, s->k, s->Z, s->y, s->k, out->V, s->residual + 1, 2, s->work);
    double worst;
    code = report(s, &worst, st);
    memcpy(out->residuals, s->residual, 2 * s->k * sizeof *s->residual);
    out->next_sigma = s->p > s->k ? s->sigma[s->k] * unit : (double)NAN;
    out->stop = SVD_FIXED;
    out->missed_probability = 1;
    return code || worst > o->tol ? code : probe(s, o, out, st);
}

static ps_code check_options(const linop *J, const power_options *o, ps_status *st) {
    size_t full = J->rows < J->cols ? J->rows : J->cols;
    if (o->k < 1 || o->k > full || o->oversample > full - o->k)
        return ps_fail(st, PS_ERR_VALUE,
                       "k = %zu with oversample = %zu, but an operator of %zu x %zu has %zu singular triplets", o->k,
                       o->oversample, J->rows, J->cols, full);
    if (o->iterations < 1) return ps_fail(st, PS_ERR_VALUE, "iterations must be at least 1");
    return PS_OK;
}

ps_code svd_power(const blas *b, const linop *J, const power_options *o, const svd_observer *observer, svd_result *out,
                  ps_status *st) {
    arena memory = {0};
    ps_code code = check_options(J, o, st);
    if (code) return code;
    power s = {.b = b, .observer = observer, .J = J, .A = {.rows = J->rows, .cols = J->cols}, .g = {.seed = o->seed}, .rows = J->rows, .cols = J->cols,
               .k = o->k, .p = o->k + o->oversample};
    size_t p = s.p, panel = SVD_PANEL > p ? SVD_PANEL : p;
    arena_slice table[] = {
        SLICE(s.V, p, s.cols), SLICE(s.Y, p, s.rows), SLICE(s.Z, p, s.cols), SLICE(s.Q, p, s.rows),
        SLICE(s.coef, p + 2, p + 1), SLICE(s.C, p, p), SLICE(s.P, p, p), SLICE(s.Wt, p, p), SLICE(s.sigma, p),
        SLICE(s.residual, p, 2), SLICE(s.seen, p), SLICE(s.work, p, panel), SLICE(s.x, p, p), SLICE(s.y, p, p)};
    if ((code = arena_make(&memory, table, COUNT(table), st))) return code;
    rng_normal(&s.g, p * s.cols, s.V);
    orthonormal(&s, s.V, s.cols);
    for (size_t i = 0; i < o->iterations && !code; i++) code = iterate(&s, st);
    if (!code) code = finish(&s, o, out, st);
    arena_free(&memory);
    return code;
}
