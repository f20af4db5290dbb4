/* Products with few rows, as in decoding: Y(M, n) = X(M, K) W' + bias for M <= SKINNY_ROWS, with the bits of tile.h. Such a
 * product is bound by reading W, so each weight is read once, as stored, and widened and transposed in registers. */
#ifndef PS_SKINNY_H
#define PS_SKINNY_H
#include "base/instructions.h"
#include "ops/spec.h"

enum { SKINNY_ROWS = 4 };

/* Rows W[o] at (char *)data + o*stride*item, K contiguous items each. bias NULL: 0. kind: one that the machine has. */
void skinny(instructions kind, wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X,
            size_t ldx, const real *bias, real *Y, size_t ldy);

#endif
