/* Keys (after qk-norm and rotation) and values of the tokens so far, by layer and sequence. Key j is position j. */
#ifndef PS_CACHE_H
#define PS_CACHE_H
#include "model/batch.h"

typedef struct {
    size_t n_seq, n_layers, width;  /* width = NKV*HS; n_layers 1: the layer at hand */
    size_t *capacity, *length;      /* (n_seq) in tokens */
    size_t *offset;                 /* (n_seq) first token of the sequence in a layer's (total, width) block */
    size_t total;                   /* sum of capacities */
    real *k, *v;                    /* (n_layers, total, width) */
    arena memory;
} cache;

/* capacity[s] <= n_ctx, copied. */
ps_code cache_make(cache *c, const spec *m, size_t n_layers, size_t n_seq, const size_t *capacity, ps_status *st);
/* Adds the bytes of n_layers layers of `total` tokens. */
ps_code cache_count(const spec *m, size_t n_layers, size_t total, size_t *bytes, ps_status *st);
void cache_free(cache *c); /* accepts a zeroed cache */
/* The rows (capacity, width) of sequence id in layer l */
static inline real *cache_k(const cache *c, size_t l, size_t id) { return c->k + (l % c->n_layers * c->total + c->offset[id]) * c->width; }
static inline real *cache_v(const cache *c, size_t l, size_t id) { return c->v + (l % c->n_layers * c->total + c->offset[id]) * c->width; }
/* Writes k and v (n_rows, width) of the batch, or of the rows of b->whole that they equal, in layer l at their positions. The caller checks the capacity. */
void cache_write(cache *c, size_t l, const batch *b, const real *k, const real *v);

#endif
