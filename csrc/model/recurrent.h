/* The mixers of a block that are not attention: from norm1's output, or the residual stream without it, to what the output projection
 * takes. A row depends on the rows before it in its sequence through a state, which stands in the cache in the place of keys
 * and values.
 *
 * Shapes as in block.h, with I = n_in of the layer's o: heads has (n, I) numbers. */
#ifndef PS_RECURRENT_H
#define PS_RECURRENT_H
#include "model/block.h"

/* s->heads (n, I) from in (n, C). c NULL: the batch holds whole sequences. */
void recurrent_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t, block_scratch *s, const real *in);
/* s->heads (n_t, Q, I), its tangent, from in (n_t, n, C) */
void recurrent_jvp(const block_call *c, const real *in);
/* s->normed (n_t, n, C) = the cotangent at the input, or += if add, from s->heads (n_t, Q, I), which is overwritten */
void recurrent_vjp(const block_call *c, int add);

#endif
