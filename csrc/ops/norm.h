/* RMSNorm and LayerNorm of one row of n numbers. gain, bias: (n), NULL: 1, 0.
 *
 *   RMS:   r = 1/sqrt(mean x^2 + eps)          xhat = r x
 *   Layer: r = 1/sqrt(mean (x - m)^2 + eps)    xhat = r (x - m),  m = mean x
 *   y = gain o xhat + bias
 *  dy = gain o r (dx - mean dx - xhat mean(xhat o dx)),  without mean dx for RMS
 *
 * The derivative reads xhat (n) and r. The Jacobian of xhat is symmetric, so that in the vjp the gain is applied first
 * instead of last. dx may be dy, gx may be gy. */
#ifndef PS_NORM_H
#define PS_NORM_H
#include "ops/spec.h"

void norm_forward(norm_kind kind, double eps, size_t n, const real *x, const real *gain, const real *bias,
                  real *xhat, real *r, real *y); /* y may be NULL or x */
void norm_jvp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *dx, real *dy);
void norm_vjp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *gy, real *gx);

#endif
