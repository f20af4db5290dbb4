/* The gated delta rule: linear attention whose state forgets, and is corrected by each row; and without the correction, which
 * is the state space of mamba.h.
 *
 * Of every value head, with the state S (HK, HV) behind the row before, 0 before a sequence:
 *   M = a S                  a: decay, 0..1
 *   e = b (v - M'k)          b: strength;  uncorrected: e = b v
 *   S <- M + k e'
 *   o = S'q + skip v
 * Value head h has query and key head h / (NV / NK), or h % NK if heads are tiled.
 *
 * The derivatives compute the states again, once for GROUP tangents, instead of taping them. The vjp runs backward through the
 * rows: it keeps the state before every sqrt(T)-th row, and from there all states of the rows up to the next. A row's sums
 * have one order whatever else is in the batch. */
#ifndef PS_DELTA_H
#define PS_DELTA_H
#include "kernels/runtime.h"
#include "ops/scan.h"

typedef struct {
    size_t k_heads, v_heads, k_dim, v_dim; /* NK, NV, HK, HV */
    int tiled;                       /* key heads repeat after the last, instead of each NV / NK times in a row */
    const real *q, *k;               /* (n, NK*HK) */
    const real *v;                   /* (n, NV*HV) */
    const real *decay, *strength;    /* (n, NV) */
    int uncorrected;
    const real *skip;                /* (NV), NULL: 0 */
    size_t state;                    /* its state (NV, HK, HV) begins with this number of a slot */
    real *scratch;                   /* (threads, scratch_stride) */
    size_t scratch_stride;           /* >= delta_scratch */
} delta;

/* Reals of scratch that each worker needs for sequences of at most T rows; T 0: for delta_forward alone */
size_t delta_scratch(size_t k_dim, size_t v_dim, size_t T);

/* The value heads of a key head are shared out to so many tasks of the vjp, each with a sum of its own: more of them the fewer
 * key heads there are, and not by the number of threads. */
size_t delta_parts(size_t k_heads, size_t v_heads);

void delta_forward(const runtime *rt, const delta *d, const scan *s, real *o); /* (n, NV*HV) */

/* dM = da S + a dS      de = db (v - M'k) + b (dv - dM'k - M'dk)      dS <- dM + dk e' + k de'      do = dS'q + S'dq + skip dv
 * n_t tangents of all rows, each shaped as what it belongs to. s->states is not read. */
void delta_jvp(const runtime *rt, const delta *d, const scan *s, size_t n_t, const real *dq, const real *dk, const real *dv,
               const real *ddecay, const real *dstrength, real *do_);
/* The transpose, from the last row to the first, G being the cotangent of the state:
 *  G += q go'    gq = S go    ge = G'k    gb = ge.(v - M'k)    gv = b ge    gk = G e - M gv
 *  G <- G - k gv'    ga = sum of G o S (of the state before the row)    G <- a G,  and gv += skip go
 * Uncorrected: without -M gv and -k gv'. gq .. gstrength are overwritten; gq and gk have room for delta_parts tensors each, the
 * first of which is the result. */
void delta_vjp(const runtime *rt, const delta *d, const scan *s, size_t n_t, const real *go, real *gq, real *gk, real *gv,
               real *gdecay, real *gstrength);

/*  decay    = exp(-rate softplus(x + bias)),  slope its derivative     over x, and (n, NV)
 *  strength = 1/(1 + exp(-y))                                         over y
 * rate, bias (NV). As in PyTorch, softplus(x) is x beyond 20. */
void delta_gates_forward(const runtime *rt, size_t n, size_t v_heads, const real *rate, const real *bias, real *x, real *slope,
                         real *y);
/* The derivative, which is its own transpose, in place: x *= slope, y *= strength (1 - strength). (n_t, n, NV) */
void delta_gates_derivative(const runtime *rt, size_t n_t, size_t n, size_t v_heads, const real *slope, const real *strength,
                            real *x, real *y);

#endif
