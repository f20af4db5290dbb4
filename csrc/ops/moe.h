/* Mixture of experts, instead of one MLP:
 *
 *   S, w = route(router x + bias)                          see route.h
 *   y = sum over e in S of w_e expert_e(x) + v shared(x),  v = 1 / (1 + exp(-shared_gate x)), or 1 without the gate
 *
 *  dy = sum over e in S of w_e dexpert_e(x) + dw_e expert_e(x) + v dshared(x) + dv shared(x),  S fixed
 *
 * scale_input: expert_e(w_e x) instead of w_e expert_e(x). The shared expert is handled as expert E, which every row chooses;
 * rows that chose the same expert go through it as one product. */
#ifndef PS_MOE_H
#define PS_MOE_H
#include "base/arena.h"
#include "kernels/runtime.h"
#include "ops/spec.h"

/* n rows, K = top_k, of which A = n * K routed assignments; K1 = K + 1 and A1 = n * K1 with a shared expert, else K and A.
 * Assignments are sorted by expert, then by row. */
typedef struct {
    real *p;        /* (n, route_width): see route.h */
    size_t *chosen; /* (n, K1) experts of a row, the shared one last */
    size_t *first;  /* (E + 2) first assignment of each expert */
    size_t *row, *slot; /* (A1) assignment a is choice number slot[a] of row[a] */
    real *share;    /* (n, K1) w, v */
    real *slope, *lift; /* (A, FE): see mlp.h */
    real *shared_slope, *shared_lift; /* (n, d_shared) */
    real *y;        /* (A1, C) output of the expert */
    real *x;        /* (n, C) input, if scale_input */
    arena memory;
} moe_tape;

ps_code moe_tape_make(moe_tape *t, const spec *m, size_t n, ps_status *st);
ps_code moe_tape_count(const spec *m, size_t n, size_t *bytes, ps_status *st); /* adds the bytes of moe_tape_make */
void moe_tape_free(moe_tape *t); /* accepts a zeroed tape */

/* Reals of scratch that moe_forward (with n_t = 1) and the derivatives need for n_t tangents of n rows, without the panels */
size_t moe_scratch(const spec *m, size_t n_t, size_t n);

typedef struct {
    const runtime *rt;
    const spec *m;
    const layer_spec *y;
    const moe_tape *t; /* its buffers are written by moe_forward */
    size_t n_t, n;     /* tangents, rows of each */
    const size_t *map; /* (n) row of the tape that each row belongs to, ascending */
    real *scratch;     /* (moe_scratch) */
    size_t *index;     /* (2, n) */
    real *panel;       /* (threads, panel_stride): see linear.h */
    size_t panel_stride;
} moe_call;

void moe_forward(const moe_call *c, const real *x, real *y);        /* (n, C); n_t = 1, map unused */
void moe_jvp(const moe_call *c, const real *dx, real *dy);          /* (n_t, n, C) */
void moe_vjp(const moe_call *c, const real *gy, real *gx);          /* gx is overwritten */

#endif
