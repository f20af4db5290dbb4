/* Causal softmax attention over packed sequences, with grouped key/value heads, sliding window, chunks, soft-cap and key
 * biases.
 *
 *   S = cap(scale q k') + bias   cap(x) = c tanh(x/c), or x;  bias_j of each head, for the key at position j
 *   P = softmax of S over the keys j that row i sees:  pos_i - window < j <= pos_i  (window 0: 0 <= j <= pos_i)
 *       and with chunks  floor(j / chunk) = floor(pos_i / chunk)
 *       with a sink, of S and the sink, whose part is dropped
 *   o = P v
 *
 * Key j of a sequence has absolute position j, so k and v start at position 0. The queries are any rows whose keys exist: a
 * prompt's, one decoded token's, or the few that a Jacobian's target needs. Work is done in blocks of query rows of one
 * head, so that a worker's scratch holds the scores of a block and not T x T. The derivatives compute P again, once for all
 * tangents, instead of taping it. Shapes and strides of a block's products depend on its sequence alone, and so do its
 * bits.
 *
 * In the forward pass of many rows a row of o has the same bits whichever rows before it and behind it are queries: its block
 * begins at a multiple of the block's length, and so do the block's first key and every partial sum over keys (gemm_packed.h),
 * to which keys that the row does not see add 0. One query of a decoding step has the sums of gemv.h, and the derivatives use the BLAS. */
#ifndef PS_ATTENTION_H
#define PS_ATTENTION_H
#include "kernels/runtime.h"
#include "ops/spec.h"

typedef struct {
    const real *k, *v; /* (n_keys, NKV*HS) */
    size_t n_keys, ld; /* ld: row stride */
    size_t q0, q1;     /* rows q0..q1 of the query rows are its own */
    size_t key0;       /* row of its key 0 in dk and dv */
} attention_seq;

typedef struct {
    size_t n_heads, n_kv_heads, head_dim;
    size_t value_dim;         /* VD, of a head of values and of o; head_dim unless the values are the beginnings of the keys */
    int window, chunk;        /* 0: no limit */
    real scale, softcap;      /* softcap 0: none */
    const real *sinks;        /* (NH) a score of each head that takes part in the softmax without a value; NULL: none */
    const real *key_bias;     /* (NH, ldb), ldb >= n_keys of every sequence; NULL: none */
    size_t ldb;
    size_t n_seq;
    const attention_seq *seq; /* (n_seq) */
    const real *q;            /* (n_q, NH*HS), row stride ldq */
    size_t ldq;
    const int *pos;           /* (n_q) absolute positions of the query rows, ascending in a sequence */
    real *scratch;            /* (threads, scratch_stride) */
    size_t scratch_stride;
    real *panel;              /* (threads, panel_stride) with panel_stride >= GEMM_SCRATCH; only of attention_forward */
    size_t panel_stride;
    real *pattern;            /* (n_q, NH, ldp) P, which attention_forward writes, 0 for keys that are not seen; NULL: not kept */
    size_t ldp;               /* >= n_keys of every sequence */
} attention;

/* Reals of scratch that each worker needs for at most max_keys keys in a sequence */
size_t attention_scratch(size_t max_keys, size_t head_dim);

/* o (n_q, NH*VD), row stride ldo */
void attention_forward(const runtime *rt, const attention *a, real *o, size_t ldo);

/*  S = cap(scale q k')    dS = cap' o scale (dq k' + q dk')
 *  P = softmax(S)         dP = P o (dS - rowsum(P o dS))
 *  o = P v                do = dP v + P dv
 * n_t tangents. dq: (n_t, n_q, NH*HS); do_: (n_t, n_q, NH*VD); dk, dv: (n_t, n_rows, NKV*HS), sequence s's keys from row seq.key0.
 * dv may be dk, and gv gk, where values are beginnings of keys: then VD numbers of each row of HS. */
void attention_jvp(const runtime *rt, const attention *a, size_t n_t, size_t n_q, size_t n_rows,
                   const real *dq, const real *dk, const real *dv, real *do_);
/* The transpose:
 *  gv = P' go    gP = go v'    gS = cap' o P o (gP - rowsum(P o gP))    gq = scale gS k    gk = scale gS' q
 * gq, gk and gv are overwritten. */
void attention_vjp(const runtime *rt, const attention *a, size_t n_t, size_t n_q, size_t n_rows,
                   const real *go, real *gq, real *gk, real *gv);

#endif
