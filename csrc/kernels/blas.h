/* Matrix products and small SVDs by OpenBLAS. No other file calls the library.
 *
 * blas_open loads it at run time, so that its kernels can be chosen before and so that it stays separate from the copies
 * of NumPy and SciPy. All matrices are row-major: A(M,K) has element (i,k) at A[i*lda + k]. Sizes are size_t; a product
 * beyond the library's int is split. The library runs single-threaded: thread_pool.h shares the work out. */
#ifndef PS_BLAS_H
#define PS_BLAS_H
#include "base/real.h"
#include "base/status.h"

typedef struct blas blas; /* immutable after blas_open */

/* path: the shared library; prefix: of its symbols ("scipy_" or ""). The caller frees *out. PS_ERR_SYSTEM: the library cannot
 * be loaded, lacks a symbol, or takes 64-bit integers. PS_ERR_MEMORY. */
ps_code blas_open(blas **out, const char *path, const char *prefix, ps_status *st);
void blas_close(blas *b); /* accepts NULL */
const char *blas_config(const blas *b);   /* OpenBLAS's description of itself, "" if it has none */
const char *blas_corename(const blas *b); /* the kernel set in use, "" if unknown */

/* C = alpha op(A) op(B) + beta C with op(A): (M,K), op(B): (K,N). ta, tb: 'n', or 't' for the transpose of a matrix that is
 * stored (K,M) or (N,K). With beta = 0, C is not read. */
void gemm(const blas *b, char ta, char tb, size_t M, size_t N, size_t K, real alpha, const real *A, size_t lda,
          const real *B, size_t ldb, real beta, real *C, size_t ldc);

/* Thin SVD A = U diag(s) Vt of a small matrix in double: A (m,n) is overwritten; r = min(m,n); U (m,r), s (r) descending,
 * Vt (r,n), all row-major. PS_ERR_NONFINITE if it does not converge, PS_ERR_OVERFLOW beyond LAPACK's int, PS_ERR_MEMORY. */
ps_code small_svd(const blas *b, size_t m, size_t n, double *A, double *U, double *s, double *Vt, ps_status *st);

#endif
