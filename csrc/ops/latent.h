/* Latent attention: keys and values of all heads are projections of one latent vector c (R) of a row, beside which lies a part of
 * the key that all heads share and that is rotated, r (RD). The key row is [c, r], and its value is c:
 *
 *   k_h = [K_h c, r]    v_h = V_h c             K_h (D, R), V_h (VD, R): the rows of head h in kv_b (NH*(D + VD), R)
 *   q_h . k_h = [K_h' q_h, s_h] . [c, r]        with q = [q_h (D), s_h (RD)]
 *   o_h = sum of P v_h = V_h (sum of P c)
 *
 * So it is attention with one key/value head: of the queries absorbed into the space of c, and of the latents, whose weighted sum
 * becomes that of the values behind it. The cache keeps [c, r]. Every map is linear, its own jvp, and its vjp the transpose. */
#ifndef PS_LATENT_H
#define PS_LATENT_H
#include "kernels/runtime.h"
#include "ops/spec.h"

/* Widths of a row: of a key, of all queries before and behind the absorption, of all weighted sums of latents, of all values */
static inline size_t latent_key(const spec *m) { return m->kv_rank + m->rope_dim; }
static inline size_t latent_raw(const spec *m) { return m->n_heads * m->head_dim; }
static inline size_t latent_queries(const spec *m) { return m->n_heads * latent_key(m); }
static inline size_t latent_sums(const spec *m) { return m->n_heads * m->kv_rank; }
static inline size_t latent_values(const spec *m) { return m->n_heads * m->v_dim; }

typedef struct {
    const runtime *rt;
    const spec *m;
    const weight *kv_b;
    real *panel; /* (threads, panel_stride): see linear.h */
    size_t panel_stride;
} latent_call;

/* out (n, NH, R + RD) from q (n, NH, D + RD), and the transpose, from out to q */
void latent_absorb(const latent_call *c, size_t n, const real *q, real *out);
void latent_absorb_t(const latent_call *c, size_t n, const real *out, real *q);
/* values (n, NH, VD) from sums (n, NH, R), and the transpose */
void latent_expand(const latent_call *c, size_t n, const real *sums, real *values);
void latent_expand_t(const latent_call *c, size_t n, const real *values, real *sums);
/* What heads see of the rows k (n, R + RD): keys (n, NH, D + RD), values (n, NH, VD); NULL: not needed */
void latent_keys(const latent_call *c, size_t n, const real *k, real *keys, real *values);

#endif
