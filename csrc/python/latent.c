#include "python/latent.h"
#include "base/arena.h"
#include "python/convert.h"

int get_latent_sizes(PyObject *dict, spec *m) {
    if (!item(dict, "kv_rank")) return 0;
    if (get_size(dict, "kv_rank", &m->kv_rank) || get_size(dict, "q_rank", &m->q_rank) || get_size(dict, "v_dim", &m->v_dim)
        || get_double(dict, "latent_eps", &m->latent_eps))
        return -1;
    if (!m->kv_rank || !m->v_dim || m->latent_eps < 0) return invalid("kv_rank and v_dim must be positive, latent_eps not negative");
    if (m->n_kv_heads != 1 || m->rope_dim >= m->head_dim || m->qk_norm != QK_NORM_NONE || m->conv_taps
        || m->clip_qkv > 0 || m->temper_rate != 0)
        return invalid("latent attention has one key/value head, n_kv_heads = %zu, of which rope_dim = %zu of head_dim = %zu turn, and neither "
                       "qk_norm, clip_qkv nor temper, nor other mixers beside it", m->n_kv_heads, m->rope_dim, m->head_dim);
    return 0;
}

int get_latent(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep) {
    static const char *const own[] = {"q_a", "kv_b", "q_a_bias", "q_a_norm", "kv_norm"};
    for (size_t i = 0; !m->kv_rank && i < COUNT(own); i++)
        if (item(dict, own[i])) return invalid("a layer has '%s', but the spec no 'kv_rank'", own[i]);
    if (!m->kv_rank) return 0;
    if (y->z.data || y->v.data || y->v_bias) return invalid("latent attention has no 'z', 'v' and 'v_bias'");
    size_t of_head = m->head_dim - m->rope_dim + m->v_dim;
    if (get_weight(item(dict, "q_a"), "q_a", m->q_rank, m->d_model, m->q_rank > 0, &y->q_a, keep)
        || get_weight(item(dict, "kv_b"), "kv_b", m->n_heads * of_head, m->kv_rank, 1, &y->kv_b, keep)
        || get_vector(item(dict, "q_a_bias"), "q_a_bias", m->q_rank, &y->q_a_bias, keep))
        return -1;
    if (y->kv_b.group != y->kv_b.n_out) return invalid("the rows of kv_b must follow each other");
    if (!y->kv_norm.present || y->q_a_norm.present != (m->q_rank > 0))
        return invalid("latent attention needs kv_norm, and q_a_norm if and only if q_rank is positive");
    return 0;
}
