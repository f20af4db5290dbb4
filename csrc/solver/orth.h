/* Block orthogonalisation: new rows against an orthonormal basis and against each other.
 *
 * Every row goes through classical Gram-Schmidt at least twice: once as a block against the old basis (a GEMM), then
 * alone against the old basis and the rows accepted before it, and again for as long as a pass takes away more than
 * half of what is left ("twice is enough", Kahan and Parlett). A pass leaves components of at most about
 * eps * |row before the pass| along the basis; the last one takes away less than half, so what is accepted satisfies
 * |Q Q' - I| <= c * eps with a modest c that grows like the square root of the basis size, however close to dependent
 * the row was.
 *
 * Rank policy: a row is dependent, and dropped, when what is left of it has at most
 *   DROP * eps * max(|row|, scale),   DROP = 16,
 * which is what rounding leaves of a dependent row, or if four passes do not settle it. Zero rows are dependent. A row
 * that is mere noise but larger than that is kept: it is orthonormal to the rest like any other, which is all that is
 * promised, and dropping it would break the relation below by more than rounding does.
 *
 * Lengths are computed in double and survive any scale of the input. NaN and infinity are the caller's to refuse. */
#ifndef PS_ORTH_H
#define PS_ORTH_H
#include "kernels/blas.h"

/* Euclidean norm, without overflow or underflow on the way; not finite if x is not. */
double norm2(size_t n, const real *x);

/* Q: (n + m, len) contiguous rows; rows 0..n orthonormal. On return rows n..n+r are orthonormal to them and to each
 * other, r <= m is the value, and rows beyond are spent. The rows y_j that stood at n + j satisfy
 *   y_j = sum over i < n + r of coef[j*ldc + i] Q_i   (+ what was dropped),   |y_j| = coef[j*ldc + n + m],
 * with coef (m, ldc) written in columns 0..n+m inclusive. scale: the size below which DROP * eps of it counts as zero,
 * e.g. the norm of the operator that made the rows; 0 if there is none. work: m * (n + m) reals. */
size_t orth(const blas *b, real *Q, size_t n, size_t m, size_t len, double scale, double *coef, size_t ldc, real *work);

#endif
