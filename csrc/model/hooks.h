/* Hooks of the forward pass: at a site first the interventions change the activation, in their order, then it is copied out.
 *
 * An intervention has a vector v (C):
 *   add:    x <- x + v
 *   clamp:  x <- x + v (c - v.x)   v of length 1: the coefficient of x along v becomes c; c = 0 projects v out
 * The derivative of the first is the identity, that of the second I - v v', which is its own transpose. */
#ifndef PS_HOOKS_H
#define PS_HOOKS_H
#include "model/batch.h"

typedef struct {
    size_t layer;
    site site;
    const real *vector; /* (C) */
    int clamps;         /* 0: it adds */
    double coefficient; /* c, if it clamps */
    int sequence;       /* the batch.id it applies to; -1: every sequence */
    size_t n_ranges;
    const int *ranges;  /* (n_ranges, 2) half-open ranges of absolute positions */
} intervention;

typedef struct {
    size_t layer;
    site site;
    real *out; /* (n_rows, C), of b->whole where there is one; other widths inside attention and MLP */
} capture;

typedef struct {
    const intervention *steer;
    size_t n_steer;
    const capture *captures;
    size_t n_captures;
} hooks;

/* Whether it applies at this position of sequence id. */
int intervention_touches(const intervention *s, int id, int pos);
/* Whether two interventions (vectors of C numbers) do the same at the positions where both apply. */
int intervention_equal(const intervention *a, const intervention *b, size_t C);

/* Where a capture there is written to, or NULL. Who writes the activation to it and then runs the hooks on it needs no other
 * buffer: it is that of the last one, since run_hooks spreads it in place. */
real *hooks_captured(const hooks *v, size_t layer, site at);

/* Runs the hooks of this layer and site on x (n_rows, C), the activation there. */
void run_hooks(const hooks *v, size_t layer, site at, const batch *b, size_t C, real *x);

/* The derivative of the interventions there, on n_t tangents x (n_t, q->n, C) at the rows of a subset of the batch; the transpose
 * on cotangents. */
void hooks_jvp(const hooks *v, size_t layer, site at, const batch *b, const subset *q, size_t n_t, size_t C, real *x);
void hooks_vjp(const hooks *v, size_t layer, site at, const batch *b, const subset *q, size_t n_t, size_t C, real *x);

#endif
