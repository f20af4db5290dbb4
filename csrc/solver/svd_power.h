/* The published algorithm, for comparison: block power iteration on J'J, with a fixed number of iterations.
 *
 *   V_0 random orthonormal, p = k + oversample vectors
 *   iterations times:  V <- orth(J'J V)
 *   last:  Y = J V,  Rayleigh-Ritz: Y = C Q (orth),  C = P S W',  v_i = P_i'V,  u_i = W_i'Q
 *
 * These are (2 iterations + 1) p applications. Counted separately, as certificate_applications: J'U, k more, for the residuals,
 * and, if every residual is at most tol, the closing probe, which alone shows that the k triplets are the leading ones.
 * An iteration reduces the error of the i-th vector by (sigma_{p+1} / sigma_i)^2, which is close to 1 for a flat spectrum. */
#ifndef PS_SVD_POWER_H
#define PS_SVD_POWER_H
#include "solver/linop.h"
#include "solver/svd.h"

typedef struct {
    size_t k;          /* 1 <= k <= min(rows, cols) */
    size_t oversample; /* k + oversample <= min(rows, cols) */
    size_t iterations; /* >= 1 */
    uint64_t seed;
    double tol;                   /* of the closing probe, see svd_krylov.h */
    size_t max_basis, probe_most; /* largest numbers of vectors and of applications of the probe */
} power_options;

/* After each iteration the observer gets the residuals of the subspace before it, which J V and J'J V determine without
 * another application; at the end it gets the certificate. Errors as svd_krylov. */
ps_code svd_power(const blas *b, const linop *J, const power_options *o, const svd_observer *observer, svd_result *out,
                  ps_status *st);

#endif
