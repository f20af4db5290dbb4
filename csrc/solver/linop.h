/* A linear operator and its transpose, on blocks of vectors: all that the solvers know of a model.
 *
 *   apply:   U[j] = J  V[j],  j = 0..n-1;   V (n, cols), U (n, rows), one vector a contiguous row
 *   apply_t: V[j] = J' U[j]
 *
 * A callback returns PS_OK or an error (PS_ERR_CALLBACK, PS_ERR_INTERRUPTED, ...), which the solver returns at once. */
#ifndef PS_LINOP_H
#define PS_LINOP_H
#include "base/real.h"
#include "base/status.h"

typedef struct {
    size_t rows, cols;
    ps_code (*apply)(void *ctx, size_t n, const real *V, real *U, ps_status *st);
    ps_code (*apply_t)(void *ctx, size_t n, const real *U, real *V, ps_status *st);
    void *ctx;
} linop;

/* Y = J X or, if transposed, J'X, of n vectors */
static inline ps_code linop_multiply(const linop *J, int transposed, size_t n, const real *X, real *Y, ps_status *st) {
    return transposed ? J->apply_t(J->ctx, n, X, Y, st) : J->apply(J->ctx, n, X, Y, st);
}

#endif
