#include "solver/svd.h"
#include <string.h>
#include "solver/orth.h"

ps_code svd_report(const svd_observer *o, size_t applications, double worst, size_t n, const double *sigma,
                   ps_status *st) {
    return o && o->report ? o->report(o->ctx, applications, worst, n, sigma, st) : PS_OK;
}

ps_code svd_accept(svd_operator *a, int transposed, size_t n, real *Y, ps_status *st) {
    size_t len = transposed ? a->cols : a->rows;
    for (size_t j = 0; j < n; j++) {
        double size = norm2(len, Y + j * len);
        if (!isfinite(size))
            return ps_fail(st, PS_ERR_NONFINITE,
                           "the operator's %s returned NaN or infinity (application %zu, vector %zu of %zu)",
                           transposed ? "apply_t" : "apply", a->applications + j + 1, j + 1, n);
        if (size > 0 && a->unit == 0) { /* the first nonzero product; clamped so that 1 / unit is finite */
            int exponent = ilogb(size);
            a->unit = ldexp(1, exponent < -1000 ? -1000 : exponent);
        }
        if (a->unit != 0) {
            double inverse = 1 / a->unit;
            for (size_t i = 0; i < len; i++) Y[j * len + i] = (real)((double)Y[j * len + i] * inverse);
            if (size * inverse > a->largest) a->largest = size * inverse;
        }
    }
    a->applications += n;
    return PS_OK;
}

void svd_residual(const blas *b, size_t m, size_t len, const real *a, size_t nx, const real *X, const real *c, size_t ny,
                  const real *Y, double *out, size_t step, real *work) {
    for (size_t j = 0; j < m; j++) out[j * step] = 0;
    for (size_t i = 0; i < len; i += SVD_PANEL) {
        size_t w = len - i < SVD_PANEL ? len - i : SVD_PANEL;
        gemm(b, 'n', 'n', m, w, nx, 1, a, nx, X + i, len, 0, work, w);
        gemm(b, 'n', 'n', m, w, ny, 1, c, ny, Y + i, len, 1, work, w);
        for (size_t j = 0; j < m; j++) {
            double size = norm2(w, work + j * w);
            out[j * step] += size * size;
        }
    }
    for (size_t j = 0; j < m; j++) out[j * step] = sqrt(out[j * step]);
}

void svd_rotate(const blas *b, size_t p, size_t n, size_t len, const real *a, real *X, real *work) {
    for (size_t i = 0; i < len; i += SVD_PANEL) {
        size_t w = len - i < SVD_PANEL ? len - i : SVD_PANEL;
        for (size_t j = 0; j < n; j++) memcpy(work + j * w, X + j * len + i, w * sizeof *X);
        gemm(b, 'n', 'n', p, w, n, 1, a, n, work, w, 0, X + i, len);
    }
}
