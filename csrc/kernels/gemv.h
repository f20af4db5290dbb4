/* Products of decoding:
 *
 *   Y (M, n) = X (M, K) W' + bias
 *
 * With few rows the time of such a product is that of reading W. So each element is read once, as stored and in order, and
 * nothing is packed: an output is a dot product along K. For one row a number is multiplied as soon as it is widened in
 * registers; more pass a tile of rows and outputs at a time, over numbers that a tile can load as they are stored, or over
 * some rows of W that are widened into a buffer, which stays in the L2 cache.
 *
 * An element of Y is summed in one order for any M and every way in which W is stored: two sums by vectors of the instruction
 * set's width over each GEMV_DEPTH of K, which are folded and then added to the bias. It is another order than that of
 * gemm_packed.h. */
#ifndef PS_GEMV_H
#define PS_GEMV_H
#include "kernels/blocks.h"

/* GEMV_DEPTH: a tile of 6 rows and 4 outputs, 3 KiB each, fits in an L1 cache of 32 KiB. */
enum { GEMV_DEPTH = 3072 / REAL_SIZE, GEMV_STRIP = 32, GEMV_ROWS = 6, GEMV_SLICE = 48 };
enum { GEMV_SCRATCH = (GEMV_STRIP + GEMV_SLICE) * (GEMV_DEPTH + 64 / REAL_SIZE) + 64 / REAL_SIZE }; /* reals of scratch of one call */

/* Outputs o0 .. o0 + n of a W whose rows are contiguous (in_stride 1) and lie at one stride (one group). bias (n), NULL: 0; Y
 * begins with output o0. isa: one that this machine has. */
void gemv(cpu_isa isa, const weight *W, size_t o0, size_t n, size_t M, const real *X, size_t ldx, const real *bias, real *Y,
          size_t ldy, real *scratch);

/* y (n) = x (K) W, W (K, n) with row stride ld: each element is summed in the order of the rows. */
void gemv_t(cpu_isa isa, size_t K, size_t n, const real *x, const real *W, size_t ld, real *y);

#endif
