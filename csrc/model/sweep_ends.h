/* The two ends of a sweep: what enters at a source or a target and what is read there, and the LM head. Tangents and cotangents
 * of n columns are (n, rows, width). */
#ifndef PS_SWEEP_ENDS_H
#define PS_SWEEP_ENDS_H
#include "model/jacobian.h"

/* A vector of a sweep: v (C) at the source, u (rows of its target) at the target. One is read, the other written. */
typedef struct {
    size_t source, target; /* indices; the source is before the target */
    real *v, *u;
    size_t order; /* different for each column: those of a group follow each other in this order */
} column;

/* x (n, rows of q, C) = each column's v at the source rows, 0 elsewhere. q: every row, or the target's. */
void inject_source(const source *from, const subset *q, size_t C, size_t n, const column *columns, real *x);
/* The transpose: each column's v (C) = sum over the source rows of x (n, rows of q, C). per_seq: v (n_seq, C), one sum for each
 * sequence. */
void extract_source(const jacobian *j, const source *from, const subset *q, size_t n, const real *x, int per_seq,
                    const column *columns);

/* Each column's u = rows row[] of x (n, n_x, width), stacked, or averaged over each sequence if mean. row NULL: 0, 1, ... */
void reduce_rows(const jacobian *j, const target *to, size_t n, const real *x, size_t n_x, const size_t *row,
                 const column *columns);
/* The transpose: x (n, target rows, width) from each column's u */
void spread_target(const jacobian *j, const target *to, size_t n, const column *columns, real *x);

/* u from x (n, target rows, C), the tangent of the last layer's RESID_POST, which is overwritten. PS_ERR_MEMORY */
ps_code lm_head_jvp(const jacobian *j, const target *to, const runtime *rt, size_t n, real *x, const column *columns,
                    ps_status *st);
/* The transpose: x (n, target rows, C) from u */
ps_code lm_head_vjp(const jacobian *j, const target *to, const runtime *rt, size_t n, const column *columns, real *x,
                    ps_status *st);
/* Adds the bytes that either allocates for n columns with n_target target rows. */
ps_code lm_head_sweep_count(const spec *m, size_t n, size_t n_target, int threads, size_t *bytes, ps_status *st);

#endif
