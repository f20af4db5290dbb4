#include "model/tape.h"

static ps_code make_or_count(tape *t, const spec *m, size_t layer, size_t n, size_t *bytes, ps_status *st) {
    int any = layer == m->n_layers;
    const layer_spec *l = &m->layer[any ? 0 : layer];
    size_t C = m->d_model, W = m->n_heads * m->head_dim, WKV = m->n_kv_heads * m->head_dim;
    int mixture = l->router.data != NULL;
    int heads = m->qk_norm == QK_NORM_HEAD, qk = m->qk_norm != QK_NORM_NONE;
    *t = (tape){0};
#define IF(present) ((present) ? n : 0)
    arena_slice table[] = {
        SLICE(t->xhat1, IF(any || l->norm1.present), C), SLICE(t->r1, IF(any || l->norm1.present)),
        SLICE(t->xhat_q, IF(qk), W), SLICE(t->r_q, IF(qk), heads ? m->n_heads : 1),
        SLICE(t->xhat_k, IF(qk), WKV), SLICE(t->r_k, IF(qk), heads ? m->n_kv_heads : 1),
        SLICE(t->q, n, W), SLICE(t->k, n, WKV), SLICE(t->v, n, WKV),
        SLICE(t->xhat_a, IF(any || l->post1.present), C), SLICE(t->r_a, IF(any || l->post1.present)),
        SLICE(t->xhat2, IF(any || l->norm2.present), C), SLICE(t->r2, IF(any || l->norm2.present)),
        SLICE(t->slope, IF(m->gated && (any || !mixture)), m->d_ff), SLICE(t->lift, IF(any || !mixture), m->d_ff),
        SLICE(t->xhat_m, IF(any || l->post2.present), C), SLICE(t->r_m, IF(any || l->post2.present)),
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
