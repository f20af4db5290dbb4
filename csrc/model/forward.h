/* tokens -> embedding -> blocks -> logits. */
#ifndef PS_FORWARD_H
#define PS_FORWARD_H
#include "model/block.h"

typedef struct {
    const hooks *hooks;
    cache *cache;        /* NULL: the batch holds whole sequences from position 0 */
    size_t n_layers;     /* run layers 0..n_layers-1 */
    size_t first_taped;  /* layers from this one on are taped; >= n_layers: none */
    tape *tapes;         /* (n_layers - first_taped), zeroed; made here, freed by the caller also after an error */
} forward_plan;

/* x (n_rows, C): the residual stream after the last layer run. */
ps_code forward_stream(const runtime *rt, const spec *m, const batch *b, const forward_plan *plan, real *x, ps_status *st);

/* What the head's derivative needs of n rows: each NULL if not wanted. */
typedef struct {
    real *xhat, *r; /* (n, C), (n) of the final norm */
    real *slope;    /* (n, n_vocab) d logits / d (head product): logit_scale, times the soft-cap's slope */
} lm_head_tape;

/* x (n, C) -> logits (n, n_vocab) = cap(logit_scale (head norm(x) + bias)). x is destroyed. */
ps_code lm_head_forward(const runtime *rt, const spec *m, size_t n, real *x, const lm_head_tape *t, real *logits, ps_status *st);
ps_code lm_head_count(const spec *m, size_t n, int threads, size_t *bytes, ps_status *st); /* adds the bytes of its buffers */

#endif
