/* Generation: several prompts are continued together through a KV cache, one token each a step. Every sequence has its own
 * random stream and its own interventions (by sequence number), so a sequence's tokens do not depend on the other
 * sequences: the products of its steps are summed in one order for any number of rows, and its logits have the same bits alone and
 * in any batch. Where a rotary table changes with the length (longrope), a sequence that grows past the change is computed
 * again from its start, so that the result is that of a forward pass without a cache. Where layers have states, a sequence that
 * goes on between two of them computes the tokens from the first one on again. */
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
    int *next;           /* (n_seq) the token chosen last; -1: stopped */
    int *history;        /* the tokens in the cache, sequence s's from cache.offset[s] */
    real *logits;        /* (n_seq, n_vocab) of the last step */
    size_t n_computed;   /* rows so far, summed over layers: see forward.h */
    arena memory;
} decoder;

/* capacity[s]: the largest number of tokens of sequence s, prompt included, at most n_ctx, else PS_ERR_VALUE. seeds (n_seq). d
 * must be zeroed, and freed also after an error. */
ps_code decoder_make(decoder *d, const spec *m, size_t n_seq, const size_t *capacity, const sampling *how,
                     const uint64_t *seeds, ps_status *st);
void decoder_free(decoder *d); /* accepts a zeroed one */

/* Runs the prompts tokens[s][0..length[s]) through the model and chooses the first tokens, in d->next. */
ps_code decoder_start(decoder *d, const runtime *rt, const int *const *tokens, const size_t *length, const hooks *v,
                      ps_status *st);
/* Appends the tokens chosen last and chooses the next, in d->next. Stopped sequences are left out. PS_ERR_VALUE if a sequence
 * is at its capacity. After an error the sequences are as before the step. */
ps_code decoder_step(decoder *d, const runtime *rt, const hooks *v, ps_status *st);

/* For sequences that a forward pass has written to d->cache: notes the tokens of sequence s, which a step leaves out until it is
 * resumed. length <= its capacity. */
void decoder_note(decoder *d, size_t s, const int *tokens, size_t length);
/* Forgets what sequence s holds beyond its first `length` tokens, after which `next` follows; next -1: it is stopped. PS_ERR_VALUE
 * if it holds fewer, or its rotations were those of a longer one. */
ps_code decoder_resume(decoder *d, size_t s, size_t length, int next, ps_status *st);

#endif
