/* Rotary position embedding: in each head the leading rope_dim components turn in pairs by an angle that is the
 * position times the pair's frequency. A rotation is linear and orthogonal, so the jvp is the same rotation and the
 * vjp its inverse. */
#ifndef PS_ROPE_H
#define PS_ROPE_H
#include "ops/spec.h"

/* cos, sin: (rope_dim/2) of one position in a sequence of `length` tokens so far (a decoded token's own included). The
 * angle is rounded to float32 as transformers rounds it. */
void rope_angles(const rope_table *t, size_t rope_dim, int pos, size_t length, real *cosine, real *sine);
/* Turns n_heads heads of HS components in place; inverse != 0 turns back. Both carry the table's scale. */
void rope_apply(rope_style style, size_t rope_dim, size_t n_heads, size_t HS, const real *cosine, const real *sine,
               int inverse, real *x);

#endif
