/* The Jacobian between two sites of a prompt, as a linear operator on blocks of vectors.
 *
 * One vector v (C) is added to the source activation at every source row; the target is read at the target rows:
 *   site:       F(v) = activation at the target rows                       width C
 *   logits:     F(v) = logits at the target rows                           width n_vocab
 *   next token: J = D (dlogits - 1 p'dlogits), D = diag(sqrt p)            width n_vocab
 * Several prompts are packed sequences: rows are stacked, or averaged over each prompt's target rows (mean).
 * The forward pass is taped once; apply and apply_t sweep only the layers between source and target, and the last
 * block only at the target rows (its keys and values at all). */
#ifndef PS_JACOBIAN_H
#define PS_JACOBIAN_H
#include "forward.h"

typedef enum { TARGET_SITE, TARGET_LOGITS, TARGET_NEXT_TOKEN } target_kind;

typedef struct {
    const spec *m;           /* borrowed */
    size_t source_layer, target_layer;
    site source_site, target_site;
    target_kind kind;
    int mean;
    batch b;
    subset all, source, target;
    size_t first_taped;      /* the source's own block is left out where the sweep starts behind it */
    tape *tapes;             /* (target_layer + 1 - first_taped) */
    size_t width;            /* C or n_vocab */
    size_t rows, cols;       /* of J */
    real *base;              /* (target.n, width) target at v = 0: activation, logits, or probabilities */
    real source_norm;        /* mean 2-norm of the source activation over the source rows */
    head_tape head;          /* kind != SITE */
    arena memory;
} jacobian;

typedef struct {
    size_t source_layer, target_layer;
    site source_site, target_site; /* the target's are ignored unless kind is SITE */
    target_kind kind;
    int mean;
    const int *const *source_positions, *const *target_positions; /* (n_seq), ascending; NULL: every */
    const size_t *n_source, *n_target;
} jacobian_plan;

/* The caller has checked that the source comes before the target. j must be zeroed; free it also after an error. */
ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const visits *steer, const jacobian_plan *plan, ps_status *st);
void jacobian_free(jacobian *j); /* accepts a zeroed one */
size_t jacobian_bytes(const jacobian *j);

/* n <= s->n_t. U (n, rows), V (n, cols): one vector a contiguous row. */
ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const real *V, real *U, ps_status *st);
ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const real *U, real *V, ps_status *st);

/* How many vectors a sweep carries at a time: enough rows to fill a product, few enough to bound its scratch. */
size_t jacobian_block(const jacobian *j, size_t n);

#endif
