/* Causal convolution of each channel along a sequence, over the row itself and the taps - 1 rows before it.
 *
 *   y_r = bias + sum over j of w_j x_{r - (taps-1) + j},  j = 0..taps-1
 *  dy_r =        sum over j of w_j dx_{r - (taps-1) + j}
 *
 * The state is the last taps - 1 rows of x; before a sequence they are 0. The map is linear, so the jvp is the map itself
 * without the bias, and the vjp is the same sum over the rows that follow. All are computed in place. */
#ifndef PS_CONV_H
#define PS_CONV_H
#include "kernels/runtime.h"
#include "ops/scan.h"

typedef struct {
    size_t taps, width;
    const real *w;      /* (taps, width), row stride ldw */
    size_t ldw;
    const real *bias;   /* (width), NULL: 0 */
    size_t state;       /* its state is numbers state .. state + (taps-1)*width of a slot */
    real *scratch;      /* (threads, scratch_stride) */
    size_t scratch_stride; /* >= conv_scratch(taps) */
} conv;

size_t conv_scratch(size_t taps); /* reals that each worker needs */

void conv_forward(const runtime *rt, const conv *c, const scan *s, real *x);             /* (rows, width) */
void conv_jvp(const runtime *rt, const conv *c, const scan *s, size_t n_t, real *dx);    /* (n_t, rows, width); s->states is not read */
void conv_vjp(const runtime *rt, const conv *c, const scan *s, size_t n_t, real *gy);

#endif
