/* The Jacobian from one site of a prompt to one or several later ones, as linear operators on blocks of vectors.
 *
 * One vector v (C) is added to the source activation at every source row; a target is read at its own rows:
 *   site:       F(v) = activation at the target rows                       width C
 *   logits:     F(v) = logits at the target rows                           width n_vocab
 *   next token: J = D (dlogits - 1 p'dlogits), D = diag(sqrt p)            width n_vocab
 * Several prompts are packed sequences: rows are stacked, or averaged over each prompt's target rows (mean).
 *
 * The forward pass is taped once, for all targets. A sweep hooks only the layers between source and target, and of the
 * last block only what the target rows need (its keys and values at all rows). Vectors for different targets go in one
 * sweep: forward, each is carried until its target is passed; backward, it is picked up there. */
#ifndef PS_JACOBIAN_H
#define PS_JACOBIAN_H
#include "model/forward.h"

typedef enum { TARGET_SITE, TARGET_LOGITS, TARGET_NEXT_TOKEN } target_kind;

typedef struct {
    size_t layer;
    site site;          /* of the last layer's RESID_POST unless kind is SITE */
    target_kind kind;
    int mean;
    subset at;          /* the target rows */
    size_t width;       /* C or n_vocab */
    size_t rows;        /* of J */
    real *base;         /* (at.n, width) the target at v = 0: activation, logits, or probabilities */
    lm_head_tape head;     /* kind != SITE */
    arena memory;
} target;

typedef struct {
    const spec *m;      /* borrowed */
    size_t source_layer;
    site source_site;
    batch b;
    subset all, source;
    size_t n_targets;
    target *targets;
    size_t last_layer;  /* the deepest target's */
    size_t first_taped; /* the source's own block is left out where the sweep starts behind it */
    tape *tapes;        /* (last_layer + 1 - first_taped) */
    real source_norm;   /* mean 2-norm of the source activation over the source rows */
    arena memory;
} jacobian;

typedef struct {
    target_kind kind;
    size_t layer;       /* ignored unless kind is SITE */
    site site;
    int mean;
    const int *const *positions; /* (n_seq), ascending; NULL: every */
    const size_t *n_positions;
} target_plan;

typedef struct {
    size_t source_layer;
    site source_site;
    const int *const *positions;
    const size_t *n_positions;
    size_t n_targets;
    const target_plan *targets;
} jacobian_plan;

/* The caller has checked that the source comes before every target. j must be zeroed; free it also after an error. */
ps_code jacobian_make(jacobian *j, const runtime *rt, const spec *m, size_t n_seq, const int *const *tokens,
                      const size_t *length, const hooks *steer, const jacobian_plan *plan, ps_status *st);
void jacobian_free(jacobian *j); /* accepts a zeroed one */
size_t jacobian_bytes(const jacobian *j);

/* A vector in a sweep: v (C) at the source, u (rows of its target) at the target. */
typedef struct {
    size_t target; /* index */
    real *v, *u;
} column;

/* u = J v (or v = J'u) for n <= s->n_t columns, in any order: they are sorted here, deepest target first. */
ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);
ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);

/* One sweep that every target reads on its way: u_i = J_i v for n <= s->n_t vectors v and all targets i.
 * columns (n_targets, n), those of target i from i n on; the v of target 0's are read. */
ps_code jacobian_apply_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);

/* How many vectors a sweep carries at a time: enough rows to fill a product, few enough to bound its scratch. */
size_t jacobian_block(size_t n_rows, size_t n);
/* The first layer that is taped: a source's own block is left out where the sweep starts behind it. */
size_t jacobian_first_taped(size_t layer, site at);

/* Bytes that a computation would allocate, counted on the tables of sizes that allocate them. Of the batch only n_rows,
 * n_seq and max_keys count; the positions of rows, a few integers each, are neglected. */
typedef struct {
    size_t tape;   /* held by the Jacobian */
    size_t record; /* buffers of the taped forward pass */
    size_t sweep;  /* buffers and results of a sweep */
} footprint;
typedef struct {
    size_t source_layer;
    site source_site;
    target_kind kind;
    size_t target_layer; /* ignored unless kind is SITE */
    size_t n_target;     /* target rows */
    size_t n_columns;    /* vectors in a sweep */
} footprint_plan;
ps_code forward_footprint(const spec *m, const batch *shape, size_t n_logits, int threads, size_t *bytes, ps_status *st); /* adds */
ps_code jacobian_footprint(const spec *m, const batch *shape, const footprint_plan *p, int threads, footprint *f, ps_status *st);

#endif
