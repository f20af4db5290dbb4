/* Routing of one row of a mixture: from the router's outputs r (E) to S, the top_k experts of the row, and their shares w (K).
 *
 *   softmax      p = softmax(r)          w_e = p_e
 *   sigmoid      p = 1 / (1 + exp(-r))   w_e = p_e
 *   sparsemixer  the k-th expert is the largest that is left, w_k = its part of the softmax over those left that are near it:
 *                (r_k - r_e) / max(|r_e|, r_k) <= 2 jitter
 *
 * S of the first two: the largest p, ties to the smaller index; with a correction (E) the largest p + correction, of the
 * top_groups groups of experts whose two largest sum highest. norm_topk: w is divided by its sum over S. Then it is multiplied
 * by route_scale.
 *
 * The derivative keeps S, and the sets of sparsemixer, fixed: they are constant except where w jumps and has no derivative. */
#ifndef PS_ROUTE_H
#define PS_ROUTE_H
#include "ops/spec.h"

/* Reals of p that a row's derivative reads: E, or (K, E) of sparsemixer */
size_t route_width(const spec *m);
/* r is overwritten; correction NULL: none */
void route_forward(const spec *m, const real *correction, real *r, real *p, size_t *chosen, real *share);
/* dw (K) from dr (E), and gr (E), overwritten, from gw (K) */
void route_jvp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *dr, real *dw);
void route_vjp(const spec *m, const real *p, const size_t *chosen, const real *share, const real *gw, real *gr);

#endif
