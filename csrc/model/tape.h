/* What the derivative of a block reads, written by its forward pass. Parts that a block lacks (a norm, a gate) have size 0.
 * n packed rows, W = NH*HS, WKV = NKV*HS, G = number of norms in a row of a qk-norm: heads, or 1 over all heads. */
#ifndef PS_TAPE_H
#define PS_TAPE_H
#include "base/arena.h"
#include "ops/moe.h"
#include "ops/spec.h"

typedef struct {
    real *xhat1, *r1;   /* (n, C), (n)  norm1 */
    real *xhat_q, *r_q; /* (n, W), (n, G) */
    real *xhat_k, *r_k; /* (n, WKV), (n, G) */
    real *q, *k, *v;    /* (n, W), (n, WKV), (n, WKV): inputs of attention */
    real *xhat_a, *r_a; /* (n, C), (n)  post1 */
    real *xhat2, *r2;   /* (n, C), (n)  norm2 */
    real *slope, *lift; /* (n, F): see mlp.h; not with experts */
    moe_tape moe;       /* with experts */
    real *xhat_m, *r_m; /* (n, C), (n)  post2 */
    arena memory;
} tape;

/* layer = n_layers: large enough for every layer. PS_ERR_MEMORY, PS_ERR_OVERFLOW. */
ps_code tape_make(tape *t, const spec *m, size_t layer, size_t n, ps_status *st);
ps_code tape_count(const spec *m, size_t layer, size_t n, size_t *bytes, ps_status *st); /* adds the bytes of tape_make */
void tape_free(tape *t); /* accepts a zeroed tape */

#endif
