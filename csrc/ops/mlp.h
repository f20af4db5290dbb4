/* The nonlinearity of the MLP, on one row of F.
 *
 *   gated: h = act(g) o u        plain: h = act(u)
 *
 * The forward pass turns its inputs into the coefficients of the derivative, in place:
 *   gated: dh = slope o dg + lift o du   with slope = act'(g) o u (over g), lift = act(g) (over u)
 *   plain: dh = lift o du                with lift = act'(u) (over u) */
#ifndef PS_MLP_H
#define PS_MLP_H
#include "base/cpu.h"
#include "ops/spec.h"

/* kind: one that the machine has; g_slope NULL: plain */
void mlp_forward(cpu_isa kind, act_kind act, size_t F, real *g_slope, real *u_lift, real *h);
void mlp_jvp(size_t F, const real *slope, const real *lift, const real *dg, const real *du, real *dh); /* dh may be du */
void mlp_vjp(size_t F, const real *slope, const real *lift, const real *gh, real *gg, real *gu);       /* gu may be gh */

#endif
