/* Sampling the next tokens from rows of logits. The distribution of a row:
 *
 *   order    by falling logit, ties by id; only the first top_k tokens are kept (0: all)
 *   weight   exp((logit - largest) / temperature)
 *   nucleus  the shortest prefix of the order whose weight reaches top_p times the weight of the kept tokens
 *   draw     the last token of the shortest prefix whose weight exceeds u times the weight of the nucleus, u in [0, 1)
 *
 * The order is not computed. The prefix whose weight reaches a number is found by a histogram of the weights over intervals of
 * logits, then by one over the interval that it ends in, and so on until the tokens there are few or equal. Rows, and
 * parts of a long row, run on all threads. The parts are the same for any number of threads, and a row does not depend on
 * the others. */
#ifndef PS_SAMPLE_H
#define PS_SAMPLE_H
#include "base/rng.h"
#include "kernels/runtime.h"

typedef struct {
    double temperature; /* 0: greedy, the smallest id among equals */
    size_t top_k;       /* keep the k largest; 0: all */
    double top_p;       /* then keep the nucleus; 1: all */
} sampling;

/* next[id[i]] = the token sampled from row i of logits (n, n_vocab), which must be finite; unless greedy, it takes one number
 * of streams[id[i]]. PS_ERR_MEMORY. */
ps_code sample_rows(const runtime *rt, const sampling *how, size_t n, size_t n_vocab, const real *logits, const int *id,
                    rng *streams, int *next, ps_status *st);

#endif
