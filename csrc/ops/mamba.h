/* Mamba-2's state space: each row makes a step of its own length through a linear system, whose state decays meanwhile.
 *
 * Of every head, with the state S (HK, HV) behind the row before, 0 before a sequence:
 *   t = softplus(x + bias), limited to step_min .. step_max
 *   S <- exp(-rate t) S + k (t v)'
 *   o = S'q + skip v
 *
 * That is the recurrence of delta.h without a correction: strength t, decay exp(-rate t). (B, C and x of the paper are k, q and v
 * here.) So this op makes steps and decays, and delta.h runs through the rows. */
#ifndef PS_MAMBA_H
#define PS_MAMBA_H
#include "kernels/runtime.h"
#include "ops/spec.h"

typedef struct {
    size_t heads;
    const real *rate, *bias; /* (NV) */
    real min, max;           /* of a step; max may be infinite */
    real *step, *decay;      /* (n, NV) */
    real *slope;             /* (n, NV) the derivative of the step by x */
} mamba_steps;

/* step (n, NV), x on entry. Writes decay and slope, too. As in PyTorch, softplus(x) is x beyond 20. */
void mamba_steps_forward(const runtime *rt, const mamba_steps *a, size_t n);
/*  t = limited softplus(x + bias)    dt = slope dx
 *  d = exp(-rate t)                  dd = -rate d dt
 * n_t tangents: step (n_t, n, NV), dx on entry, and decay (n_t, n, NV) are written. */
void mamba_steps_jvp(const runtime *rt, const mamba_steps *a, size_t n_t, size_t n, real *step, real *decay);
/* gx = slope (gt - rate d gd), over gt */
void mamba_steps_vjp(const runtime *rt, const mamba_steps *a, size_t n_t, size_t n, const real *decay, real *step);

#endif
