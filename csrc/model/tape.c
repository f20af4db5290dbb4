#include "model/tape.h"
#include "ops/latent.h"

/* The larger of widths over one layer, or over all */
typedef struct {
    size_t q, k, v, z, conv, delta, lengths; /* columns; of what MIX_CONV, delta rules and state spaces, MIX_DELTA add, those of o */
    size_t kv_heads, ff, input;
} widths;

static void widen(size_t *most, size_t n) {
    if (n > *most) *most = n;
}

static widths widths_of(const spec *m, size_t layer) {
    widths w = {0};
    for (size_t i = 0; i < m->n_layers; i++) {
        const layer_spec *l = &m->layer[i];
        if (layer != m->n_layers && layer != i) continue;
        widen(&w.q, l->q.n_out);
        widen(&w.k, l->k.n_out);
        widen(&w.v, layer_values(m, l));
        if (l->v_norm.present) widen(&w.kv_heads, l->n_kv_heads);
        if (l->up.data) widen(&w.ff, l->d_ff);
        widen(&w.input, l->in_gate.n_out);
        if (m->kv_rank) widen(&w.q, latent_queries(m));
        widen(&w.z, l->z.n_out);
        if (l->mixer == MIX_CONV) widen(&w.conv, l->o.n_in);
        if (l->mixer == MIX_DELTA || l->mixer == MIX_MAMBA) widen(&w.delta, l->o.n_in);
        if (l->mixer == MIX_DELTA) widen(&w.lengths, l->o.n_in);
    }
    return w;
}

static ps_code make_or_count(tape *t, const spec *m, size_t layer, size_t n, size_t *bytes, ps_status *st) {
    int any = layer == m->n_layers;
    const layer_spec *l = &m->layer[any ? 0 : layer];
    const widths w = widths_of(m, layer);
    int mixture = l->router.data != NULL;
    int heads = m->qk_norm == QK_NORM_HEAD, qk = m->qk_norm != QK_NORM_NONE || w.lengths, latent = m->kv_rank > 0;
    size_t C = m->d_model, NV = m->state_v_heads, G = heads ? m->n_heads : 1;
    if (w.lengths) widen(&G, m->state_k_heads);
    *t = (tape){0};
#define IF(present) ((present) ? n : 0)
    arena_slice table[] = {
        SLICE(t->xhat1, IF(any || l->norm1.present), C), SLICE(t->r1, IF(any || l->norm1.present)),
        SLICE(t->xhat_q, IF(qk || latent), latent ? m->q_rank : w.q), SLICE(t->r_q, IF(qk || latent), G),
        SLICE(t->xhat_k, IF(qk || latent), latent ? m->kv_rank : w.k), SLICE(t->r_k, IF(qk || latent), G),
        SLICE(t->kept_q, IF(m->clip_qkv > 0), w.q), SLICE(t->kept_k, IF(m->clip_qkv > 0), w.k), SLICE(t->kept_v, IF(m->clip_qkv > 0), w.v),
        SLICE(t->xhat_v, IF(w.kv_heads), w.v), SLICE(t->r_v, n, w.kv_heads),
        SLICE(t->q, n, w.q), SLICE(t->k, n, w.k), SLICE(t->v, n, w.v),
        SLICE(t->convolved, n, w.conv), SLICE(t->lift_q, IF(w.delta), w.q), SLICE(t->lift_k, IF(w.delta), w.k),
        SLICE(t->lift_v, IF(w.delta), w.v), SLICE(t->decay, IF(w.delta), NV), SLICE(t->decay_slope, IF(w.delta), NV),
        SLICE(t->strength, IF(w.delta), NV), SLICE(t->xhat_o, n, w.delta), SLICE(t->r_o, IF(w.delta), NV),
        SLICE(t->slope_z, n, w.z), SLICE(t->lift_z, n, w.z),
        SLICE(t->xhat_a, IF(any || l->post1.present), C), SLICE(t->r_a, IF(any || l->post1.present)),
        SLICE(t->xhat2, IF(any || l->norm2.present), C), SLICE(t->r2, IF(any || l->norm2.present)),
        SLICE(t->slope, IF(m->gated), w.ff), SLICE(t->lift, n, w.ff),
        SLICE(t->xhat_m, IF(any || l->post2.present), C), SLICE(t->r_m, IF(any || l->post2.present)),
        SLICE(t->xhat_u, n, w.input), SLICE(t->r_u, IF(w.input)), SLICE(t->slope_u, n, w.input), SLICE(t->lift_u, n, w.input),
        SLICE(t->xhat_i, IF(w.input), C), SLICE(t->r_i, IF(w.input)),
    };
#undef IF
    if (arena_make_or_count(&t->memory, table, COUNT(table), bytes, st)) return st->code;
    if (!m->n_experts || !(any || mixture)) return PS_OK;
    return bytes ? moe_tape_count(m, n, bytes, st) : moe_tape_make(&t->moe, m, n, st);
}

ps_code tape_make(tape *t, const spec *m, size_t layer, size_t n, ps_status *st) {
    return make_or_count(t, m, layer, n, NULL, st);
}

ps_code tape_count(const spec *m, size_t layer, size_t n, size_t *bytes, ps_status *st) {
    return make_or_count(&(tape){0}, m, layer, n, bytes, st);
}

void tape_free(tape *t) {
    moe_tape_free(&t->moe);
    arena_free(&t->memory);
}
