/* The nonlinearity of the MLP, on one row of F.
 *
 *   gated: h = act(g) o u        plain: h = act(u)
 *
 *   gated: dh = slope o dg + lift o du   with slope = act'(g) o u, lift = act(g)
 *   plain: dh = lift o du                with lift = act'(u)
 *
 * The forward pass overwrites g with slope and u with lift, which the derivative reads.
 *
 * Constants of an activation:
 *   tanh GELU   x (1 + tanh(c0 (x + 0.044715 x^3)))/2; c0 = 0 stands for sqrt(2/pi)
 *   xIELU       c0 x^2 + c2 x for x > 0, else c1 (exp(min(x, c3)) - 1 - x) + c2 x
 *   clamped SiLU, gated   h = x / (1 + exp(-c0 x)) (1 + y),  x = min(g, c1),  y = min(max(u, -c1), c1) */
#ifndef PS_MLP_H
#define PS_MLP_H
#include "base/cpu.h"
#include "ops/spec.h"

/* isa: one that this machine has; g_slope NULL: plain. h (F) must not overlap the others. */
void mlp_forward(cpu_isa isa, const activation *act, size_t F, real *g_slope, real *u_lift, real *h);
void mlp_jvp(size_t F, const real *slope, const real *lift, const real *dg, const real *du, real *dh); /* dh may be du */
void mlp_vjp(size_t F, const real *slope, const real *lift, const real *gh, real *gg, real *gu);       /* gu may be gh */

#endif
