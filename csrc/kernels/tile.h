/* Products of many rows with a weight as it is stored. The weight is packed on the fly, a few panels at a time: widened,
 * transposed if need be, and left in the L2 cache for the rows that multiply it; no other copy exists.
 *
 * An element of Y is summed over k in one order, whatever M, N and the layout of B: one running sum from 0 over each
 * TILE_DEPTH of k, added to the bias (or to Y) as it is complete, multiply and add fused where the instruction set can. */
#ifndef PS_TILE_H
#define PS_TILE_H
#include "base/instructions.h"
#include "ops/spec.h"

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
} tile_call;

enum { TILE_DEPTH = 256 };
enum { TILE_SCRATCH = 36 * 1024 + 64 }; /* reals of scratch, for one call at a time */

/* kind: one that the machine has */
void tile(instructions kind, const tile_call *c, real *scratch);

#endif
