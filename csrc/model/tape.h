/* What the derivative of a block reads, written by its forward pass. Parts that a block lacks (a norm, a gate) have size 0.
 * n packed rows, W, WK, WV, WO, WZ = outputs of the layer's q, k and v, inputs of its o, outputs of its z; G = number of norms in a row
 * of a qk-norm: heads, or 1 over all heads; NV: value heads of a delta rule or a state space. */
#ifndef PS_TAPE_H
#define PS_TAPE_H
#include "base/arena.h"
#include "ops/moe.h"
#include "ops/spec.h"

typedef struct {
    real *xhat1, *r1;   /* (n, C), (n)  norm1 */
    real *xhat_q, *r_q; /* (n, W), (n, G); of latent attention (n, q_rank), (n)  q_a_norm */
    real *xhat_k, *r_k; /* (n, WK), (n, G); of latent attention (n, R), (n)  kv_norm */
    real *kept_q, *kept_k, *kept_v; /* as q, k and v: see rowwise_clip */
    real *xhat_v, *r_v; /* (n, WV), (n, NKV)  v_norm */
    real *q, *k, *v;    /* (n, W), (n, WK), (n, WV): inputs of attention (latent: (n, NH*WK), (n, WK), none), of a convolution's products, of a delta rule or of a state space */
    real *convolved;    /* (n, C)  MIX_CONV: the convolution's output */
    real *lift_q, *lift_k, *lift_v; /* (n, W), (n, WK), (n, WV)  MIX_DELTA, MIX_MAMBA: SiLU' of the convolutions, see mlp.h */
    real *decay, *decay_slope, *strength; /* (n, NV)  MIX_DELTA: see delta.h; MIX_MAMBA: the decay, the slope of the step, the step */
    real *xhat_o, *r_o; /* (n, WO), (n, NV)  o_norm */
    real *slope_z, *lift_z; /* (n, WZ)  the gate of the heads: see mlp.h */
    real *xhat_a, *r_a; /* (n, C), (n)  post1 */
    real *xhat2, *r2;   /* (n, C), (n)  norm2 */
    real *slope, *lift; /* (n, F): see mlp.h; not with experts */
    moe_tape moe;       /* with experts */
    real *xhat_m, *r_m; /* (n, C), (n)  post2 */
    real *xhat_u, *r_u; /* (n, P), (n)  in_norm */
    real *slope_u, *lift_u; /* (n, P)  the gate of a per-layer input: see mlp.h */
    real *xhat_i, *r_i; /* (n, C), (n)  post_in */
    arena memory;
} tape;

/* layer = n_layers: large enough for every layer. PS_ERR_MEMORY, PS_ERR_OVERFLOW. */
ps_code tape_make(tape *t, const spec *m, size_t layer, size_t n, ps_status *st);
ps_code tape_count(const spec *m, size_t layer, size_t n, size_t *bytes, ps_status *st); /* adds the bytes of tape_make */
void tape_free(tape *t); /* accepts a zeroed tape */

#endif
