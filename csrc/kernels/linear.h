/* Products with a weight as it is stored: float32, float64, float16 or bfloat16, any strides. No second copy of the model
 * exists.
 *
 * linear, which the forward pass is made of, sums in one order (gemm_packed.h) whatever the number of rows and threads, so that a
 * row's result has the same bits alone and among others. It uses gemv.h for few rows and gemm_packed.h for many. linear_t, the
 * transpose, goes through the BLAS where that is faster, and promises no such thing. */
#ifndef PS_LINEAR_H
#define PS_LINEAR_H
#include "kernels/runtime.h"
#include "kernels/weight.h"

/* Reals of scratch a worker that linear and linear_t need for W; 0 if it is absent. */
size_t linear_scratch(const weight *W);

/* Y(M, n_out) = X(M, n_in) W' + bias. ldx, ldy: row strides. scratch: (threads, scratch_stride). */
void linear(const runtime *rt, size_t M, const real *X, size_t ldx, const weight *W, const real *bias,
            real *Y, size_t ldy, real *scratch, size_t scratch_stride);
/* X(M, n_in) = beta X + Y(M, n_out) W: the transpose of linear. beta is 0 or 1. */
void linear_t(const runtime *rt, size_t M, const real *Y, size_t ldy, const weight *W, real beta,
              real *X, size_t ldx, real *scratch, size_t scratch_stride);
/* out(n_in) = row o of W, widened */
void weight_row(const weight *W, size_t o, real *out);

#endif
