#include "python/earlier.h"
#include "python/convert.h"
#include "base/arena.h"

int get_input_sizes(PyObject *dict, spec *m) {
    if (!item(dict, "d_input")) return 0;
    if (get_size(dict, "d_input", &m->d_input) || get_double(dict, "input_scale", &m->input_scale) || get_double(dict, "input_eps", &m->input_eps))
        return -1;
    return m->d_input && m->input_eps >= 0 ? 0 : invalid("'d_input' must be positive, and input_eps not negative");
}

int get_layer_sizes(PyObject *dict, const spec *m, size_t l, layer_spec *y) {
    const struct { const char *key; size_t *to, otherwise; } sizes[] = {
        {"head_dim", &y->head_dim, m->head_dim}, {"n_kv_heads", &y->n_kv_heads, m->n_kv_heads}, {"d_ff", &y->d_ff, m->d_ff}};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        *sizes[i].to = sizes[i].otherwise;
        if (item(dict, sizes[i].key) && get_size(dict, sizes[i].key, sizes[i].to)) return -1;
        if (!*sizes[i].to) return invalid("'%s' of a layer must be positive", sizes[i].key);
    }
    y->keys_of = l;
    y->out_scale = 1;
    y->carried = NOT_CARRIED;
    if ((item(dict, "keys_of") && get_size(dict, "keys_of", &y->keys_of)) || (item(dict, "out_scale") && get_double(dict, "out_scale", &y->out_scale)))
        return -1;
    if (m->n_heads % y->n_kv_heads) return invalid("n_heads = %zu is no multiple of n_kv_heads = %zu of a layer", m->n_heads, y->n_kv_heads);
    if (m->kv_rank && (y->head_dim != m->head_dim || y->n_kv_heads != 1 || y->keys_of != l))
        return invalid("latent attention has one size and no layer that sees the keys of another");
    return 0;
}

int get_layer_input(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep) {
    static const char *const own[] = {"in_embed", "in_proj", "in_gate", "in_out", "in_norm", "post_in"};
    for (size_t i = 0; !m->d_input && i < COUNT(own); i++)
        if (item(dict, own[i])) return invalid("a layer has '%s', but the spec no 'd_input'", own[i]);
    if (!m->d_input) return 0;
    if (get_weight(item(dict, "in_embed"), "in_embed", m->n_vocab, m->d_input, 1, &y->in_embed, keep)
        || get_weight(item(dict, "in_proj"), "in_proj", m->d_input, m->d_model, 1, &y->in_proj, keep)
        || get_weight(item(dict, "in_gate"), "in_gate", m->d_input, m->d_model, 1, &y->in_gate, keep)
        || get_weight(item(dict, "in_out"), "in_out", m->d_model, m->d_input, 1, &y->in_out, keep))
        return -1;
    return y->in_norm.present ? 0 : invalid("a per-layer input needs in_norm");
}

/* Checks that layer l, which has no keys of its own, sees those of an earlier one that fit. */
static int check_keys(const layer_spec *layers, size_t l) {
    const layer_spec *y = &layers[l], *from = y->keys_of < l ? &layers[y->keys_of] : NULL;
    if (!from || y->mixer != MIX_ATTENTION || from->mixer != MIX_ATTENTION || from->keys_of != y->keys_of)
        return invalid("layer %zu cannot see the keys of layer %zu: an earlier layer with attention and keys of its own is needed", l, y->keys_of);
    if (from->head_dim != y->head_dim || from->n_kv_heads != y->n_kv_heads)
        return invalid("layer %zu has %zu key heads of %zu numbers; layer %zu, whose keys it sees, %zu of %zu", l, y->n_kv_heads, y->head_dim,
                       y->keys_of, from->n_kv_heads, from->head_dim);
    return 0;
}

int place_carried(spec *m, layer_spec *layers, carried **table) {
    size_t end = 0;
    *table = PyMem_Calloc(2 * m->n_layers + 1, sizeof **table);
    if (!*table) return PyErr_NoMemory(), -1;
    for (size_t l = 0; l < m->n_layers; l++) {
        layer_spec *y = &layers[l], *from = &layers[y->keys_of < l ? y->keys_of : l];
        if (y->keys_of == l) continue;
        if (check_keys(layers, l)) return -1;
        m->shares_keys = 1;
        if (from->carried == NOT_CARRIED) {
            from->carried = m->n_carried;
            for (int i = 0; i < 2; i++, end += y->n_kv_heads * y->head_dim)
                (*table)[m->n_carried++] = (carried){end, y->n_kv_heads * y->head_dim};
        }
        y->carried = from->carried;
    }
    if (m->d_input) (*table)[m->n_carried++] = (carried){end, m->d_model};
    m->carried = *table;
    return 0;
}
