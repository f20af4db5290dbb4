/* Products with a weight as it is stored: numbers of any strides, or blocks. Elements are widened or decoded as they are
 * read, so that the model is in memory once.
 *
 * An element is summed in one order for any number of rows and threads: a row's result has the same bits alone and in any
 * batch. The order is that of gemm_packed.h; of linear in decoding, where `few_rows` of the runtime is set, that of gemv.h. */
#ifndef PS_LINEAR_H
#define PS_LINEAR_H
#include "kernels/runtime.h"
#include "kernels/weight.h"

/* Reals of scratch that each worker of linear and linear_t needs for W; 0 if W is absent. */
size_t linear_scratch(const weight *W);

/*  Y (M, n_out) = X (M, n_in) W' + bias
 * ldx, ldy: row strides. bias (n_out), NULL: 0. scratch (threads, scratch_stride), scratch_stride >= linear_scratch(W). */
void linear(const runtime *rt, size_t M, const real *X, size_t ldx, const weight *W, const real *bias,
            real *Y, size_t ldy, real *scratch, size_t scratch_stride);
/* The transpose:  X (M, n_in) = beta X + Y (M, n_out) W,  beta 0 or 1. With beta = 0, X is not read. */
void linear_t(const runtime *rt, size_t M, const real *Y, size_t ldy, const weight *W, real beta,
              real *X, size_t ldx, real *scratch, size_t scratch_stride);
/* out (n_in) = row o of W, widened to real */
void weight_row(cpu_isa isa, const weight *W, size_t o, real *out);

#endif
