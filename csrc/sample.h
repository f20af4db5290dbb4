/* Choosing the next token from a row of logits. */
#ifndef PS_SAMPLE_H
#define PS_SAMPLE_H
#include "real.h"
#include "rng.h"

typedef struct {
    double temperature; /* 0: greedy, the smallest id among equals */
    size_t top_k;       /* keep the k largest; 0: all */
    double top_p;       /* then keep the smallest set whose probability reaches p; 1: all */
} sampling;

typedef struct {
    real logit;
    int id;
} candidate;

/* logits (n), finite. work (n): scratch, unused when greedy. One draw of g when not greedy. */
int sample_token(const sampling *how, size_t n, const real *logits, candidate *work, rng *g);

#endif
