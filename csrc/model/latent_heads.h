/* Latent attention in a block (ops/latent.h), in the place of the heads of block.c, where spec.kv_rank is not 0:
 *
 *   q = q_b(norm(q_a in)), or q in without q_a      k = [kv_norm(c), r],  [c, r] = k in
 *
 * rotated in their last rope_dim numbers. Shapes as in block.h; heads has (n, NH*VD) numbers, what o takes. */
#ifndef PS_LATENT_HEADS_H
#define PS_LATENT_HEADS_H
#include "model/block.h"

/* s->heads (n, NH*VD) from in (n, C). c NULL: the batch holds whole sequences. */
void latent_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t, block_scratch *s,
                    const hooks *v, const real *in);
/* s->heads (n_t, Q, NH*VD), its tangent, from in (n_t, n, C) */
void latent_jvp(const block_call *c, const real *in);
/* s->normed (n_t, n, C) = the cotangent at the input, or += if add, from s->heads (n_t, Q, NH*VD) */
void latent_vjp(const block_call *c, int add);

#endif
