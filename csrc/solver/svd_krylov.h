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
 * probability it misses any other. So after certification a Lanczos sequence from a random vector of the complement of V
 * looks for a larger value: svd_probe.h.
 *
 * Precision. |R'p| is the residual according to the recurrence. If it is far below tol and the certificate is not, the
 * difference is the operator's rounding errors, or an apply_t that is not the transpose, and the run stops uncertified. */
#ifndef PS_SVD_KRYLOV_H
#define PS_SVD_KRYLOV_H
#include "solver/linop.h"
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

/* A run that can be resumed: it returns where it needs products, so that one thread drives many runs. Memory: max_basis * 2 *
 * (rows + cols) reals and a little, of which only what a run reaches is ever written. */
typedef struct krylov krylov;

/* n products that a run waits for: Y = J X, X (n, cols), Y (n, rows), or if transposed Y = J'X, X (n, rows), Y (n, cols). X and
 * Y are the run's own memory. n = 0: the run is finished. */
typedef struct {
    int transposed;
    size_t n;
    const real *X;
    real *Y;
} krylov_request;

/* The caller frees *out. The observer (NULL: none) is called by krylov_next, at most once a call, and must outlive the run.
 * PS_ERR_VALUE for options outside their domain, PS_ERR_MEMORY, PS_ERR_OVERFLOW. */
ps_code krylov_make(krylov **out, const blas *b, size_t rows, size_t cols, const krylov_options *o,
                    const svd_observer *observer, ps_status *st);
/* Goes on to the next request, first with those products that the last one left in Y. PS_ERR_NONFINITE, PS_ERR_MEMORY, and
 * the observer's errors, after which the run can only be freed. Calls on different runs are independent. */
ps_code krylov_next(krylov *s, krylov_request *r, ps_status *st);
/* About how many operations the next krylov_next takes */
double krylov_operations(const krylov *s);
/* The result of a finished run. */
void krylov_result(const krylov *s, svd_result *out);
void krylov_free(krylov *s); /* accepts NULL */

/* A run from beginning to end. Errors also of the operator. The same options and operator give the same bits. */
ps_code svd_krylov(const blas *b, const linop *J, const krylov_options *o, const svd_observer *observer, svd_result *out,
                   ps_status *st);

/* The probe alone, with at most o->max_applications further applications; *spent is their number. *missed_probability is 1 if
 * a residual exceeds o->tol, if the probe found a value above sigma_k, or if it did not finish. o->block is not read;
 * o->max_basis is raised to the smallest that suffices. */
ps_code krylov_probe(const blas *b, const linop *J, const svd_found *f, const krylov_options *o, size_t *spent,
                     double *missed_probability, ps_status *st);

#endif
