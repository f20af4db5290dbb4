/* Rotary position embedding: the leading rope_dim components of each head are rotated in pairs, by the position times the
 * pair's frequency.
 *
 *   (a, b) -> (a cos - b sin, b cos + a sin)
 *
 * The map is linear, so the jvp is the map itself. It is a rotation times the table's scale, so the vjp is the inverse
 * rotation times the same scale. */
#ifndef PS_ROPE_H
#define PS_ROPE_H
#include "ops/spec.h"

/* cosine, sine (t->dim/2) of position pos, in a sequence that has `length` tokens with the one decoded last. The angle is
 * rounded to float32, as in transformers. */
void rope_angles(const rope_table *t, int pos, size_t length, real *cosine, real *sine);
/* Rotates n_heads heads of HS components in place, backwards if inverse. */
void rope_apply(rope_style style, size_t rope_dim, size_t n_heads, size_t HS, const real *cosine, const real *sine,
                int inverse, real *x);

#endif
