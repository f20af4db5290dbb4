#include "ops/norm.h"
#include "base/reduce.h"

void norm_forward(norm_kind kind, double eps, size_t n, const real *x, const real *gain, const real *bias,
                  real *xhat, real *r, real *y) {
    real m = kind == NORM_LAYER ? reduce_sum(n, x) / (real)n : 0;
    for (size_t i = 0; i < n; i++) xhat[i] = x[i] - m;
    *r = (real)(1 / sqrt((double)reduce_dot(n, xhat, xhat) / (double)n + eps));
    for (size_t i = 0; i < n; i++) xhat[i] *= *r;
    if (!y) return;
    for (size_t i = 0; i < n; i++) y[i] = gain ? gain[i] * xhat[i] : xhat[i];
    if (bias)
        for (size_t i = 0; i < n; i++) y[i] += bias[i];
}

/*  y = gain o r (x - m)
 * dy = gain o r (dx - mean dx - xhat mean(xhat o dx)),  without mean dx for RMS */
void norm_jvp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *dx, real *dy) {
    real mean = kind == NORM_LAYER ? reduce_sum(n, dx) / (real)n : 0;
    real proj = reduce_dot(n, xhat, dx) / (real)n;
    for (size_t i = 0; i < n; i++) dy[i] = r * (dx[i] - mean - xhat[i] * proj);
    if (gain)
        for (size_t i = 0; i < n; i++) dy[i] *= gain[i];
}

/* gx = r (w - mean w - xhat mean(xhat o w)),  w = gain o gy */
void norm_vjp(norm_kind kind, size_t n, const real *xhat, real r, const real *gain, const real *gy, real *gx) {
    real mean = kind == NORM_LAYER ? (gain ? reduce_dot(n, gain, gy) : reduce_sum(n, gy)) / (real)n : 0;
    real proj = reduce_dot3(n, gain, xhat, gy) / (real)n;
    for (size_t i = 0; i < n; i++) gx[i] = r * ((gain ? gain[i] * gy[i] : gy[i]) - mean - xhat[i] * proj);
}
