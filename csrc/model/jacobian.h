/* The Jacobians of targets with respect to sources, earlier sites of the same prompts: the tape that sweep.h reads.
 *
 * One vector v (C) is added to a source's activation at every one of its rows, after the interventions there (see hooks.h); a target
 * is read at its own rows, after them too:
 *   site:       F(v) = activation at the target rows                       width C
 *   logits:     F(v) = logits at the target rows                           width n_vocab
 *   next token: J = D (dlogits - 1 p'dlogits), D = diag(sqrt p)            width n_vocab
 * For several prompts, which are packed sequences, the rows are stacked, or averaged over each prompt's target rows (mean).
 *
 * The forward pass is taped once for all sources and targets. A product visits only the layers between source and target, and in the
 * target's layer computes only the target rows, apart from keys and values, which all rows have. */
#ifndef PS_JACOBIAN_H
#define PS_JACOBIAN_H
#include "model/forward.h"

typedef enum { TARGET_SITE, TARGET_LOGITS, TARGET_NEXT_TOKEN } target_kind;

typedef struct {
    size_t layer;
    site site;          /* the last layer's RESID_POST unless kind is TARGET_SITE */
    target_kind kind;
    int mean;
    subset at;          /* the target rows */
    size_t width;       /* C or n_vocab */
    size_t rows;        /* of J */
    real *base;         /* (at.n, width) the target at v = 0: activation, logits, or probabilities */
    lm_head_tape lm_head; /* unless kind is TARGET_SITE */
    arena memory;
} target;

typedef struct {
    size_t layer;
    site site;
    subset at; /* the source rows */
    real norm; /* mean 2-norm of the activation over them */
} source;

typedef struct {
    const spec *m;      /* borrowed */
    hooks steer;        /* borrowed: the interventions, without captures */
    batch b;
    subset all;
    size_t n_sources, n_targets;
    source *sources;
    target *targets;
    size_t last_layer;  /* of the deepest target */
    size_t first_taped; /* the least of the sources' (see jacobian_first_taped) */
    tape *tapes;        /* (last_layer + 1 - first_taped) */
    cache keys;         /* if layers see keys of others, which may not be taped */
    int from_embedding; /* a source is the embedding itself, the first layer's RESID_PRE, of which inputs of layers are made */
    arena memory;
} jacobian;

typedef struct {
    target_kind kind;
    size_t layer;       /* ignored unless kind is TARGET_SITE */
    site site;
    int mean;
    const int *const *positions; /* (n_seq), each ascending; NULL: all */
    const size_t *n_positions;
} target_plan;

typedef struct {
    size_t layer;
    site site;
    const int *const *positions; /* (n_seq), each ascending; NULL: all */
    const size_t *n_positions;
} source_plan;

typedef struct {
    size_t n_sources, n_targets;
    const source_plan *sources;
    const target_plan *targets;
} jacobian_plan;

/* Every source must be before some target: the caller checks it. j must be zeroed, and freed also after an error. The
 * interventions of `steer` are borrowed as m is; nothing of `plan` and `tokens` is kept. PS_ERR_VALUE (see batch.h), PS_ERR_NONFINITE, PS_ERR_MEMORY, PS_ERR_OVERFLOW,
 * PS_ERR_INTERRUPTED. */
ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const hooks *steer, const jacobian_plan *plan, ps_status *st);
void jacobian_free(jacobian *j); /* accepts a zeroed one */
size_t jacobian_bytes(const jacobian *j); /* held by it */

/* The first layer that is taped: the source's own, or the next where the source is behind all that the derivative reads. */
size_t jacobian_first_taped(const spec *m, size_t layer, site at);

/* Add the bytes of a target with n rows, and of the buffers of the forward pass over n rows that is taped for n_ends sources and
 * targets. */
ps_code target_count(const spec *m, target_kind kind, size_t n, size_t *bytes, ps_status *st);
ps_code record_count(const spec *m, size_t n, size_t n_ends, size_t *bytes, ps_status *st);

#endif
