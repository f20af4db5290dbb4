/* The nonlinearity of the MLP, on one row of F.
 *
 *   gated: h = act(g) o u        plain: h = act(u)
 *
 *   gated: dh = slope o dg + lift o du   with slope = act'(g) o u, lift = act(g)
 *   plain: dh = lift o du                with lift = act'(u)
 *
 * The forward pass overwrites g with slope and u with lift, which the derivative reads. */
#ifndef PS_MLP_H
#define PS_MLP_H
#include "base/cpu.h"
#include "ops/spec.h"

/* isa: one that this machine has; g_slope NULL: plain. h (F) must not overlap the others. */
void mlp_forward(cpu_isa isa, act_kind act, size_t F, real *g_slope, real *u_lift, real *h);
void mlp_jvp(size_t F, const real *slope, const real *lift, const real *dg, const real *du, real *dh); /* dh may be du */
void mlp_vjp(size_t F, const real *slope, const real *lift, const real *gh, real *gg, real *gu);       /* gu may be gh */

#endif
