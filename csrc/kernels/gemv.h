/* Products of few rows, as in decoding:
 *
 *   Y (M, n) = X (M, K) W' + bias,   M <= GEMV_MAX_ROWS
 *
 * The time of such a product is that of reading W. So each element is read once, as stored and in order, and widened in
 * registers: a dot product for each output. Its sums run along K by vectors of the instruction set's width, in the same
 * order for every M, but in another order than those of gemm_packed.h. */
#ifndef PS_GEMV_H
#define PS_GEMV_H
#include "kernels/blocks.h"

enum { GEMV_MAX_ROWS = 4 };

/* Row o of W is K contiguous items at data + o*stride, stride in items. bias (n), NULL: 0. isa: one that this machine has. */
void gemv(cpu_isa isa, wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X,
          size_t ldx, const real *bias, real *Y, size_t ldy);
/* The same with rows o0 .. o0 + n of a weight of blocks, and the same bits as with the decoded weight. */
void gemv_blocks(cpu_isa isa, const weight *W, size_t o0, size_t n, size_t M, const real *X, size_t ldx, const real *bias, real *Y,
                 size_t ldy);

#endif
