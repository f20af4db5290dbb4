/* One transformer block, made of the ops: its forward pass, and jvp and vjp of its two branches. spec.h draws the graph.
 *
 * Shapes: n rows of the batch, Q rows of the subset (the rows computed of the block's output: all, or the target's),
 * n_t tangents, C = d_model, W = NH*HS, WKV = NKV*HS, F = d_ff; of layers without attention W and WKV are what tape.h says. */
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
    real *embedding;           /* (n, C), written by the first layer, if layers have inputs made of it */
    real *low, *raw;           /* (n, q_rank), (n, NH*max(HS, R)) of latent attention */
    real *heads;               /* (n, W), or as many as a layer's o takes */
    real *hidden;              /* (n, the largest F, or P) */
    real *moe;                 /* see moe.h */
    real *head_scratch, *panel; /* (threads, stride): see attention.h, linear.h */
    size_t head_stride, panel_stride;
    attention_seq *seq;        /* (n_seq) */
    int *begin, *end, *keep;   /* (n_seq), (n_seq), (n): see scan.h */
    arena memory;
} block_scratch;

/* Of the batch only n_rows, n_seq and max_keys are read. The second adds the bytes that the first allocates. */
ps_code block_scratch_make(block_scratch *s, const spec *m, const batch *b, int threads, ps_status *st);
ps_code block_scratch_count(const spec *m, const batch *b, int threads, size_t *bytes, ps_status *st);
void block_scratch_free(block_scratch *s);

/* x (n, C): resid_pre on entry, resid_post on return. c NULL: the batch holds whole sequences. t is overwritten.
 * PS_ERR_NONFINITE, PS_ERR_INTERRUPTED. */
ps_code block_forward(const runtime *rt, const spec *m, size_t layer, const batch *b, cache *c, tape *t,
                      block_scratch *s, const hooks *v, real *x, ps_status *st);

/* Buffers of the derivatives for up to n_t tangents over n rows. */
typedef struct {
    size_t n_t, n, n_streams;
    real *stream;          /* (n_streams, n, C) tangents or cotangents of the residual stream, n_t of which a call reads */
    real *carried;         /* for each entry of spec.carried (n_streams, n, width): see sweep_carried */
    size_t first;          /* number of the column that `stream` points to */
    real *attn, *mlp;      /* (n_t, n, C) those of the two branches */
    real *normed;          /* (n_t, n, C) */
    real *taped_q;         /* (n, W) queries of the subset */
    real *low, *raw;       /* (n_t, n, q_rank), (n_t, n, NH*max(HS, R)) of latent attention */
    real *dq, *heads;      /* (n_t, n, W); dq and dk (delta_parts, n_t, n, W) */
    real *dk, *dv;         /* (n_t, n, WKV) */
    real *dz, *da, *db;    /* (n_t, n, outputs of the layer's z), (n_t, n, NV) of a delta rule or a state space */
    real *gate, *up;       /* (n_t, n, the largest F, or P) */
    real *moe;             /* see moe.h */
    size_t *moe_index;     /* (2, n) */
    real *head_scratch, *panel;
    size_t head_stride, panel_stride;
    attention_seq *seq;
    arena memory;
} sweep_scratch;

ps_code sweep_scratch_make(sweep_scratch *s, const spec *m, const batch *b, size_t n_t, size_t n_streams, int threads, ps_status *st);
ps_code sweep_scratch_count(const spec *m, const batch *b, size_t n_t, size_t n_streams, int threads, size_t *bytes, ps_status *st);
void sweep_scratch_free(sweep_scratch *s);

/* Tangents or cotangents of entry i of spec.carried, (n_t, n, width), from column s->first on */
real *sweep_carried(const sweep_scratch *s, const spec *m, size_t i);
/* Sets those of n_t columns to zero. */
void sweep_carry_nothing(const sweep_scratch *s, const spec *m, size_t n_t);
/* Numbers of a row that are carried */
size_t carried_width(const spec *m);

/* A derivative of one layer. */
typedef struct {
    const runtime *rt;
    const spec *m;
    const batch *b;
    const tape *t;   /* of this layer */
    size_t layer;
    const subset *q; /* output rows */
    size_t n_t;      /* <= s->n_t */
    sweep_scratch *s;
    const cache *keys;  /* those that several layers see */
    int from_embedding; /* whether the embedding has a tangent */
} block_call;

/* Behind hooks at the first layer's RESID_PRE: the tangent of the embedding, of which inputs of layers are made, is that of the
 * stream (n_t, n, C); before them on the way back, its cotangent is added to that of the stream. In other layers nothing. */
void block_embedding_jvp(const block_call *c);
void block_embedding_vjp(const block_call *c);

/* attn (n_t, Q, C), the tangent of attn_out, from stream (n_t, n, C), that of resid_pre. Leaves that of norm1's output in
 * normed, for an MLP that reads it. */
void block_attn_jvp(const block_call *c);
/* mlp (n_t, Q, C), the tangent of down_proj, from stream (n_t, Q, C), that of resid_mid, or of resid_pre if parallel. */
void block_mlp_jvp(const block_call *c);
/* mlp (n_t, Q, C), in place: from the tangent of down_proj to that of mlp_out, and the transpose. */
void block_post_mlp_jvp(const block_call *c);
void block_post_mlp_vjp(const block_call *c);
/* Adds to stream (n_t, Q, C) the cotangent that mlp (n_t, Q, C), of down_proj, has at the MLP's input. Where the MLP reads
 * norm1's output, the sum is left to block_attn_vjp and the cotangent of that output stays in normed (n_t, Q, C). mlp is
 * overwritten. */
void block_mlp_vjp(const block_call *c);
/* Adds to stream the cotangent that attn (n_t, Q, C), of attn_out, has at resid_pre. stream is (n_t, Q, C) on entry and
 * (n_t, n, C) on return, since keys and values depend on every row. add_normed: normed holds block_mlp_vjp's part. attn is
 * overwritten. */
void block_attn_vjp(const block_call *c, int add_normed);

/* Whether the MLP reads norm1's output: parallel, without norm2 */
int block_shares_norm(const spec *m, size_t layer);

#endif
