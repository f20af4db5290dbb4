/* Products of many rows with a weight as it is stored. The weight is packed on the fly, a few panels at a time: widened,
 * transposed if need be, and left in the L2 cache for the rows that multiply it; no other copy exists.
 *
 * An element of Y is summed over k in one order, whatever M, N and the layout of B: one running sum from 0 over each
 * GEMM_KC of k, added to the bias (or to Y) as it is complete, multiply and add fused where the instruction set can. */
#ifndef PS_GEMM_PACKED_H
#define PS_GEMM_PACKED_H
#include "base/cpu.h"
#include "kernels/weight.h"

/* Y(M,N) = X(M,K) B(K,N) + bias, or Y += X B if add. Element (k,n) of B is data[k*k_stride + n*n_stride], strides in
 * elements and of any sign; a unit stride one way is fast. bias (N), NULL: 0; not with add. Any of M, N, K may be 0. */
typedef struct {
    size_t M, N, K;
    const real *X;
    size_t ldx;
    wtype type;
    const void *data;
    ptrdiff_t k_stride, n_stride;
    const real *bias;
    int add;
    real *Y;
    size_t ldy;
} gemm_call;

enum { GEMM_KC = 256 };
enum { GEMM_SCRATCH = 36 * 1024 + 64 }; /* reals of scratch, for one call at a time */

/* kind: one that the machine has */
void gemm_packed(cpu_isa kind, const gemm_call *c, real *scratch);

#endif
