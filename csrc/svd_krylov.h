/* The top k singular triplets of a linear operator by block Golub-Kahan-Lanczos with full reorthogonalisation,
 * selective expansion, thick restart, a certificate from the operator's own products, and a last random probe.
 *
 * State. With A = J, or J' if J has fewer rows than columns, so that A has rows >= cols:
 *   V (n_v, cols), U (n_u, rows)   orthonormal bases, one vector a row
 *   AV, AtU                        the operator's products with them, kept as they came (in units, see svd.h)
 *   W (n_w, cols)                  the pool: orthonormal, orthogonal to V, not yet multiplied by A
 *   A V_j  = sum_i B_ij U_i        (up to what orth drops)
 *   A'U_i  = sum_j B_ij V_j + sum_l R_il W_l
 * B and R come in double from the coefficients of the orthogonalisation.
 *
 * Step. The first `block` vectors X of the pool move to V. AX, made orthogonal to U, gives the new U and the columns of
 * B; A'U_new, made orthogonal to V and W, gives the new W and the rows of R. The SVD of B gives Ritz triplets u = U'p,
 * v = V'q; |AV'q - sigma U'p| and |AtU'p - sigma V'q| over sigma_1 are their certificate, at no further application.
 * When the pool holds more than a block, it is turned so that its first vectors carry most of the residuals R'p of the
 * triplets that are not yet certified: of two sequences only the one that is needed goes on.
 * An empty pool means an invariant subspace: it is refilled at random from the complement of V, which ends, if it must,
 * with V spanning everything and B exact. Where U falls short of k (rank below k) it is filled at random too, so that
 * triplets with sigma = 0 are certified like all others.
 *
 * Restart. When V is full, the leading Ritz triplets are kept: V, U, AV and AtU are turned by q and p, B becomes
 * diagonal, R turns with U, and both relations go on holding.
 *
 * Probe. Equal singular values beyond the block size have no image in a Krylov space, and any may be missed by bad luck.
 * So once certified, a random vector of the complement of V starts a Lanczos sequence of A'A there (W is part of that
 * complement: what was missed may sit in it). |A| on the sequence, theta, grows towards the largest singular value that
 * was missed. The probe ends when theta + REACH * (its last growth) stays below sigma_k + tol sigma_1, at the latest
 * after PROBE_STEPS steps of two applications. If something enters the top k the run goes on until it is certified
 * again, and probes again. A probe can miss a value little above sigma_k: measured on the spectra of tests/spectra.py
 * (2048 columns, block 1, 100 seeds), a copy 44% above the last value found was never missed, one 11% above it in 3 runs,
 * one 3% above it in 4 to 9.
 *
 * Precision. |R'p| is the residual as the recurrence sees it. Once that is far below tol while the certificate is not,
 * the operator's rounding noise (or a transpose that is none) is what remains, and the run stops uncertified. */
#ifndef PS_SVD_KRYLOV_H
#define PS_SVD_KRYLOV_H
#include "svd.h"

typedef struct {
    size_t k;                /* 1 <= k <= min(rows, cols) */
    size_t block;            /* >= 1; cut to min(rows, cols) */
    size_t max_basis;        /* vectors of V kept before a restart, >= krylov_min_basis; cut to min(rows, cols) */
    size_t max_applications; /* >= 2k; never exceeded. One that ends during the probe leaves a certified result */
    double tol;              /* > 0, relative to sigma_1 */
    uint64_t seed;
} krylov_options;

size_t krylov_min_basis(size_t rows, size_t cols, size_t k, size_t block);

/* Memory: max_basis * 2 * (rows + cols) reals and a little. PS_ERR_VALUE for options outside their domain,
 * PS_ERR_NONFINITE, and whatever the operator or the observer return. The same options and operator: the same bits. */
ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st);

#endif
