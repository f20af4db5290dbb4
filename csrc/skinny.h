/* Products with few rows, as in decoding: Y(M, n) = X(M, K) W' for M <= SKINNY_ROWS. Such a product is bound by reading
 * W, so each weight is read once, as stored, and widened in registers. The instruction set is chosen at run time. */
#ifndef PS_SKINNY_H
#define PS_SKINNY_H
#include "spec.h"

enum { SKINNY_ROWS = 4 };

/* Rows W[o] at (char *)data + o*stride*item, K contiguous items each. bias NULL: 0. */
void skinny(wtype type, const void *data, ptrdiff_t stride, size_t n, size_t K, size_t M, const real *X, size_t ldx,
            const real *bias, real *Y, size_t ldy);

#endif
