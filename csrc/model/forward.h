/* The forward pass: tokens -> embedding -> blocks -> logits. */
#ifndef PS_FORWARD_H
#define PS_FORWARD_H
#include "model/sharing.h"
#include "model/block.h"

typedef struct {
    const hooks *hooks;
    cache *cache;        /* NULL: the batch holds whole sequences from position 0, and their keys are not kept */
    size_t n_layers;     /* layers 0..n_layers-1 are computed */
    size_t first_taped;  /* the first layer that is taped; >= n_layers: none */
    tape *tapes;         /* (n_layers - first_taped), zeroed; made here; the caller frees them, also after an error; NULL: none */
    size_t *same;        /* (n_rows) NULL, or on return: rows with the same number here are equal */
    size_t *n_computed;  /* NULL, or the rows that were computed are added, summed over layers */
} forward_plan;

/* x (n_rows, C) = the residual stream behind layer n_layers - 1. Equal rows are computed once, but not with tapes or
 * in a decoding step. PS_ERR_NONFINITE names the layer and position whose output is
 * not finite. PS_ERR_MEMORY, PS_ERR_INTERRUPTED. */
ps_code forward_stream(const runtime *rt, const spec *m, const batch *b, const forward_plan *plan, real *x, ps_status *st);

/* A cache for one pass over whole sequences. The second adds the bytes that a pass without a cache may need for it. */
ps_code forward_keys_make(cache *c, const spec *m, const batch *b, ps_status *st);
ps_code forward_keys_count(const spec *m, const batch *shape, size_t *bytes, ps_status *st);

/* What the derivative of the LM head reads, for n rows. NULL: not kept. */
typedef struct {
    real *xhat, *r; /* (n, C), (n) of the final norm */
    real *slope;    /* (n, n_vocab) d logits / dz, z the product with lm_head */
} lm_head_tape;

/*  logits = cap(logit_scale z),  z = lm_head norm(x) + bias,  cap(y) = c tanh(y/c), or y
 * dlogits = slope o dz,          slope = logit_scale (1 - (logits/c)^2), or logit_scale
 * x (n, C) is overwritten; logits (n, n_vocab). PS_ERR_NONFINITE, PS_ERR_MEMORY, PS_ERR_INTERRUPTED. */
ps_code lm_head_forward(const runtime *rt, const spec *m, size_t n, real *x, const lm_head_tape *t, real *logits, ps_status *st);
/* logits of the last count[s] rows of each sequence s, one behind the other, from forward_stream's x, which is overwritten, and
 * `same`: those of equal rows are computed once. */
ps_code lm_head_last(const runtime *rt, const spec *m, const batch *b, const size_t *count, const size_t *same, real *x,
                     real *logits, ps_status *st);
ps_code lm_head_count(const spec *m, size_t n, int threads, size_t *bytes, ps_status *st); /* adds the bytes of its buffers */

#endif
