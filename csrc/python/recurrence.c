#include "python/recurrence.h"
#include <limits.h>
#include <stddef.h>
#include "base/arena.h"
#include "python/convert.h"

static const char *const mixer_kinds[] = {[MIX_ATTENTION] = "attention", [MIX_CONV] = "conv", [MIX_DELTA] = "delta",
                                          [MIX_MAMBA] = "mamba", [MIX_NONE] = "none", NULL};
_Static_assert(COUNT(mixer_kinds) == MIX_NONE + 2, "a string for every mixer");

static const struct { const char *key; size_t offset; } sizes[] = {
    {"state_k_heads", offsetof(spec, state_k_heads)}, {"state_v_heads", offsetof(spec, state_v_heads)},
    {"state_k_dim", offsetof(spec, state_k_dim)}, {"state_v_dim", offsetof(spec, state_v_dim)}};

const char *mixer_name(mixer_kind mixer) {
    static const char *const names[] = {[MIX_ATTENTION] = "attention", [MIX_CONV] = "short convolution", [MIX_DELTA] = "delta rule",
                                        [MIX_MAMBA] = "state space", [MIX_NONE] = "no mixer"};
    return names[mixer];
}

int get_state_sizes(PyObject *dict, spec *m) {
    m->step_max = HUGE_VAL;
    if (!item(dict, "conv_taps")) return 0;
    if (get_size(dict, "conv_taps", &m->conv_taps)) return -1;
    if (!m->conv_taps) return invalid("'conv_taps' must be positive");
    if (!item(dict, "state_k_heads")) return 0;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t *field = (size_t *)(void *)((char *)m + sizes[i].offset);
        if (get_size(dict, sizes[i].key, field)) return -1;
        if (!*field) return invalid("'%s' must be positive", sizes[i].key);
    }
    if ((item(dict, "step_min") && get_double(dict, "step_min", &m->step_min))
        || (item(dict, "step_max") && get_double(dict, "step_max", &m->step_max)))
        return -1;
    if (m->step_min < 0 || m->step_max < m->step_min) return invalid("step_min must be neither negative nor above step_max");
    if (item(dict, "state_tiled") && get_flag(dict, "state_tiled", &m->state_tiled)) return -1;
    if (m->state_v_heads % m->state_k_heads)
        return invalid("state_v_heads = %zu is no multiple of state_k_heads = %zu", m->state_v_heads, m->state_k_heads);
    if ((double)m->state_v_heads * (double)m->state_k_dim * (double)m->state_v_dim > INT_MAX)
        return invalid("a state of %zu heads of %zu x %zu numbers is too large", m->state_v_heads, m->state_k_dim, m->state_v_dim);
    return 0;
}

/* The key that a layer has though its mixer, or what stands in the place of its MLP, does not; or NULL */
static const char *stray_key(PyObject *dict, mixer_kind mixer) {
    enum { CONV = 1 << MIX_CONV, DELTA = 1 << MIX_DELTA, MAMBA = 1 << MIX_MAMBA, ALL = CONV | DELTA | MAMBA | 1 << MIX_ATTENTION };
    static const struct { const char *key; int mixers; } keys[] = {
        {"conv", CONV | DELTA | MAMBA}, {"conv_bias", CONV | DELTA | MAMBA}, {"decay_rate", DELTA | MAMBA}, {"decay_bias", DELTA | MAMBA},
        {"o_norm", DELTA | MAMBA}, {"a", DELTA | MAMBA}, {"a_bias", DELTA | MAMBA}, {"b", DELTA}, {"skip", MAMBA}, {"z", ALL & ~CONV}, {"z_bias", ALL & ~CONV},
        {"q", ALL}, {"k", ALL}, {"v", ALL}, {"o", ALL}, {"q_bias", ALL}, {"k_bias", ALL}, {"v_bias", ALL}, {"o_bias", ALL},
        {"norm1", ALL}, {"post1", ALL}, {"sinks", ALL}};
    static const char *const of_mlp[] = {"gate", "gate_bias", "up_bias", "down_bias", "norm2", "post2"};
    for (size_t i = 0; i < COUNT(keys); i++)
        if (!(keys[i].mixers >> mixer & 1) && item(dict, keys[i].key)) return keys[i].key;
    for (size_t i = 0; !item(dict, "up") && !item(dict, "router") && i < COUNT(of_mlp); i++)
        if (item(dict, of_mlp[i])) return of_mlp[i];
    return NULL;
}

int get_mixer(PyObject *dict, const spec *m, layer_spec *y) {
    int mixer = MIX_ATTENTION;
    if (item(dict, "mixer") && get_choice(dict, "mixer", mixer_kinds, &mixer)) return -1;
    if (mixer != MIX_ATTENTION && mixer != MIX_NONE && !m->conv_taps)
        return invalid("a layer has a %s, but the spec no 'conv_taps'", mixer_name(mixer));
    if ((mixer == MIX_DELTA || mixer == MIX_MAMBA) && !m->state_k_heads)
        return invalid("a layer has a %s, but the spec no 'state_k_heads'", mixer_name(mixer));
    if (mixer == MIX_MAMBA && m->state_tiled) return invalid("heads of a state space are neighbours, not tiled: its norm takes them in groups");
    y->mixer = (mixer_kind)mixer;
    const char *stray = stray_key(dict, y->mixer);
    int mlp = item(dict, "up") || item(dict, "router");
    if (stray) return invalid("a layer with %s and %s MLP has '%s'", mixer_name(y->mixer), mlp ? "an" : "no", stray);
    if (!mlp && y->mixer == MIX_NONE) return invalid("a layer has neither a mixer nor an MLP");
    if (m->parallel && (!mlp || y->mixer == MIX_NONE)) return invalid("a layer of a parallel model lacks its mixer or its MLP");
    return 0;
}

/* conv (conv_taps, channels) */
static int get_taps(PyObject *dict, const spec *m, size_t channels, layer_spec *y, PyObject *keep) {
    PyObject *given = item(dict, "conv");
    if (!given) return invalid("a layer with a %s lacks 'conv'", mixer_name(y->mixer));
    PyArrayObject *conv = get_rows(given, "conv", channels);
    int bad = !conv || PyList_Append(keep, (PyObject *)conv);
    if (!bad && (size_t)PyArray_DIM(conv, 0) != m->conv_taps)
        bad = invalid("conv has %zd rows; conv_taps is %zu", PyArray_DIM(conv, 0), m->conv_taps);
    if (!bad) y->conv = PyArray_DATA(conv);
    Py_XDECREF(conv); /* keep has it */
    return bad ? -1 : get_vector(item(dict, "conv_bias"), "conv_bias", channels, &y->conv_bias, keep);
}

int get_recurrence(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep) {
    size_t channels = y->mixer == MIX_CONV ? m->d_model : y->q.n_out + y->k.n_out + y->v.n_out;
    if (y->mixer == MIX_ATTENTION || y->mixer == MIX_NONE) return 0;
    if (get_taps(dict, m, channels, y, keep)) return -1;
    if (y->mixer == MIX_CONV) return 0;
    if (get_vector(item(dict, "decay_rate"), "decay_rate", m->state_v_heads, &y->decay_rate, keep)
        || get_vector(item(dict, "decay_bias"), "decay_bias", m->state_v_heads, &y->decay_bias, keep))
        return -1;
    if (!y->decay_rate || !y->decay_bias || !y->o_norm.present)
        return invalid("a %s needs decay_rate, decay_bias and o_norm", mixer_name(y->mixer));
    return get_vector(item(dict, "skip"), "skip", m->state_v_heads, &y->skip, keep);
}
