/* A transformer as data. An architecture is a filling of these tables (see powersteer/loading); neither this file nor the
 * ops test for an architecture's name.
 *
 * Alphabet: L layers, C = d_model, NH query heads, NKV key/value heads, HS = head_dim, F = d_ff.
 *
 *   sequential                                   parallel
 *     x    = resid_pre                             x   = resid_pre
 *     a    = s * post1(attn(norm1(x)))             a   = s * post1(attn(norm1(x)))
 *     mid  = x + a                                 m   = s * post2(down(...norm2(x) or, without norm2, norm1(x)))
 *     m    = s * post2(down(act(mid')...)),        y   = x + a + m
 *            mid' = norm2(mid)
 *     y    = mid + m
 *
 * Absent norms are the identity (OLMo 2 has no norm1 and norm2); s = resid_scale. A layer with experts has the mixture of
 * moe.h instead of one MLP. All arrays belong to the caller. */
#ifndef PS_SPEC_H
#define PS_SPEC_H
#include "kernels/weight.h"

typedef enum { NORM_RMS, NORM_LAYER } norm_kind;             /* x/sqrt(mean x^2 + eps) | (x - mean)/sqrt(var + eps) */
typedef enum { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL } qk_norm_kind; /* over each head | over all heads at once */
typedef enum { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU, ACT_RELU2 } act_kind;
typedef enum { ROPE_HALF, ROPE_INTERLEAVED } rope_style;     /* pairs (i, i + dim/2) | (2i, 2i + 1) */

/* Sites are in the order in which a sequential block computes them, and are compared by it. Behind them what can be captured
 * only, inside attention and MLP: queries and keys before qk-norm and rotation, and as the scores take them; softmax(scores);
 * the heads' outputs; what the activation function takes, what multiplies it, and the product. */
typedef enum {
    SITE_RESID_PRE, SITE_ATTN_OUT, SITE_RESID_MID, SITE_DOWN_PROJ, SITE_MLP_OUT, SITE_RESID_POST, N_SITES,
    READ_Q = N_SITES, READ_K, READ_V, READ_ROT_Q, READ_ROT_K, READ_PATTERN, READ_Z, READ_PRE, READ_PRE_LINEAR, READ_POST, N_READABLE
} site;

typedef struct {
    int present;
    const real *gain, *bias; /* NULL: 1, 0. The gain is the factor itself: loading adds the 1 of "1 + w" */
} norm;

typedef struct {
    weight gate, up, down; /* (FE, C), absent if plain; (FE, C); (C, FE) */
} expert;

typedef struct {
    int window;        /* key j is seen from i if i - window < j <= i; 0: no limit */
    int rope;          /* index into spec.rope, -1: no rotation */
    double attn_scale; /* scores = attn_scale * q.k */
    norm norm1, post1, norm2, post2;
    norm q_norm, k_norm; /* gains (NH*HS) and (NKV*HS) */
    weight q, k, v, o;         /* (NH*HS, C) (NKV*HS, C) (NKV*HS, C) (C, NH*HS) */
    weight gate, up, down;     /* (F, C), absent if plain; (F, C); (C, F) */
    weight router;             /* (E, C); absent: one MLP. Then gate, up and down are absent */
    const expert *experts;     /* (E) */
    const real *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias; /* NULL: none */
} layer_spec;

typedef struct {
    const double *inv_freq; /* (rope_dim / 2), float32 values, as transformers stores them */
    double scale;           /* multiplies cos and sin (attention factor of yarn and longrope) */
    const double *long_inv_freq; /* (rope_dim / 2) for sequences of more than long_after tokens; NULL: none */
    size_t long_after;
} rope_table;

typedef struct {
    size_t n_layers, d_model, n_vocab, n_heads, n_kv_heads, head_dim, d_ff, n_ctx;
    norm_kind norm;
    double norm_eps;
    qk_norm_kind qk_norm; /* same kind and eps as `norm` */
    int parallel;
    int gated; /* h = act(gate) * up, else h = act(up) */
    act_kind act;
    size_t n_experts, top_k, d_expert; /* E, experts of a token, FE; n_experts 0: no mixture */
    int norm_topk;            /* the shares of the chosen experts are normalised to sum 1 */
    rope_style rope_style;
    size_t rope_dim; /* leading dimensions of a head that are rotated */
    double attn_softcap, logit_softcap; /* c * tanh(x / c); 0: none */
    double embed_scale, resid_scale, logit_scale;
    size_t n_rope;
    const rope_table *rope;
    weight embed;     /* (n_vocab, C) */
    weight pos_embed; /* (n_ctx, C), added by absolute position; absent: none */
    norm final_norm;
    weight lm_head; /* (n_vocab, C) */
    const real *lm_head_bias;
    const layer_spec *layer; /* (L) */
    size_t resident; /* the first layers that stay in memory; L + 1, the LM head counted as a layer: all do */
} spec;

#endif
