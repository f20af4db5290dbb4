/* What a block does behind its MLP: it adds what its input of its own says, and scales the sum. See spec.h for the block.
 *
 *   u  = in_norm(in_proj e) + input_scale * in_embed[token],  e the embedding, RMS with input_eps
 *   y <- out_scale * (y + post_in(in_out(act(in_gate y) . u)))
 *
 * e is the residual stream before the first layer, behind the interventions there. A layer without in_gate has no u. */
#ifndef PS_LAYER_INPUT_H
#define PS_LAYER_INPUT_H
#include "model/block.h"

/* x (n, C): the block's output, in place */
void layer_input_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, tape *t, block_scratch *s, real *x);
/* s->stream (n_t, Q, C), the tangent of the block's output, in place; s->mlp, attn, gate and up are overwritten. The tangent of e is
 * carried, and zero unless c->from_embedding. */
void layer_input_jvp(const block_call *c);
/* The transpose; the cotangent of e is added to what is carried, and s->normed is overwritten, too. */
void layer_input_vjp(const block_call *c);

#endif
