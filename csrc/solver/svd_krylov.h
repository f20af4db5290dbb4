/* The top k singular triplets of a linear operator by block Golub-Kahan-Lanczos with full reorthogonalisation,
 * selective expansion, thick restart, a certificate from the operator's own products, and a last random probe.
 *
 * State. With A = J, or J' if J has fewer rows than columns, so that A has rows >= cols:
 *   V (n_v, cols), U (n_u, rows)   orthonormal bases, one vector a row
 *   AV, AtU                        the operator's products with them, unchanged (in units, see svd.h)
 *   W (n_w, cols)                  candidates for V: orthonormal, orthogonal to V, not yet multiplied by A
 *   A V_j  = sum_i B_ij U_i        (up to the remainders that orth drops)
 *   A'U_i  = sum_j B_ij V_j + sum_l R_il W_l
 * B and R are the coefficients of the orthogonalisation, in double.
 *
 * Step. The first `block` candidates X move to V. AX, made orthogonal to U, gives the new U and the columns of
 * B; A'U_new, made orthogonal to V and W, gives the new W and the rows of R. The SVD of B gives Ritz triplets u = U'p,
 * v = V'q; |AV'q - sigma U'p| and |AtU'p - sigma V'q| over sigma_1 are their certificate, without another application.
 * If there are more candidates than a block, W is rotated so that its first vectors carry most of the residuals R'p of the
 * triplets that are not certified yet: only the directions that these need are extended.
 * Without candidates V is an invariant subspace. Random candidates from the complement of V then follow, in the extreme until
 * V spans everything and B is exact. If U has fewer than k vectors (rank below k), random vectors are added to it as
 * well, so that triplets with sigma = 0 are certified like all others.
 *
 * Restart. When V is full, the leading Ritz triplets are kept: V and AV are rotated by q, U, AtU and R by p, B becomes
 * diagonal, and both relations still hold.
 *
 * Probe. A Krylov space contains of equal singular values at most as many vectors as the block has, and with little
 * probability it misses any other. So after certification a random unit vector x of the complement of V, which includes W,
 * starts a Lanczos sequence. Let Vk be the k Ritz vectors, Vr and Sigma the other ones and their values, Z a basis of
 * the complement of V, limit = sigma_k + tol sigma_1. Nothing is missing if |A (I - Vk Vk')| <= limit, that is, if
 *   [Sigma^2, K'; K, Z'A'A Z] <= limit^2,  K = Z'A'A Vr,  which is as much as (Schur; Sigma <= sigma_k < limit)
 *   H = Z'A'A Z + K (limit^2 - Sigma^2)^-1 K' <= limit^2.
 * The sequence is one of H, which acts on the complement of V alone: the less V leaves, the sooner it ends. A step needs A'A
 * of one new vector, two applications; K is known. Let q_0 = x, q_1, ... be the Lanczos vectors and p_i the orthonormal
 * polynomials (p_0 = 1), q_i = p_i(H) x. Suppose that H y = mu y, |y| = 1, mu > limit^2. Then
 *   q_i'y = p_i(mu) x'y,  so (x'y)^2 sum_i p_i(mu)^2 <= 1,
 * and p_i(mu) > p_i(limit^2) > 0 as long as no Ritz value of the sequence exceeds limit^2 (Sturm; if one does, a
 * missed value is found, and the run continues until its triplets are certified, and probes again). For x uniform on the sphere in N
 * dimensions P(|x'y| <= s) <= s sqrt(2 N / pi). So the probe ends when
 *   sqrt(2 N / (pi sum_i p_i(limit^2)^2)) <= allowed,
 * and as limit and `allowed` are set before x is drawn, this bounds the probability that it ends while something is
 * missing. It is the argument of Kuczynski and Wozniakowski (SIAM J. Matrix Anal. Appl. 13, 1992) with the sequence's own
 * polynomials in place of Chebyshev's, that is, of 1.648 sqrt(N) exp(-(2j - 1) sqrt(eps)) for a value that is missed by
 * the fraction eps. The probes of a run share SVD_MISSED: the first may fail with 0.9 of it, each later one with half of
 * what is left. A value within tol sigma_1 of sigma_k is as good as sigma_k and counts as nothing missed.
 *
 * Precision. |R'p| is the residual according to the recurrence. If it is far below tol and the certificate is not, the
 * difference is the operator's rounding errors, or an apply_t that is not the transpose, and the run stops uncertified. */
#ifndef PS_SVD_KRYLOV_H
#define PS_SVD_KRYLOV_H
#include "solver/svd.h"

typedef struct {
    size_t k;                /* 1 <= k <= min(rows, cols) */
    size_t block;            /* >= 1; at most min(rows, cols) are used */
    size_t max_basis;        /* vectors of V before a restart, >= krylov_min_basis; at most min(rows, cols) are used */
    size_t max_applications; /* >= 2k; never exceeded */
    double tol;              /* > 0, relative to sigma_1 */
    uint64_t seed;
} krylov_options;

/* The smallest max_basis: room for k triplets and two blocks or a probe. */
size_t krylov_min_basis(size_t rows, size_t cols, size_t k, size_t block);

/* Memory: max_basis * 2 * (rows + cols) reals and a little. PS_ERR_VALUE for options outside their domain,
 * PS_ERR_NONFINITE, PS_ERR_MEMORY, and the errors of the operator and the observer. The same options and operator give the
 * same bits. */
ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st);

/* k Ritz triplets of another method, in units of A: A V = U diag(sigma), AtU = A'U. One vector a row. */
typedef struct {
    svd_operator A; /* not flipped */
    const real *V, *AV, *U, *AtU;
    const double *sigma;
} svd_found;

/* The probe alone, with at most o->max_applications further applications; *spent is their number. *missed_probability is 1 if
 * a residual exceeds o->tol, if the probe found a value above sigma_k, or if it did not finish. o->block is not read;
 * o->max_basis is raised to the smallest that suffices. */
ps_code krylov_probe(const blas *b, const svd_found *f, const krylov_options *o, size_t *spent,
                     double *missed_probability, ps_status *st);

#endif
