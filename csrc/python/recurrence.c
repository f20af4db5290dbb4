#include "python/recurrence.h"
#include <limits.h>
#include <stddef.h>
#include "base/arena.h"
#include "python/convert.h"

static const char *const mixer_kinds[] = {[MIX_ATTENTION] = "attention", [MIX_CONV] = "conv", [MIX_DELTA] = "delta", NULL};
_Static_assert(COUNT(mixer_kinds) == MIX_DELTA + 2, "a string for every mixer");

static const struct { const char *key; size_t offset; } sizes[] = {
    {"state_k_heads", offsetof(spec, state_k_heads)}, {"state_v_heads", offsetof(spec, state_v_heads)},
    {"state_k_dim", offsetof(spec, state_k_dim)}, {"state_v_dim", offsetof(spec, state_v_dim)}};

const char *mixer_name(mixer_kind mixer) {
    static const char *const names[] = {[MIX_ATTENTION] = "attention", [MIX_CONV] = "short convolution", [MIX_DELTA] = "delta rule"};
    return names[mixer];
}

int get_state_sizes(PyObject *dict, spec *m) {
    if (!item(dict, "conv_taps")) return 0;
    if (get_size(dict, "conv_taps", &m->conv_taps)) return -1;
    if (!m->conv_taps) return invalid("'conv_taps' must be positive");
    if (!item(dict, "state_k_heads")) return 0;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t *field = (size_t *)(void *)((char *)m + sizes[i].offset);
        if (get_size(dict, sizes[i].key, field)) return -1;
        if (!*field) return invalid("'%s' must be positive", sizes[i].key);
    }
    if (m->state_v_heads % m->state_k_heads)
        return invalid("state_v_heads = %zu is no multiple of state_k_heads = %zu", m->state_v_heads, m->state_k_heads);
    if ((double)m->state_v_heads * (double)m->state_k_dim * (double)m->state_v_dim > INT_MAX)
        return invalid("a state of %zu heads of %zu x %zu numbers is too large", m->state_v_heads, m->state_k_dim, m->state_v_dim);
    return 0;
}

int get_mixer(PyObject *dict, const spec *m, layer_spec *y) {
    int mixer = MIX_ATTENTION;
    if (item(dict, "mixer") && get_choice(dict, "mixer", mixer_kinds, &mixer)) return -1;
    if (mixer != MIX_ATTENTION && !m->conv_taps) return invalid("a layer has a %s, but the spec no 'conv_taps'", mixer_name(mixer));
    if (mixer == MIX_DELTA && !m->state_k_heads) return invalid("a layer has a delta rule, but the spec no 'state_k_heads'");
    y->mixer = (mixer_kind)mixer;
    return 0;
}

/* The key that a layer has though its mixer does not, or NULL */
static const char *stray_key(PyObject *dict, mixer_kind mixer) {
    static const char *const of_conv[] = {"conv", "conv_bias"}, *const of_delta[] = {"decay_rate", "decay_bias", "o_norm", "a", "b"};
    for (size_t i = 0; mixer == MIX_ATTENTION && i < COUNT(of_conv); i++)
        if (item(dict, of_conv[i])) return of_conv[i];
    for (size_t i = 0; mixer != MIX_DELTA && i < COUNT(of_delta); i++)
        if (item(dict, of_delta[i])) return of_delta[i];
    return mixer == MIX_CONV && item(dict, "z") ? "z" : NULL;
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
    size_t channels = y->mixer == MIX_DELTA ? y->q.n_out + y->k.n_out + y->v.n_out : m->d_model;
    const char *stray = stray_key(dict, y->mixer);
    if (stray) return invalid("a layer with %s has '%s'", y->mixer == MIX_ATTENTION ? "attention" : "a short convolution", stray);
    if (y->mixer == MIX_ATTENTION) return 0;
    if (get_taps(dict, m, channels, y, keep)) return -1;
    if (y->mixer != MIX_DELTA) return 0;
    if (get_vector(item(dict, "decay_rate"), "decay_rate", m->state_v_heads, &y->decay_rate, keep)
        || get_vector(item(dict, "decay_bias"), "decay_bias", m->state_v_heads, &y->decay_bias, keep))
        return -1;
    return y->decay_rate && y->decay_bias && y->o_norm.present ? 0 : invalid("a delta rule needs decay_rate, decay_bias and o_norm");
}
