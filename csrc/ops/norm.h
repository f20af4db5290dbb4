/* RMSNorm and LayerNorm, one row of n. gain, bias: (n) or NULL for 1, 0.
 *
 *   RMS:   r = 1/sqrt(mean x^2 + eps)          xhat = r x
 *   Layer: r = 1/sqrt(mean (x - m)^2 + eps)    xhat = r (x - m),  m = mean x
 *   y = gain o xhat + bias
 *
 * xhat (n) and r are what the derivative needs. The Jacobian of xhat is symmetric, so jvp and vjp differ only in
 * the side on which the gain stands. dx may be dy. */
#ifndef PS_NORM_H
#define PS_NORM_H
#include "ops/spec.h"

void norm_forward(norm_kind kind, double eps, size_t n, const real *x, const real *gain, const real *bias,
                  real *xhat, real *r, real *y); /* y may be NULL or x */
void norm_jvp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *dx, real *dy);
void norm_vjp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *gy, real *gx);

#endif
