/* Generation: several prompts continued together, one token each a step, through a KV cache. Each sequence has its own
 * random stream and its own interventions (by sequence number), so company does not change what it says. Where a rotary
 * table changes with the length (longrope), a sequence that grows past the change is run again from its start: the cache
 * never changes the result. */
#ifndef PS_DECODER_H
#define PS_DECODER_H
#include "model/cache.h"
#include "model/forward.h"
#include "model/sample.h"

typedef struct {
    const spec *m;       /* borrowed */
    size_t n_seq;
    cache cache;
    sampling how;
    rng *streams;        /* (n_seq) */
    int *next;           /* (n_seq) token to feed; -1: stopped */
    int *history;        /* tokens in the cache, at cache.offset[s] */
    real *logits;        /* (n_seq, n_vocab) of the last step */
    arena memory;
} decoder;

/* capacity[s]: tokens sequence s may reach in all, at most n_ctx. d must be zeroed. */
ps_code decoder_make(decoder *d, const spec *m, size_t n_seq, const size_t *capacity, const sampling *how,
                     const uint64_t *seeds, ps_status *st);
void decoder_free(decoder *d); /* accepts a zeroed one */

/* Runs tokens[s][0..length[s]) (the prompts) through the cache and chooses the first tokens. */
ps_code decoder_start(decoder *d, const runtime *rt, const int *const *tokens, const size_t *length, const hooks *v,
                      ps_status *st);
/* Feeds the tokens chosen last and chooses the next. Sequences that are stopped are left out; PS_ERR_VALUE if one has
 * reached its capacity. The tokens are in d->next. */
ps_code decoder_step(decoder *d, const runtime *rt, const hooks *v, ps_status *st);

#endif
