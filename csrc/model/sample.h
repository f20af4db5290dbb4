/* Choosing the next tokens from rows of logits. The law of a row:
 *
 *   order    by falling logit, ties by id; the first top_k of it are left (0: all)
 *   weight   exp((logit - largest) / temperature)
 *   nucleus  the shortest beginning of the order whose weight reaches top_p times the weight of what is left
 *   draw     the first token with which the weight of the order exceeds u times the weight of the nucleus, u of [0, 1)
 *
 * Nothing is sorted: the place in the order where the weight reaches a number is found by a histogram of the weights over
 * intervals of logits, then by one of the tokens of a single interval, until these are few or equal. Rows, and parts of a
 * long row, run on all threads; the parts do not depend on the number of threads, nor a row on the others. */
#ifndef PS_SAMPLE_H
#define PS_SAMPLE_H
#include "base/rng.h"
#include "kernels/runtime.h"

typedef struct {
    double temperature; /* 0: greedy, the smallest id among equals */
    size_t top_k;       /* keep the k largest; 0: all */
    double top_p;       /* then keep the smallest set whose probability reaches p; 1: all */
} sampling;

/* next[id[i]] = the token of row i of logits (n, n_vocab), which are finite; one draw of streams[id[i]] unless greedy.
 * PS_ERR_MEMORY. */
ps_code sample_rows(const runtime *rt, const sampling *how, size_t n, size_t n_vocab, const real *logits, const int *id,
                    rng *streams, int *next, ps_status *st);

#endif
