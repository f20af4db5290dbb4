#include "solver/orth.h"
#include <string.h>

static const double DROP = 16;
enum { PASSES = 4 };

double norm2(size_t n, const real *x) {
    enum { WIDTH = 8 };
    double acc[WIDTH] = {0}, sum = 0, largest = 0;
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) acc[j] += (double)x[i + j] * (double)x[i + j];
    for (int j = 0; i < n; i++, j++) acc[j] += (double)x[i] * (double)x[i];
    for (int j = 0; j < WIDTH; j++) sum += acc[j];
    if (sum > 1e-280 && sum < 1e280) return sqrt(sum);
    /* zero, not finite, or (in double only) with squares out of range: again, relative to the largest element */
    for (i = 0; i < n; i++) {
        double a = fabs((double)x[i]);
        if (!isfinite(a)) return a;
        if (a > largest) largest = a;
    }
    if (largest == 0) return 0;
    for (i = 0, sum = 0; i < n; i++) sum += ((double)x[i] / largest) * ((double)x[i] / largest);
    return largest * sqrt(sum);
}

static void divide(size_t n, real *x, double by) {
    for (size_t i = 0; i < n; i++) x[i] = (real)((double)x[i] / by);
}

/* One pass:  Y -= (Y Q') Q,  coef_j += length_j (Y Q')_j.  Y: m rows that have been divided by length[j*ldc]. */
static void project(const blas *b, const real *Q, size_t n, real *Y, size_t m, size_t len, const double *length,
                    double *coef, size_t ldc, real *work) {
    if (!n) return;
    gemm(b, 'n', 't', m, n, len, 1, Y, len, Q, len, 0, work, n);
    gemm(b, 'n', 'n', m, len, n, -1, work, n, Q, len, 1, Y, len);
    for (size_t j = 0; j < m; j++)
        for (size_t i = 0; i < n; i++) coef[j * ldc + i] += length[j * ldc] * (double)work[j * n + i];
}

/* Passes of one row against the n rows of Q until one removes less than half. Returns 1 and the normalised row, or 0 if
 * the row is dependent. */
static int settle(const blas *b, const real *Q, size_t n, real *y, size_t len, double length, double scale,
                  double *coef, real *work) {
    double drop = DROP * (double)REAL_EPS * (scale > length ? scale / length : 1), before = norm2(len, y);
    for (int pass = 0; pass < PASSES && before > drop; pass++) {
        project(b, Q, n, y, 1, len, &length, coef, 0, work);
        double after = norm2(len, y);
        if (after > drop && after >= before / 2) {
            divide(len, y, after);
            coef[n] = length * after;
            return 1;
        }
        before = after;
    }
    return 0;
}

size_t orth(const blas *b, real *Q, size_t n, size_t m, size_t len, double scale, double *coef, size_t ldc, real *work) {
    real *Y = Q + n * len;
    double *length = coef + n + m; /* the last column of coef */
    size_t r = 0;
    for (size_t j = 0; j < m; j++) {
        memset(coef + j * ldc, 0, (n + m) * sizeof *coef);
        length[j * ldc] = norm2(len, Y + j * len);
        if (length[j * ldc] > 0) divide(len, Y + j * len, length[j * ldc]);
    }
    project(b, Q, n, Y, m, len, length, coef, ldc, work);
    for (size_t j = 0; j < m; j++) {
        if (j > r) memmove(Y + r * len, Y + j * len, len * sizeof *Y);
        double size = length[j * ldc];
        if (size > 0 && settle(b, Q, n + r, Y + r * len, len, size, scale, coef + j * ldc, work)) r++;
    }
    return r;
}
