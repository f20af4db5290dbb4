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
 *
 * and of a layer with a per-layer input u (layer_input.h), before it is the output,
 *     y   <- y + post_in(in_out(act(in_gate y) . u))
 * and at last y <- out_scale * y.
 *
 * Absent norms are the identity (OLMo 2 has no norm1 and norm2); s = resid_scale. A layer with experts has the mixture of
 * moe.h instead of one MLP. In the place of attn a layer may have another mixer of the rows of a sequence, with x its input:
 *
 *   MIX_ATTENTION  o(softmax attention(q x, k x, v x)), with z the heads times sigmoid(z x)
 *                  of a model with kv_rank, the latent attention of latent.h; keys and values are those of layer keys_of
 *   MIX_CONV       o((q x) . conv((k x) . (v x)))                                                            see conv.h
 *   MIX_DELTA      o(o_norm(delta rule(q', k', v', a x, b x)) . silu(z x)),  q' k' v' = silu(conv(q x)) ..   see delta.h
 *                  where each head of q' and k' is divided by its length, and of q' by sqrt(HK), too
 *   MIX_MAMBA      o(o_norm(state space(q', k', v', a x) . silu(z x))),  q' k' v' as above                  see mamba.h
 *   MIX_NONE       0: there is no mixer; and a layer without up and router has no MLP, m = 0
 * All arrays belong to the caller. */
#ifndef PS_SPEC_H
#define PS_SPEC_H
#include <stdint.h>
#include "kernels/weight.h"

typedef enum { NORM_RMS, NORM_LAYER } norm_kind;             /* x/sqrt(mean x^2 + eps) | (x - mean)/sqrt(var + eps) */
typedef enum { QK_NORM_NONE, QK_NORM_HEAD, QK_NORM_FULL } qk_norm_kind; /* over each head | over all heads at once */
typedef enum { ACT_SILU, ACT_GELU, ACT_GELU_TANH, ACT_RELU, ACT_RELU2, ACT_SIGMOID, ACT_SILU_CLAMPED, ACT_XIELU } act_kind;
typedef enum { MIX_ATTENTION, MIX_CONV, MIX_DELTA, MIX_MAMBA, MIX_NONE } mixer_kind;
typedef enum { ROUTE_SOFTMAX, ROUTE_SIGMOID, ROUTE_SPARSEMIXER } route_kind; /* see route.h */
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
    act_kind kind;
    double c[4]; /* constants of some kinds, see mlp.h */
} activation;

typedef struct {
    weight gate, up, down; /* (FE, C), absent if plain; (FE, C); (C, FE) */
    const real *gate_bias, *up_bias, *down_bias; /* NULL: none */
} expert;

typedef struct {
    mixer_kind mixer;
    size_t head_dim, n_kv_heads, d_ff; /* HS, NKV and F of this layer */
    size_t nth;        /* its number among the layers with a state */
    size_t keys_of;    /* the layer whose keys and values its queries see: its own number, or that of an earlier layer; then k and v are absent */
    size_t carried;    /* index into spec.carried of those keys, followed by the values, if several layers see them; else NOT_CARRIED */
    int window;        /* key j is seen from i if i - window < j <= i; 0: no limit */
    int chunk;         /* key j is seen from i if j / chunk = i / chunk; 0: no limit */
    int tempered;      /* queries are multiplied by the temperature of their position */
    int rope;          /* index into spec.rope, -1: no rotation */
    double attn_scale; /* scores = attn_scale * q.k */
    activation act;
    norm norm1, post1, norm2, post2;
    norm q_norm, k_norm, v_norm; /* gains (NH*HS), (NKV*HS), (NKV*HS), the last RMS over each head; absent: this layer has none */
    weight q, k, v, o;         /* (NH*HS, C) (NKV*HS, C) (NKV*HS, C), absent: values are the keys before norm and rotation, (C, NH*HS);
                                  conv: (C, C) each; delta, mamba: (NK*HK, C) (NK*HK, C) (NV*HV, C) (C, NV*HV) */
    weight q_a, kv_b;          /* latent attention (latent.h), where q is (NH*HS, q_rank or C), k (R + rope_dim, C), v absent, o (C, NH*VD):
                                  (q_rank, C), absent if q_rank is 0; (NH*(HS - rope_dim + VD), R) */
    norm q_a_norm, kv_norm;    /* (q_rank), (R), RMS with latent_eps */
    weight z;                  /* (columns of o, C): a gate, absent: none */
    weight a, b;               /* (NV, C): decay and strength of a delta rule; the steps of a state space, whose b is absent */
    const real *conv;          /* (conv_taps, channels): conv: C; delta, mamba: those of q, k and v */
    const real *conv_bias;     /* (channels), NULL: 0 */
    const real *decay_rate, *decay_bias; /* (NV): see delta_gates_forward, mamba_steps_forward */
    const real *skip;          /* (NV), of a state space: see delta.h */
    norm o_norm;               /* (NV*HV), RMS over each head; of a state space over the heads that share a key */
    weight gate, up, down;     /* (F, C), absent if plain; (F, C); (C, F) */
    weight router;             /* (E, C); absent: one MLP. Then gate, up and down are absent */
    const expert *experts;     /* (E) */
    const real *router_bias, *correction; /* (E), see route.h; NULL: 0, none */
    expert shared;             /* that every token takes, of width d_shared; absent if that is 0 */
    weight shared_gate;        /* (1, C); absent: the shared expert's share is 1 */
    weight in_embed, in_proj, in_gate, in_out; /* (n_vocab, P), (P, C), (P, C), (C, P) of a per-layer input, see layer_input.h; or all absent */
    norm in_norm, post_in;     /* (P), (C) */
    double out_scale;
    const real *sinks;         /* (NH) scores of a key without a value that every query sees; NULL: none */
    const real *q_a_bias, *q_bias, *k_bias, *v_bias, *o_bias, *z_bias, *a_bias, *gate_bias, *up_bias, *down_bias; /* NULL: none */
} layer_spec;

typedef struct {
    size_t dim;             /* leading dimensions of a head that are rotated, at most spec.rope_dim */
    const double *inv_freq; /* (dim / 2), float32 values, as transformers stores them */
    double scale;           /* multiplies cos and sin (attention factor of yarn and longrope) */
    const double *long_inv_freq; /* (dim / 2) for sequences of more than long_after tokens; NULL: none */
    size_t long_after;
} rope_table;

/* What later layers read of earlier ones beside the residual stream, so that derivatives carry it along: keys and values that
 * several layers see, and last the embedding, if layers have inputs made of it. Its `width` numbers of a token begin behind
 * those of the entries before it, at `offset`. */
typedef struct {
    size_t offset, width;
} carried;
#define NOT_CARRIED SIZE_MAX

typedef struct {
    size_t n_layers, d_model, n_vocab, n_heads, n_ctx;
    size_t n_kv_heads, head_dim, d_ff; /* of a layer that does not say otherwise */
    norm_kind norm;
    double norm_eps;
    qk_norm_kind qk_norm; /* same kind and eps as `norm` */
    size_t q_rank, kv_rank, v_dim; /* of latent attention, see latent.h: kv_rank R, v_dim VD; kv_rank 0: heads have keys and values of their own */
    double latent_eps;
    int qk_norm_last;     /* it follows the rotation instead of preceding it */
    double clip_qkv;      /* q, k and v are limited to [-clip_qkv, clip_qkv] as soon as they are made; 0: not */
    double temper_rate;   /* the temperature of position p: 1 + temper_rate log(1 + floor((p + temper_offset) / temper_length)); 0: none */
    size_t temper_length, temper_offset;
    int parallel;
    int gated; /* h = act(gate) * up, else h = act(up) */
    act_kind act;
    size_t n_experts, top_k, d_expert; /* E, experts of a token, FE; n_experts 0: no mixture */
    size_t conv_taps;         /* of the layers without attention; 0: there are none */
    size_t state_k_heads, state_v_heads, state_k_dim, state_v_dim; /* NK, NV, HK, HV of delta rules and state spaces; 0 without one */
    int state_tiled;          /* value head h has key head h % NK, else h / (NV / NK) */
    double step_min, step_max; /* of a state space: see mamba.h */
    size_t n_attention, n_recurrent; /* layers with attention, and with a state */
    size_t d_input;           /* P, numbers of a per-layer input; 0: there are none */
    double input_scale, input_eps;
    size_t n_carried;
    const carried *carried;   /* (n_carried) */
    int shares_keys;          /* some layers see keys of others */
    size_t d_shared;          /* width of the shared expert, 0: none */
    int norm_topk;            /* the shares of the chosen experts are normalised to sum 1 */
    route_kind route;
    double route_scale, route_jitter;
    size_t n_groups, top_groups; /* groups of experts, and those of them that a token may choose from */
    int scale_input;          /* an expert's share multiplies its input instead of its output */
    rope_style rope_style;
    size_t rope_dim; /* the largest dim of a rotary table */
    double attn_softcap, logit_softcap; /* c * tanh(x / c); 0: none */
    double embed_scale, resid_scale, logit_scale;
    size_t n_rope;
    const rope_table *rope;
    const real *key_bias; /* (n_heads, n_ctx), added to the scores of the key at a position (ALiBi); NULL: none */
    weight embed;     /* (n_vocab, C) */
    norm embed_norm;  /* of the sum of token and position embeddings */
    weight pos_embed; /* (n_ctx, C), added by absolute position; absent: none */
    norm final_norm;
    weight lm_head; /* (n_vocab, C) */
    const real *lm_head_bias;
    const layer_spec *layer; /* (L) */
    size_t resident; /* the first layers that stay in memory; L + 1, the LM head counted as a layer: all do */
} spec;

/* Numbers of a layer's values of a row: its keys are its values where it has no v */
static inline size_t layer_values(const spec *m, const layer_spec *y) { return y->v.data ? y->v.n_out : m->kv_rank ? 0 : y->k.n_out; }

#endif
