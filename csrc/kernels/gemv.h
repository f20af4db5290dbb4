/* Products with few rows, as in decoding: Y(M, n) = X(M, K) W' + bias for M <= GEMV_MAX_ROWS. Such a product is bound by
 * reading W, so each weight is read once, as stored and in order, and widened in registers: a dot product for each output.
 * The order of its sums is that of the vector's width, the same for every M, but another than that of gemm_packed.h. */
#ifndef PS_GEMV_H
#define PS_GEMV_H
#include "base/cpu.h"
#include "kernels/weight.h"

enum { GEMV_MAX_ROWS = 4 };

/* Rows W[o] at (char *)data + o*stride*item, K contiguous items each. bias NULL: 0. kind: one that the machine has. */
void gemv(cpu_isa kind, wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X,
          size_t ldx, const real *bias, real *Y, size_t ldy);

#endif
