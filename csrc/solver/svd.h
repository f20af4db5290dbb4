/* Shared by the two solvers: the result, the observer, and the operator's products, which are counted and checked.
 *
 * J (rows, cols) has singular triplets J v = sigma u, J'u = sigma v. One application is J or J' on one vector. The
 * certificate of a triplet is the pair |J v - sigma u|, |J'u - sigma v| over sigma_1, computed from products of the
 * operator itself and not from a recurrence. */
#ifndef PS_SVD_H
#define PS_SVD_H
#include "kernels/blas.h"

typedef enum {
    SVD_CERTIFIED,        /* every residual is at most tol, and a closing probe has found nothing above sigma_k */
    SVD_MAX_APPLICATIONS, /* max_applications are used up */
    SVD_PRECISION,        /* the residuals are the operator's rounding errors, which exceed tol */
    SVD_FIXED             /* the number of iterations was fixed */
} svd_stop;

typedef struct {
    real *U, *V;       /* (k, rows), (k, cols): one vector a row; the caller's */
    double *sigma;     /* (k) descending; the caller's */
    double *residuals; /* (k, 2): left |J v - sigma u|, right |J'u - sigma v|, over sigma_1; the caller's */
    size_t applications;
    size_t certificate_applications; /* for the certificate alone; not counted in applications */
    double next_sigma;               /* the (k+1)-th Ritz value, NaN if there is none */
    double missed_probability;       /* bound on the probability that a larger triplet was missed; 1 without a finished probe */
    svd_stop stop;
} svd_result;

/* report is called after every step; an error that it returns stops the run and is returned. worst: the largest residual,
 * infinity while there are fewer than k triplets. sigma (n): the first n <= k Ritz values. */
typedef struct {
    ps_code (*report)(void *ctx, size_t applications, double worst, size_t n, const double *sigma, ps_status *st);
    void *ctx;
} svd_observer;

/* o NULL: nothing is reported. */
ps_code svd_report(const svd_observer *o, size_t applications, double worst, size_t n, const double *sigma,
                   ps_status *st);

/* What a run knows of its operator J / unit. unit is a power of two near the length of the first nonzero product, so that an
 * operator of any scale is solved as one with entries near 1, without rounding. */
typedef struct {
    size_t rows, cols; /* of J */
    double unit;       /* 0 before the first nonzero product */
    double largest;    /* length of the longest product so far, in units */
    size_t applications;
} svd_operator;

/* Failure probability of all closing probes of one run together */
#define SVD_MISSED 1e-3

/* Counts the n products Y of J or, if transposed, of J', and divides them by the unit. PS_ERR_NONFINITE if one is not
 * finite. */
ps_code svd_accept(svd_operator *a, int transposed, size_t n, real *Y, ps_status *st);

/* k Ritz triplets of another method, in units of A: A V = U diag(sigma), AtU = A'U. One vector a row. */
typedef struct {
    svd_operator A;
    const real *V, *AV, *U, *AtU;
    const double *sigma;
} svd_found;

/* out[j*step] = |sum_i a_ji X_i + sum_i c_ji Y_i|, j < m;  a (m, nx), X (nx, len), c (m, ny), Y (ny, len). With a the
 * coefficients of v in V, X = J V, c those of -sigma u in U, Y = U this is |J v - sigma u|.
 * work: m * SVD_PANEL reals. */
enum { SVD_PANEL = 1024 };
void svd_residual(const blas *b, size_t m, size_t len, const real *a, size_t nx, const real *X, const real *c, size_t ny,
                  const real *Y, double *out, size_t step, real *work);

/* Rows 0..p of X (n, len) = a X,  a (p, n), p <= n, by panels of columns. work: n * SVD_PANEL reals. */
void svd_rotate(const blas *b, size_t p, size_t n, size_t len, const real *a, real *X, real *work);

#endif
