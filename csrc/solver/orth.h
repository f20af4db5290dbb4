/* Block orthogonalisation: new rows against an orthonormal basis and against each other.
 *
 * Every row passes through classical Gram-Schmidt at least twice: first all rows as a block against the old basis (a GEMM),
 * then each alone against the old basis and the rows accepted before it, repeated while a pass removes more than half
 * of the row's length ("twice is enough", Kahan and Parlett). A pass leaves components of about eps * |row before the
 * pass| along the basis. The last pass removes less than half, so that an accepted row satisfies |Q Q' - I| <= c eps with
 * a modest c that grows like the square root of the basis size, however close to dependent the row was.
 *
 * Rank: a row is dependent, and dropped, if its remainder has at most
 *   DROP * eps * max(|row|, scale),   DROP = 16,
 * which is the size of the rounding errors in a dependent row, or if it still shrinks after four passes. Zero rows are
 * dependent. A row of noise above that bound is kept: it is orthonormal to the rest, which is all that is promised, and
 * dropping it would break the relation below by more than rounding does.
 *
 * Lengths are computed in double, without overflow or underflow. The caller refuses NaN and infinity. */
#ifndef PS_ORTH_H
#define PS_ORTH_H
#include "kernels/blas.h"

/* Euclidean norm without intermediate overflow or underflow; not finite if x is not. */
double norm2(size_t n, const real *x);

/* Q (n + m, len), contiguous; rows 0..n are orthonormal, rows n..n+m are the new ones y_j. Returns r <= m; rows n..n+r are
 * then orthonormal to the others and to each other, and the rows behind them are undefined. The y_j satisfy
 *   y_j = sum over i < n + r of coef[j*ldc + i] Q_i   (+ the remainder, where dropped),   |y_j| = coef[j*ldc + n + m],
 * with coef (m, ldc) written in columns 0..n+m inclusive. scale: the size of the numbers that y was computed from, for
 * example the norm of the operator; 0: |y_j| alone. work: m * (n + m) reals. */
size_t orth(const blas *b, real *Q, size_t n, size_t m, size_t len, double scale, double *coef, size_t ldc, real *work);

#endif
