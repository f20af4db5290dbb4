#include "sample.h"
#include <stdlib.h>

static int by_logit(const void *a, const void *b) { /* descending, ties by id */
    const candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int greedy(size_t n, const real *logits) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (int)best;
}

int sample_token(const sampling *how, size_t n, const real *logits, candidate *work, rng *g) {
    if (how->temperature <= 0) return greedy(n, logits);
    for (size_t i = 0; i < n; i++) work[i] = (candidate){logits[i], (int)i};
    qsort(work, n, sizeof *work, by_logit);
    if (how->top_k && how->top_k < n) n = how->top_k;
    double total = 0, kept = 0;
    for (size_t i = 0; i < n; i++) total += exp(((double)work[i].logit - (double)work[0].logit) / how->temperature);
    size_t keep = 0;
    while (keep < n && (keep == 0 || kept < how->top_p * total))
        kept += exp(((double)work[keep++].logit - (double)work[0].logit) / how->temperature);
    double u = rng_uniform(g) * kept, seen = 0;
    for (size_t i = 0; i + 1 < keep; i++) {
        seen += exp(((double)work[i].logit - (double)work[0].logit) / how->temperature);
        if (u < seen) return work[i].id;
    }
    return work[keep - 1].id;
}
