/* Products of a Jacobian with blocks of vectors: one sweep through the layers between source and targets.
 *
 *   jacobian_apply    u = J v      from the source forward
 *   jacobian_apply_t  v = J'u      from the targets back
 *
 * A sweep carries vectors for several targets. Forward, each leaves where its target is; backward, each enters there. */
#ifndef PS_SWEEP_H
#define PS_SWEEP_H
#include "model/jacobian.h"

/* A vector of a sweep: v (C) at the source, u (rows of its target) at the target. One is read, the other written. */
typedef struct {
    size_t target; /* index */
    real *v, *u;
} column;

/* n <= s->n_t columns in any order: they are sorted in place, deepest target first. PS_ERR_MEMORY, PS_ERR_INTERRUPTED. */
ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);
ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);

/* u_i = J_i v for n <= s->n_t vectors v and every target i, in one sweep. columns (n_targets, n): target i's from i n on; only
 * the v of target 0's are read. */
ps_code jacobian_apply_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, column *columns, ps_status *st);

/* Rows of a sweep, vectors times packed positions. Products are at full speed with fewer, and with more the sweep's buffers
 * leave the caches. */
enum { SWEEP_ROWS = 1024 };
/* How many of n vectors one sweep over n_rows positions carries: at most SWEEP_ROWS rows, but at least one vector. */
size_t jacobian_block(size_t n_rows, size_t n);

/* Adds the bytes that a sweep of n columns allocates for the LM head with n_target target rows. */
ps_code lm_head_sweep_count(const spec *m, size_t n, size_t n_target, int threads, size_t *bytes, ps_status *st);

#endif
