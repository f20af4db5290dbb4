/* Products of many rows with a weight as it is stored. A few panels of the weight at a time are packed, that is, widened
 * and if necessary transposed, into a buffer that stays in the L2 cache while all rows are multiplied with them.
 *
 * An element of Y is summed over k in one order, for any M, N and layout of B: a running sum from 0 over each GEMM_KC of k,
 * which is then added to the bias or to Y. Multiply and add are fused where the instruction set can. */
#ifndef PS_GEMM_PACKED_H
#define PS_GEMM_PACKED_H
#include "kernels/blocks.h"

/*  Y (M,N) = X (M,K) B (K,N) + bias,  or Y += X B if add.
 * Element (k,n) of B is data[k*k_stride + n*n_stride], strides in elements and of any sign; packing is fast if one of them
 * is 1. bias (N), NULL: 0; it must be NULL with add. M, N and K may be 0. */
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
    const weight *blocks; /* NULL, or a weight of blocks that is read instead of data: */
    int k_is_out;         /* element (k,n) is that of row out0 + n, number in0 + k; if k_is_out, of row out0 + k, number in0 + n */
    size_t out0, in0;     /* in0 is a multiple of BLOCK_RUN, and so is N if k_is_out, else K */
    block_decoder decode;
} gemm_call;

/* KC: the depth of a panel, and so the length of a partial sum. A panel of 256 x 32 floats is 32 KiB, which the microkernel
 * reads from the L2 cache; longer sums gain nothing and shorter ones load and store Y more often. */
enum { GEMM_KC = 256 };
enum { GEMM_COLUMNS = 32 }; /* a multiple of NR of every instruction set: a result that is divided there has whole panels */
enum { GEMM_SCRATCH = 68 * 1024 + 64 }; /* reals of scratch of one call */

/* isa: one that this machine has */
void gemm_packed(cpu_isa isa, const gemm_call *c, real *scratch);

#endif
