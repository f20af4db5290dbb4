/* Products of Jacobians with blocks of vectors: one sweep through the layers between sources and targets.
 *
 *   jacobian_apply    u = J v      from the sources forward
 *   jacobian_apply_t  v = J'u      from the targets back
 *
 * A sweep carries columns of several Jacobians, each between a source and a target. Forward, each joins where its source is and
 * leaves where its target is; backward, the other way round. Every layer is visited once, and all columns that cross it pass
 * through it together. A column's result has the same bits whatever else the sweep carries. */
#ifndef PS_SWEEP_H
#define PS_SWEEP_H
#include "model/sweep_ends.h"

/* n <= s->n_streams columns. PS_ERR_MEMORY, PS_ERR_INTERRUPTED. */
ps_code jacobian_apply(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const column *columns, ps_status *st);
ps_code jacobian_apply_t(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t n, const column *columns, ps_status *st);

/* u_i = J_i v for n <= s->n_t vectors v at a source and every target i, which it must precede, in one sweep. columns
 * (n_targets, n): target i's from i n on; only the v of target 0's are read. */
ps_code jacobian_apply_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t from, size_t n, column *columns,
                           ps_status *st);

/* v_i = J_i'u for n <= s->n_t cotangents u of a target and every source i, which must precede some target, in one sweep: the
 * cotangent passes all sources on its way. columns (n_sources, n): source i's from i n on; only the u of source 0's are read,
 * and v is NULL for a source that does not precede the target. per_seq: v (n_seq, C), a sum for each prompt's source rows. */
ps_code jacobian_apply_t_all(const jacobian *j, const runtime *rt, sweep_scratch *s, size_t to, size_t n, int per_seq,
                             column *columns, ps_status *st);

/* Rows that pass through a layer at a time, vectors times packed positions. Products are at full speed with fewer, and with
 * more the buffers leave the caches. */
enum { SWEEP_ROWS = 1024 };
/* How many of n vectors over n_rows positions pass through a layer at a time: at most SWEEP_ROWS rows, but at least one vector */
size_t jacobian_block(size_t n_rows, size_t n);
/* How many of n vectors a sweep carries: their streams take at most STREAM_BYTES, or are those of a block. */
enum { STREAM_BYTES = 256 << 20 };
size_t jacobian_streams(const spec *m, size_t n_rows, size_t n);

#endif
