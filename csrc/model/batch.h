/* Packed sequences, without padding. A row of a batch is one token with its absolute position; the rows of a sequence follow
 * each other. A subset is a selection of the rows, for example those of a Jacobian's target. */
#ifndef PS_BATCH_H
#define PS_BATCH_H
#include <stddef.h>
#include "base/arena.h"
#include "ops/spec.h"

typedef struct batch {
    size_t n_seq, n_rows;
    size_t *row0;       /* (n_seq + 1) first row of each sequence */
    int *id;            /* (n_seq) the caller's number of the sequence, used by the cache and by interventions */
    int *token, *pos;   /* (n_rows) */
    size_t max_keys;    /* largest position + 1 */
    real *cosine, *sine; /* (n_rope, n_rows, rope_dim/2) */
    const struct batch *whole; /* NULL, or the batch of which these are the rows that differ (sharing.h): */
    const size_t *of;    /* (whole->n_rows) the row of this batch that each of its rows equals, of[r] <= r */
    arena memory;
} batch;

typedef struct {
    size_t n;
    size_t *row;  /* (n) rows of the batch, ascending */
    size_t *row0; /* (n_seq + 1) first entry of each sequence */
    int *pos;     /* (n) */
    arena memory;
} subset;

/* Sequence s has the tokens tokens[s][0..length[s]) at positions start[s].. (start NULL: 0). id NULL: 0, 1, ... All are copied.
 * PS_ERR_VALUE: a token outside the vocabulary, an empty sequence, a position beyond n_ctx. PS_ERR_MEMORY, PS_ERR_OVERFLOW. */
ps_code batch_make(batch *b, const spec *m, size_t n_seq, const int *const *tokens, const size_t *length,
                   const size_t *start, const int *id, ps_status *st);
void batch_free(batch *b); /* accepts a zeroed batch */

/* out (rows of b->whole, or of b without it, width) = the rows of x (n_rows, width) that they equal; out may be x. */
void batch_spread(const batch *b, size_t width, const real *x, real *out);

/* positions[s][0..n[s]) of sequence s, strictly ascending; positions NULL: every row. PS_ERR_VALUE: a position outside its
 * sequence, out of order, or none at all. */
ps_code subset_make(subset *q, const batch *b, const int *const *positions, const size_t *n, ps_status *st);
void subset_free(subset *q); /* accepts a zeroed subset */

#endif
