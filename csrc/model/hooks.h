/* Hooks of the forward pass: at a site first vectors are added to the activation, then it is copied out. */
#ifndef PS_HOOKS_H
#define PS_HOOKS_H
#include "model/batch.h"

typedef struct {
    size_t layer;
    site site;
    const real *vector; /* (C) */
    int sequence;       /* the batch.id it applies to; -1: every sequence */
    size_t n_ranges;
    const int *ranges;  /* (n_ranges, 2) half-open ranges of absolute positions */
} intervention;

typedef struct {
    size_t layer;
    site site;
    real *out; /* (n_rows, C) */
} capture;

typedef struct {
    const intervention *steer;
    size_t n_steer;
    const capture *captures;
    size_t n_captures;
} hooks;

/* Runs the hooks of this layer and site on x (n_rows, C), the activation there. */
void run_hooks(const hooks *v, size_t layer, site at, const batch *b, size_t C, real *x);

#endif
