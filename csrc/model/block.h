/* One transformer block, from the ops: forward, and its two branches' jvp and vjp. spec.h draws the graph.
 *
 * Shapes: n rows of the batch, Q rows of the subset (the rows wanted of the block's output: all, or the target's),
 * n_t tangents, C = d_model, W = NH*HS, WKV = NKV*HS, F = d_ff. */
#ifndef PS_BLOCK_H
#define PS_BLOCK_H
#include "ops/attention.h"
#include "model/batch.h"
#include "model/cache.h"
#include "kernels/runtime.h"
#include "model/hooks.h"
#include "model/tape.h"

/* Buffers of a forward pass over n rows. */
typedef struct {
    real *normed, *attn, *mlp; /* (n, C) */
    real *heads;               /* (n, W) */
    real *hidden;              /* (n, F) */
    real *moe;                 /* see moe.h */
    real *head_scratch, *panel; /* a worker each: see attention.h, linear.h */
    size_t head_stride, panel_stride;
    attention_seq *seq;        /* (n_seq) */
    arena memory;
} block_scratch;

/* Of the batch only n_rows, n_seq and max_keys count here. The second adds the bytes of the first. */
ps_code block_scratch_make(block_scratch *s, const spec *m, const batch *b, int threads, ps_status *st);
ps_code block_scratch_count(const spec *m, const batch *b, int threads, size_t *bytes, ps_status *st);
void block_scratch_free(block_scratch *s);

/* x (n, C): resid_pre in, resid_post out. c NULL: the batch holds whole sequences. t is overwritten. */
ps_code block_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                      block_scratch *s, const hooks *v, real *x, ps_status *st);

/* Buffers of a sweep of up to n_t tangents over n rows. */
typedef struct {
    size_t n_t, n;
    real *stream;          /* (n_t, n, C) the residual stream's tangent or cotangent */
    real *attn, *mlp;      /* (n_t, n, C) the two branches' */
    real *normed;          /* (n_t, n, C) */
    real *taped_q;         /* (n, W) the subset's queries */
    real *dq, *heads;      /* (n_t, n, W) */
    real *dk, *dv;         /* (n_t, n, WKV) */
    real *gate, *up;       /* (n_t, n, F) */
    real *moe;             /* see moe.h */
    size_t *moe_index;     /* (2, n) */
    real *head_scratch, *panel;
    size_t head_stride, panel_stride;
    attention_seq *seq;
    arena memory;
} sweep_scratch;

ps_code sweep_scratch_make(sweep_scratch *s, const spec *m, const batch *b, size_t n_t, int threads, ps_status *st);
ps_code sweep_scratch_count(const spec *m, const batch *b, size_t n_t, int threads, size_t *bytes, ps_status *st);
void sweep_scratch_free(sweep_scratch *s);

/* What the sweeps read. */
typedef struct {
    const runtime *rt;
    const spec *m;
    const batch *b;
    const tape *t;   /* of this layer */
    size_t layer;
    const subset *q; /* output rows */
    size_t n_t;      /* tangents in this sweep, <= scratch.n_t */
    sweep_scratch *s;
} block_call;

/* stream (n_t, n, C) -> attn (n_t, Q, C): the tangent of attn_out. stream is kept, normed is left for the MLP. */
void block_attn_jvp(const block_call *c);
/* stream (n_t, Q, C) (resid_mid, or resid_pre in a parallel block) -> mlp (n_t, Q, C): the tangent of down_proj. */
void block_mlp_jvp(const block_call *c);
/* mlp (n_t, Q, C): down_proj -> mlp_out, and its transpose. */
void block_post_mlp_jvp(const block_call *c);
void block_post_mlp_vjp(const block_call *c);
/* mlp (n_t, Q, C), the cotangent of down_proj, is pulled back and added to stream (n_t, Q, C); in a parallel block that
 * shares norm1 it is left in normed (n_t, Q, C) for block_attn_vjp instead. mlp is destroyed. */
void block_mlp_vjp(const block_call *c);
/* attn (n_t, Q, C), the cotangent of attn_out, is pulled back to resid_pre; stream goes from (n_t, Q, C) to
 * (n_t, n, C). add_normed: the MLP's share of a shared norm1 waits in normed. attn is destroyed. */
void block_attn_vjp(const block_call *c, int add_normed);

/* norm1 feeds the MLP too: parallel, and no norm2 */
int block_shares_norm(const spec *m, size_t layer);

#endif
