/* The published algorithm, for comparison: block power iteration on J'J with a fixed number of iterations.
 *
 *   V_0 random orthonormal, p = k + oversample vectors
 *   iterations times:  V <- orth(J'J V)
 *   last:  Y = J V,  Rayleigh-Ritz: Y = C Q (orth),  C = P S W',  v_i = P_i'V,  u_i = W_i'Q
 *
 * (2 iterations + 1) p applications. J'U, k more, is multiplied for the certificate alone and counted apart; and if every
 * residual is at most tol, so are the applications of the closing probe, without which nobody knows that the k triplets
 * are the leading ones. The error of
 * the i-th vector shrinks by (sigma_{p+1} / sigma_i)^2 an iteration, which on a flat spectrum is close to 1. */
#ifndef PS_SVD_POWER_H
#define PS_SVD_POWER_H
#include "solver/svd.h"

typedef struct {
    size_t k;          /* 1 <= k <= min(rows, cols) */
    size_t oversample; /* k + oversample <= min(rows, cols) */
    size_t iterations; /* >= 1 */
    uint64_t seed;
    double tol;                   /* of the closing probe, see svd_krylov.h */
    size_t max_basis, probe_most; /* vectors kept, and applications made, by the probe at most */
} power_options;

/* The observer hears after each iteration the residuals of the subspace that it started from, which follow from its
 * products J V and J'J V; and last the certificate. Errors as svd_krylov. */
ps_code svd_power(const blas *b, const linop *J, const power_options *o, const svd_observer *observer, svd_result *out,
                  ps_status *st);

#endif
