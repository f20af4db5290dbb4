/* Reductions of a row. Sixteen partial sums fill vector registers without -ffast-math, since their order is written
 * here, and round less than one running sum. The order does not depend on the instruction set. */
#ifndef PS_REDUCE_H
#define PS_REDUCE_H
#include "base/real.h"

enum { WIDTH = 16 };
_Static_assert((WIDTH & (WIDTH - 1)) == 0, "reduce_total halves it");

/* The sum of the partial sums, by halves */
static inline real reduce_total(const real *acc) {
    real t[WIDTH];
    for (int j = 0; j < WIDTH; j++) t[j] = acc[j];
    for (int w = WIDTH / 2; w; w /= 2)
        for (int j = 0; j < w; j++) t[j] += t[j + w];
    return t[0];
}

static inline real reduce_sum(size_t n, const real *x) {
    real acc[WIDTH] = {0};
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) acc[j] += x[i + j];
    for (int j = 0; i < n; i++, j++) acc[j] += x[i];
    return reduce_total(acc);
}

static inline real reduce_dot(size_t n, const real *x, const real *y) {
    real acc[WIDTH] = {0};
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) acc[j] += x[i + j] * y[i + j];
    for (int j = 0; i < n; i++, j++) acc[j] += x[i] * y[i];
    return reduce_total(acc);
}

/* sum of w x y; w NULL: 1 */
static inline real reduce_dot3(size_t n, const real *w, const real *x, const real *y) {
    if (!w) return reduce_dot(n, x, y);
    real acc[WIDTH] = {0};
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) acc[j] += w[i + j] * x[i + j] * y[i + j];
    for (int j = 0; i < n; i++, j++) acc[j] += w[i] * x[i] * y[i];
    return reduce_total(acc);
}

static inline real reduce_max(size_t n, const real *x) { /* n >= 1 */
    real top[WIDTH], most = x[0];
    size_t i = 0;
    for (int j = 0; j < WIDTH; j++) top[j] = x[0];
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
    for (int j = 0; i < n; i++, j++) top[j] = x[i] > top[j] ? x[i] : top[j];
    for (int j = 0; j < WIDTH; j++) most = top[j] > most ? top[j] : most;
    return most;
}

/* 1 if every element is finite: x - x is 0, or NaN where x is NaN or infinite */
static inline int reduce_finite(size_t n, const real *x) {
    real acc[WIDTH] = {0};
    size_t i = 0;
    for (; i + WIDTH <= n; i += WIDTH)
        for (int j = 0; j < WIDTH; j++) acc[j] += x[i + j] - x[i + j];
    for (; i < n; i++) acc[0] += x[i] - x[i];
    return reduce_total(acc) == 0;
}

#endif
