/* Matrix products, and the only users of OpenBLAS (cblas.h and the LAPACK symbols).
 *
 * The library is opened at run time by blas_open, so that the right kernels can be chosen before it loads and so that
 * nobody else's copy is touched. All matrices are row-major: A(M,K) has element (i,k) at A[i*lda + k]. Sizes are
 * size_t here and cut to the library's int range inside. The library runs single-threaded: parallelism is ours. */
#ifndef PS_BLAS_H
#define PS_BLAS_H
#include "base/real.h"
#include "base/status.h"

typedef struct blas blas; /* immutable after blas_open; lives in the module's state */

/* path: the shared library; prefix: what its symbols start with ("scipy_" or ""). */
ps_code blas_open(blas **out, const char *path, const char *prefix, ps_status *st);
void blas_close(blas *b); /* accepts NULL */
const char *blas_config(const blas *b);   /* OpenBLAS's own description, "" if it has none */
const char *blas_corename(const blas *b); /* the kernel set in use, "" if unknown */

/* C = alpha op(A) op(B) + beta C with op(A): (M,K), op(B): (K,N). ta/tb: 'n' or 't' (A is then stored (K,M)). */
void gemm(const blas *b, char ta, char tb, size_t M, size_t N, size_t K, real alpha, const real *A, size_t lda,
          const real *B, size_t ldb, real beta, real *C, size_t ldc);

/* Thin SVD of a small matrix in double: A(m,n) row-major, destroyed; r = min(m,n);
 * U (m,r), s (r) descending, Vt (r,n), row-major. PS_ERR_NONFINITE if it does not converge. */
ps_code small_svd(const blas *b, size_t m, size_t n, double *A, double *U, double *s, double *Vt, ps_status *st);

#endif
