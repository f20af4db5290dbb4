#include "python/model_type.h"
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include "python/convert.h"
#include "python/earlier.h"
#include "python/latent.h"
#include "python/mixture.h"
#include "python/recurrence.h"
#include "model/footprint.h"
#include "ops/latent.h"

static const char *const spec_keys[] = {
    "n_layers", "d_model", "n_vocab", "n_heads", "n_kv_heads", "head_dim", "d_ff", "n_ctx", "norm", "norm_eps", "qk_norm",
    "parallel", "gated", "act", "rope_style", "rope_dim", "attn_softcap", "logit_softcap", "embed_scale", "resid_scale",
    "logit_scale", "rope", "n_experts", "top_k", "d_expert", "norm_topk", "resident", "d_shared", "route", "route_scale", "route_jitter",
    "qk_norm_last", "clip_qkv", "temper", "n_groups", "top_groups", "scale_input", "conv_taps",
    "state_k_heads", "state_v_heads", "state_k_dim", "state_v_dim", "state_tiled", "step_min", "step_max", "q_rank", "kv_rank", "v_dim", "latent_eps",
    "d_input", "input_scale", "input_eps", NULL};
static const char *const layer_keys[] = {
    "window", "chunk", "tempered", "rope", "attn_scale", "act_constants", "norm1", "post1", "norm2", "post2", "q_norm", "k_norm", "q", "k", "v", "o", "gate", "up",
    "down", "q_bias", "k_bias", "v_bias", "o_bias", "z_bias", "a_bias", "gate_bias", "up_bias", "down_bias",
    "router", "experts", "router_bias", "correction", "shared", "shared_gate", "sinks", "mixer", "z", "a", "b", "conv", "conv_bias",
    "decay_rate", "decay_bias", "skip", "o_norm", "q_a", "kv_b", "q_a_bias", "q_a_norm", "kv_norm",
    "head_dim", "n_kv_heads", "d_ff", "keys_of", "out_scale", "v_norm", "in_embed", "in_proj", "in_gate", "in_out", "in_norm", "post_in", NULL};
static const char *const top_keys[] = {"embed", "pos_embed", "embed_norm", "key_bias", "lm_head", "final_norm", "lm_head_bias", NULL};

/* The spec's strings for the enums of spec.h, each list with a NULL at its end. */
static const char *const norm_kinds[] = {[NORM_RMS] = "rms", [NORM_LAYER] = "layer", NULL};
static const char *const qk_norm_kinds[] = {[QK_NORM_NONE] = "none", [QK_NORM_HEAD] = "head", [QK_NORM_FULL] = "full", NULL};
static const char *const act_kinds[] = {[ACT_SILU] = "silu", [ACT_GELU] = "gelu", [ACT_GELU_TANH] = "gelu_tanh",
                                        [ACT_RELU] = "relu", [ACT_RELU2] = "relu2", [ACT_SIGMOID] = "sigmoid",
                                        [ACT_SILU_CLAMPED] = "silu_clamped", [ACT_XIELU] = "xielu", NULL};
static const char *const rope_styles[] = {[ROPE_HALF] = "half", [ROPE_INTERLEAVED] = "interleaved", NULL};
_Static_assert(COUNT(norm_kinds) == NORM_LAYER + 2 && COUNT(qk_norm_kinds) == QK_NORM_FULL + 2, "a string for every norm");
_Static_assert(COUNT(act_kinds) == ACT_XIELU + 2 && COUNT(rope_styles) == ROPE_INTERLEAVED + 2, "a string for every kind");

static const struct { const char *key; size_t offset; } size_fields[] = {
    {"n_layers", offsetof(spec, n_layers)}, {"d_model", offsetof(spec, d_model)}, {"n_vocab", offsetof(spec, n_vocab)},
    {"n_heads", offsetof(spec, n_heads)}, {"n_kv_heads", offsetof(spec, n_kv_heads)}, {"head_dim", offsetof(spec, head_dim)},
    {"d_ff", offsetof(spec, d_ff)}, {"n_ctx", offsetof(spec, n_ctx)}};
static const struct { const char *key; size_t offset; } double_fields[] = {
    {"norm_eps", offsetof(spec, norm_eps)}, {"attn_softcap", offsetof(spec, attn_softcap)},
    {"logit_softcap", offsetof(spec, logit_softcap)}, {"embed_scale", offsetof(spec, embed_scale)},
    {"resid_scale", offsetof(spec, resid_scale)}, {"logit_scale", offsetof(spec, logit_scale)}};

/* temper: (rate, length, offset); NULL: none */
static int parse_temper(spec *m, PyObject *value) {
    Py_ssize_t length, offset;
    if (!value) return 0;
    if (!PyArg_ParseTuple(value, "dnn", &m->temper_rate, &length, &offset)) return -1;
    if (!isfinite(m->temper_rate) || length < 1 || offset < 0)
        return invalid("'temper' must be a finite rate, a positive length and an offset that is not negative");
    m->temper_length = (size_t)length;
    m->temper_offset = (size_t)offset;
    return 0;
}

static int parse_scalars(spec *m, PyObject *dict) {
    int norm, qk, act, style;
    if (known_keys(dict, "spec", spec_keys)) return -1;
    for (size_t i = 0; i < COUNT(size_fields); i++) {
        size_t *field = (size_t *)(void *)((char *)m + size_fields[i].offset);
        if (get_size(dict, size_fields[i].key, field)) return -1;
        if (!*field) return invalid("'%s' must be positive", size_fields[i].key);
    }
    for (size_t i = 0; i < COUNT(double_fields); i++)
        if (get_double(dict, double_fields[i].key, (double *)(void *)((char *)m + double_fields[i].offset))) return -1;
    if (get_choice(dict, "norm", norm_kinds, &norm) || get_choice(dict, "qk_norm", qk_norm_kinds, &qk)
        || get_choice(dict, "act", act_kinds, &act) || get_choice(dict, "rope_style", rope_styles, &style)
        || get_flag(dict, "parallel", &m->parallel) || get_flag(dict, "gated", &m->gated)
        || get_size(dict, "rope_dim", &m->rope_dim))
        return -1;
    if (get_state_sizes(dict, m)) return -1;
    if (item(dict, "clip_qkv") && get_double(dict, "clip_qkv", &m->clip_qkv)) return -1;
    if (item(dict, "qk_norm_last") && get_flag(dict, "qk_norm_last", &m->qk_norm_last)) return -1;
    if (parse_temper(m, item(dict, "temper"))) return -1;
    m->resident = m->n_layers + 1;
    if (item(dict, "resident") && get_size(dict, "resident", &m->resident)) return -1;
    m->norm = (norm_kind)norm;
    m->qk_norm = (qk_norm_kind)qk;
    m->act = (act_kind)act;
    m->rope_style = (rope_style)style;
    if (m->n_heads % m->n_kv_heads)
        return invalid("n_heads = %zu is no multiple of n_kv_heads = %zu", m->n_heads, m->n_kv_heads);
    if (m->rope_dim % 2) return invalid("rope_dim = %zu must be even", m->rope_dim);
    if (m->attn_softcap < 0 || m->logit_softcap < 0 || m->norm_eps < 0 || m->clip_qkv < 0)
        return invalid("norm_eps, attn_softcap, logit_softcap and clip_qkv must not be negative");
    return get_latent_sizes(dict, m) || parse_mixture(m, dict) || get_input_sizes(dict, m) ? -1 : 0;
}

/* dim: 0, or that of the table so far, which it becomes */
static int get_frequencies(model_object *self, PyObject *obj, size_t *dim, const double **out) {
    PyArrayObject *a = (PyArrayObject *)obj;
    if (!PyArray_Check(obj) || PyArray_TYPE(a) != NPY_FLOAT64 || PyArray_NDIM(a) != 1 || !PyArray_ISCARRAY_RO(a)
        || (size_t)PyArray_DIM(a, 0) > self->spec.rope_dim / 2 || (*dim && (size_t)PyArray_DIM(a, 0) != *dim / 2))
        return invalid("a rope table must hold contiguous float64 arrays of equally many numbers, at most rope_dim/2 = %zu",
                       self->spec.rope_dim / 2);
    *dim = 2 * (size_t)PyArray_DIM(a, 0);
    *out = PyArray_DATA(a);
    return PyList_Append(self->keep, obj);
}

/* rope: list of (inv_freq, scale), or (inv_freq, scale, long_inv_freq, long_after) with other frequencies for long sequences */
static int parse_ropes(model_object *self, PyObject *list) {
    Py_ssize_t n = list && PyList_Check(list) ? PyList_Size(list) : -1;
    if (n < 0) return invalid("'rope' must be a list of tuples");
    self->ropes = PyMem_New(rope_table, n ? n : 1);
    if (!self->ropes) return PyErr_NoMemory(), -1;
    for (Py_ssize_t i = 0; i < n; i++) {
        rope_table *t = &self->ropes[i];
        PyObject *inv_freq, *after = NULL;
        Py_ssize_t long_after = 0;
        *t = (rope_table){0};
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "Od|On", &inv_freq, &t->scale, &after, &long_after)) return -1;
        if (get_frequencies(self, inv_freq, &t->dim, &t->inv_freq) || (after && get_frequencies(self, after, &t->dim, &t->long_inv_freq))) return -1;
        if (after && long_after < 1) return invalid("rope[%zd] switches after %zd tokens", i, long_after);
        t->long_after = (size_t)long_after;
    }
    self->spec.n_rope = (size_t)n;
    self->spec.rope = self->ropes;
    return 0;
}

static int get_norm(PyObject *dict, const char *key, size_t n, norm *out, PyObject *keep) {
    PyObject *value = item(dict, key), *gain, *bias;
    *out = (norm){0};
    if (!value) return 0;
    if (!PyTuple_Check(value) || !PyArg_ParseTuple(value, "OO", &gain, &bias)) {
        PyErr_Clear();
        return invalid("the norm %s must be a tuple (gain, bias)", key);
    }
    out->present = 1;
    return get_vector(gain == Py_None ? NULL : gain, key, n, &out->gain, keep)
        || get_vector(bias == Py_None ? NULL : bias, key, n, &out->bias, keep) ? -1 : 0;
}

static int parse_layer(const spec *m, size_t l, PyObject *dict, layer_spec *y, PyObject *keep) {
    int dense = !item(dict, "router") && (item(dict, "up") || item(dict, "down"));
    PyObject *window, *rope, *chunk = item(dict, "chunk");
    if (known_keys(dict, "a layer", layer_keys) || get_mixer(dict, m, y) || get_layer_sizes(dict, m, l, y)) return -1;
    int attends = y->mixer == MIX_ATTENTION, mixes = y->mixer != MIX_NONE, delta = y->mixer == MIX_DELTA || y->mixer == MIX_MAMBA;
    const size_t C = m->d_model, F = y->d_ff, NV = m->state_v_heads, KD = m->state_k_heads * m->state_k_dim, VD = NV * m->state_v_dim;
    const int latent = m->kv_rank > 0;
    const int own = y->keys_of == l;
    const size_t W = attends ? m->n_heads * y->head_dim : delta ? KD : C, WO = delta ? VD : latent ? latent_values(m) : W;
    const size_t WK = latent ? latent_key(m) : attends ? y->n_kv_heads * y->head_dim : W, WV = delta ? VD : WK;
    const struct { const char *key; weight *to; size_t n_out, n_in; int required; } weights[] = {
        {"q", &y->q, W, latent && m->q_rank ? m->q_rank : C, mixes}, {"k", &y->k, WK, C, mixes && own}, {"v", &y->v, WV, C, mixes && !attends},
        {"o", &y->o, C, WO, mixes}, {"z", &y->z, WO, C, delta}, {"a", &y->a, NV, C, delta}, {"b", &y->b, NV, C, y->mixer == MIX_DELTA},
        {"gate", &y->gate, F, C, m->gated && dense}, {"up", &y->up, F, C, dense}, {"down", &y->down, C, F, dense}};
    const struct { const char *key; const real **to; size_t n; } vectors[] = {
        {"q_bias", &y->q_bias, W}, {"k_bias", &y->k_bias, WK}, {"v_bias", &y->v_bias, WV}, {"o_bias", &y->o_bias, C}, {"z_bias", &y->z_bias, WO}, {"a_bias", &y->a_bias, NV},
        {"gate_bias", &y->gate_bias, F}, {"up_bias", &y->up_bias, F}, {"down_bias", &y->down_bias, C}, {"sinks", &y->sinks, m->n_heads}};
    const struct { const char *key; norm *to; size_t n; } norms[] = {
        {"norm1", &y->norm1, C}, {"post1", &y->post1, C}, {"norm2", &y->norm2, C}, {"post2", &y->post2, C},
        {"q_norm", &y->q_norm, W}, {"k_norm", &y->k_norm, WK}, {"v_norm", &y->v_norm, WK}, {"o_norm", &y->o_norm, WO},
        {"q_a_norm", &y->q_a_norm, m->q_rank}, {"kv_norm", &y->kv_norm, m->kv_rank},
        {"in_norm", &y->in_norm, m->d_input}, {"post_in", &y->post_in, C}};
    for (size_t i = 0; i < COUNT(weights); i++)
        if (get_weight(item(dict, weights[i].key), weights[i].key, weights[i].n_out, weights[i].n_in, weights[i].required,
                       weights[i].to, keep))
            return -1;
    for (size_t i = 0; i < COUNT(vectors); i++)
        if (get_vector(item(dict, vectors[i].key), vectors[i].key, vectors[i].n, vectors[i].to, keep)) return -1;
    for (size_t i = 0; i < COUNT(norms); i++)
        if (get_norm(dict, norms[i].key, norms[i].n, norms[i].to, keep)) return -1;
    if (y->gate.data && !m->gated) return invalid("a gate is given though 'gated' is False");
    if (!own && (y->k.data || y->v.data || y->k_bias || y->v_bias || y->k_norm.present || y->v_norm.present))
        return invalid("a layer that sees the keys of layer %zu has keys or values of its own", y->keys_of);
    if (y->v_bias && !y->v.data) return invalid("'v_bias' is given without 'v'");
    if (y->v_norm.present && (latent || !attends)) return invalid("v_norm is a norm of the values of attention");
    if ((own && y->q_norm.present != y->k_norm.present) || (y->q_norm.present && !(attends && m->qk_norm != QK_NORM_NONE)))
        return invalid("q_norm and k_norm may both be given to attention if 'qk_norm' is not \"none\", and neither if it is");
    if (get_recurrence(dict, m, y, keep) || get_latent(dict, m, y, keep) || get_layer_input(dict, m, y, keep)) return -1;
    if (!(window = item(dict, "window")) || !(rope = item(dict, "rope"))) return invalid("a layer lacks 'window' or 'rope'");
    long long keys = PyLong_AsLongLong(window), table = PyLong_AsLongLong(rope);
    long long chunks = chunk ? PyLong_AsLongLong(chunk) : 0;
    if (PyErr_Occurred() || get_double(dict, "attn_scale", &y->attn_scale)) return -1;
    if (chunks < 0 || chunks > INT_MAX) return invalid("a layer has chunks of %lld keys", chunks);
    y->tempered = 1;
    if (item(dict, "tempered") && get_flag(dict, "tempered", &y->tempered)) return -1;
    if (keys < 0 || keys > INT_MAX || table < -1 || table >= (long long)m->n_rope || (table >= 0 && !m->rope_dim))
        return invalid("a layer has window %lld and rope %lld; there are %zu rope tables", keys, table, m->n_rope);
    if (table >= 0 && m->rope[table].dim > y->head_dim)
        return invalid("rope_dim = %zu must be at most head_dim = %zu", m->rope[table].dim, y->head_dim);
    PyObject *constants = item(dict, "act_constants");
    double *c = y->act.c;
    if (constants && !PyArg_ParseTuple(constants, "d|ddd", &c[0], &c[1], &c[2], &c[3])) return -1;
    y->act.kind = m->act;
    if (m->act == ACT_SILU_CLAMPED && (!m->gated || !(c[1] > 0))) return invalid("act 'silu_clamped' needs 'gated' and a positive limit");
    y->window = (int)keys;
    y->chunk = (int)chunks;
    y->rope = (int)table;
    return 0;
}

static int parse_top(spec *m, PyObject *top, PyObject *keep) {
    if (known_keys(top, "top", top_keys)) return -1;
    return get_weight(item(top, "embed"), "embed", m->n_vocab, m->d_model, 1, &m->embed, keep)
        || get_weight(item(top, "lm_head"), "lm_head", m->n_vocab, m->d_model, 1, &m->lm_head, keep)
        || get_weight(item(top, "pos_embed"), "pos_embed", m->n_ctx, m->d_model, 0, &m->pos_embed, keep)
        || get_norm(top, "final_norm", m->d_model, &m->final_norm, keep)
        || get_norm(top, "embed_norm", m->d_model, &m->embed_norm, keep)
        || get_vector(item(top, "key_bias"), "key_bias", m->n_heads * m->n_ctx, &m->key_bias, keep)
        || get_vector(item(top, "lm_head_bias"), "lm_head_bias", m->n_vocab, &m->lm_head_bias, keep) ? -1 : 0;
}

static int parse_model(model_object *self, PyObject *scalars, PyObject *layers, PyObject *top) {
    spec *m = &self->spec;
    if (parse_scalars(m, scalars) || parse_ropes(self, item(scalars, "rope")) || parse_top(m, top, self->keep)) return -1;
    if ((size_t)PyList_Size(layers) != m->n_layers)
        return invalid("%zd layers are given; the spec has %zu", PyList_Size(layers), m->n_layers);
    self->layers = PyMem_Calloc(m->n_layers, sizeof *self->layers);
    self->experts = PyMem_Calloc(m->n_layers * m->n_experts + 1, sizeof *self->experts);
    if (!self->layers || !self->experts) return PyErr_NoMemory(), -1;
    m->layer = self->layers;
    for (size_t l = 0; l < m->n_layers; l++)
        if (parse_layer(m, l, PyList_GetItem(layers, (Py_ssize_t)l), &self->layers[l], self->keep)
            || parse_experts(m, PyList_GetItem(layers, (Py_ssize_t)l), &self->layers[l], self->experts + l * m->n_experts, self->keep))
            return -1;
    size_t widest = m->head_dim;
    for (size_t l = 0; l < m->n_layers; l++) {
        int attends = self->layers[l].mixer == MIX_ATTENTION;
        self->layers[l].nth = m->n_recurrent;
        m->n_attention += (size_t)attends;
        m->n_recurrent += self->layers[l].mixer != MIX_NONE && !attends;
        if (self->layers[l].head_dim > widest) widest = self->layers[l].head_dim;
    }
    if (m->rope_dim > widest) return invalid("rope_dim = %zu must be at most head_dim = %zu", m->rope_dim, widest);
    return place_carried(m, self->layers, &self->carried);
}

static PyObject *model_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"spec", "layers", "top", "threads", NULL};
    PyObject *scalars, *layers, *top;
    int threads;
    ps_status st = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!O!i", names, &PyDict_Type, &scalars, &PyList_Type, &layers,
                                     &PyDict_Type, &top, &threads))
        return NULL;
    model_object *self = (model_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    PyObject_GC_UnTrack(self); /* until it is complete */
    PyObject *module = PyType_GetModule(type);
    self->module = Py_XNewRef(module);
    self->keep = PyList_New(0);
    if (!module || !self->keep || !module_blas(module) || parse_model(self, scalars, layers, top)) goto failed;
    if (thread_pool_create(&self->pool, threads, &st)) {
        raise_status(&st);
        goto failed;
    }
    PyObject_GC_Track(self);
    return (PyObject *)self;
failed:
    Py_DECREF(self);
    return NULL;
}

static int model_traverse(model_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->keep);
    return 0;
}

static int model_clear(model_object *self) {
    Py_CLEAR(self->module);
    Py_CLEAR(self->keep);
    return 0;
}

static void model_dealloc(model_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    thread_pool_free(self->pool);
    PyMem_Free(self->layers);
    PyMem_Free(self->ropes);
    PyMem_Free(self->experts);
    PyMem_Free(self->carried);
    model_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

model_object *as_model(PyObject *module, PyObject *obj) {
    if (Py_TYPE(obj) == module_state_of(module)->model_type) return (model_object *)obj;
    invalid("a Model of this core is needed, got %s", Py_TYPE(obj)->tp_name);
    return NULL;
}

/* [packed[row0[s]:row0[s+1]] for s in range(n_seq)]: slices that share memory */
static PyObject *split(PyObject *packed, const size_t *row0, size_t n_seq) {
    PyObject *list = PyList_New((Py_ssize_t)n_seq);
    for (size_t s = 0; list && s < n_seq; s++) {
        PyObject *piece = PySequence_GetSlice(packed, (Py_ssize_t)row0[s], (Py_ssize_t)row0[s + 1]);
        if (!piece) Py_CLEAR(list);
        else PyList_SET_ITEM(list, (Py_ssize_t)s, piece);
    }
    return list;
}

/* The arguments and buffers of forward */
typedef struct {
    const steer_list *steer;
    cache *cache;
    int *id;
    batch b;
    capture *captures;
    PyObject **packed; /* (n_sites) arrays (n_rows, ...) that the captures fill */
    size_t *count, *logits_row0; /* (n_seq) rows of each sequence that get logits, (n_seq + 1) the first of them in logits */
    PyObject *logits;  /* NULL: none */
    Py_ssize_t n_sites;
    arena memory;
} forward_call;

static void forward_call_free(forward_call *f) {
    for (Py_ssize_t i = 0; f->packed && i < f->n_sites; i++) Py_XDECREF(f->packed[i]);
    PyMem_Free(f->packed);
    PyMem_Free(f->captures);
    PyMem_Free(f->count);
    PyMem_Free(f->id);
    Py_XDECREF(f->logits);
    batch_free(&f->b);
    arena_free(&f->memory);
}

/* Shape of the activation there: (n_rows, d_model), (n_rows, heads, width) or (n_rows, d_ff). Returns the number of dimensions. */
static int shape_at(const spec *m, const layer_spec *y, const batch *b, site at, npy_intp *dims) {
    int latent = m->kv_rank > 0; /* where every head has keys and values */
    size_t H = m->n_heads, HKV = latent ? H : y->n_kv_heads, HS = y->head_dim, VD = latent ? m->v_dim : HS, C = m->d_model, F = y->d_ff;
    const size_t rest[N_READABLE][2] = {
        [SITE_RESID_PRE] = {C, 0}, [SITE_ATTN_OUT] = {C, 0}, [SITE_RESID_MID] = {C, 0}, [SITE_DOWN_PROJ] = {C, 0},
        [SITE_MLP_OUT] = {C, 0}, [SITE_RESID_POST] = {C, 0}, [READ_Q] = {H, HS}, [READ_K] = {HKV, HS}, [READ_V] = {HKV, VD},
        [READ_ROT_Q] = {H, HS}, [READ_ROT_K] = {HKV, HS}, [READ_PATTERN] = {H, b->max_keys}, [READ_Z] = {H, VD},
        [READ_PRE] = {F, 0}, [READ_PRE_LINEAR] = {F, 0}, [READ_POST] = {F, 0}};
    dims[0] = (npy_intp)b->n_rows;
    for (size_t i = 0; i < 2; i++) dims[i + 1] = (npy_intp)rest[at][i];
    return rest[at][1] ? 3 : 2;
}

/* Raises an error if this layer does not compute it */
static int check_computed(const spec *m, size_t layer, site at) {
    int mixes = m->layer[layer].mixer != MIX_NONE;
    if (m->parallel && at == SITE_RESID_MID) return invalid("resid_mid does not exist in a parallel block");
    if (at >= READ_Q && at <= READ_Z && m->layer[layer].mixer != MIX_ATTENTION)
        return invalid("layer %zu has no attention%s%s: attn.hook_q, attn.hook_k, attn.hook_v, attn.hook_rot_q, attn.hook_rot_k, "
                       "attn.hook_pattern and attn.hook_z do not exist there%s", layer, mixes ? " but a " : "",
                       mixes ? mixer_name(m->layer[layer].mixer) : "", mixes ? "; attn_out is what it adds" : "");
    if ((at == READ_K || at == READ_V || at == READ_ROT_K) && m->layer[layer].keys_of != layer)
        return invalid("layer %zu has no keys and values of its own, but sees those of layer %zu: read them there", layer, m->layer[layer].keys_of);
    if (at >= READ_PRE && !m->layer[layer].up.data && !m->layer[layer].router.data)
        return invalid("layer %zu has no MLP: mlp.hook_pre, mlp.hook_pre_linear and mlp.hook_post do not exist there", layer);
    if (at >= READ_PRE && m->layer[layer].router.data)
        return invalid("layer %zu has a mixture of experts: mlp.hook_pre, mlp.hook_pre_linear and mlp.hook_post are those of one "
                       "MLP, and the hidden activations of experts are not available", layer);
    if (at == READ_PRE_LINEAR && !m->gated)
        return invalid("mlp.hook_pre_linear does not exist in layer %zu: the MLP has no gate; use mlp.hook_pre", layer);
    return 0;
}

static int make_captures(forward_call *f, const spec *m, PyObject *sites) {
    f->n_sites = PyList_Size(sites);
    f->captures = PyMem_Calloc((size_t)f->n_sites + 1, sizeof *f->captures);
    f->packed = PyMem_Calloc((size_t)f->n_sites + 1, sizeof *f->packed);
    if (!f->captures || !f->packed) return PyErr_NoMemory(), -1;
    for (Py_ssize_t i = 0; i < f->n_sites; i++) {
        capture *c = &f->captures[i];
        npy_intp dims[3];
        if (get_site(PyList_GetItem(sites, i), "a site", m->n_layers, N_READABLE, &c->layer, &c->site)
            || check_computed(m, c->layer, c->site))
            return -1;
        int n_dims = shape_at(m, &m->layer[c->layer], &f->b, c->site, dims);
        f->packed[i] = PyArray_SimpleNew(n_dims, dims, NPY_REAL);
        if (!f->packed[i]) return -1;
        c->out = PyArray_DATA((PyArrayObject *)f->packed[i]);
    }
    return 0;
}

/* The captured activations as acts[prompt][site] */
static PyObject *acts_by_prompt(const forward_call *f) {
    PyObject *acts = PyList_New((Py_ssize_t)f->b.n_seq);
    for (size_t s = 0; acts && s < f->b.n_seq; s++) {
        PyObject *one = PyList_New(f->n_sites);
        if (!one) Py_CLEAR(acts);
        else PyList_SET_ITEM(acts, (Py_ssize_t)s, one);
    }
    for (Py_ssize_t i = 0; acts && i < f->n_sites; i++) {
        PyObject *pieces = split(f->packed[i], f->b.row0, f->b.n_seq);
        for (size_t s = 0; pieces && s < f->b.n_seq; s++)
            PyList_SET_ITEM(PyList_GET_ITEM(acts, (Py_ssize_t)s), i, Py_NewRef(PyList_GET_ITEM(pieces, (Py_ssize_t)s)));
        if (!pieces) Py_CLEAR(acts);
        Py_XDECREF(pieces);
    }
    return acts;
}

/* rows: "all", "last", "none", or a number for each sequence */
static int make_logits(forward_call *f, const spec *m, PyObject *rows) {
    size_t n = f->b.n_seq;
    const char *word = PyUnicode_Check(rows) ? PyUnicode_AsUTF8(rows) : "";
    const int32_t *counts = NULL;
    if (!word) return -1;
    int all = !strcmp(word, "all"), last = !strcmp(word, "last"), none = !strcmp(word, "none");
    if (PyUnicode_Check(rows) && !all && !last && !none) return invalid("rows must be 'all', 'last', 'none' or a number for each prompt");
    if (!PyUnicode_Check(rows) && !(counts = get_numbers(rows, "rows", NPY_INT32, n))) return -1;
    f->count = PyMem_New(size_t, 2 * n + 1);
    if (!f->count) return PyErr_NoMemory(), -1;
    f->logits_row0 = f->count + n;
    f->logits_row0[0] = 0;
    for (size_t s = 0; s < n; s++) {
        size_t length = f->b.row0[s + 1] - f->b.row0[s];
        if (counts && (counts[s] < 0 || (size_t)counts[s] > length))
            return invalid("rows[%zu] is %d; the prompt has %zu tokens", s, (int)counts[s], length);
        f->count[s] = counts ? (size_t)counts[s] : all ? length : (size_t)last;
        f->logits_row0[s + 1] = f->logits_row0[s] + f->count[s];
    }
    npy_intp dims[] = {(npy_intp)f->logits_row0[n], (npy_intp)m->n_vocab};
    return none || (f->logits = PyArray_SimpleNew(2, dims, NPY_REAL)) ? 0 : -1;
}

/* The forward pass and the logits */
static ps_code forward_rows(model_object *self, forward_call *f, ps_status *st) {
    const spec *m = &self->spec;
    real *x;
    size_t *same, n_computed = 0;
    arena_slice table[] = {SLICE(x, f->b.n_rows, m->d_model), SLICE(same, f->b.n_rows)};
    if (arena_make(&f->memory, table, COUNT(table), st)) return st->code;
    hooks v = {f->steer->items, f->steer->n, f->captures, (size_t)f->n_sites};
    forward_plan plan = {.hooks = &v, .cache = f->cache, .n_layers = m->n_layers, .first_taped = m->n_layers, .same = same, .n_computed = &n_computed};
    core_call call;
    core_begin(&call, self->module, self->pool);
    if (!forward_stream(&call.rt, m, &f->b, &plan, x, st) && f->logits_row0[f->b.n_seq])
        lm_head_last(&call.rt, m, &f->b, f->count, same, x, PyArray_DATA((PyArrayObject *)f->logits), st);
    core_end(&call);
    self->n_computed += n_computed;
    return st->code;
}

static PyObject *forward_result(const forward_call *f) {
    PyObject *acts = acts_by_prompt(f);
    PyObject *logits = f->logits ? split(f->logits, f->logits_row0, f->b.n_seq) : Py_NewRef(Py_None);
    if (acts && logits) return Py_BuildValue("NN", logits, acts);
    Py_XDECREF(acts);
    Py_XDECREF(logits);
    return NULL;
}

PyObject *forward_prompts(model_object *self, const int_lists *tokens, const steer_list *steer, PyObject *sites, PyObject *rows,
                          cache *c, int first) {
    forward_call f = {.steer = steer, .cache = c};
    ps_status st = {0};
    PyObject *result = NULL;
    f.id = PyMem_New(int, tokens->n + 1);
    if (!f.id) return PyErr_NoMemory();
    for (size_t i = 0; i < tokens->n; i++) f.id[i] = first + (int)i;
    if (!batch_make(&f.b, &self->spec, tokens->n, tokens->data, tokens->length, NULL, f.id, &st)
        && !make_captures(&f, &self->spec, sites) && !make_logits(&f, &self->spec, rows)) {
        /* a decoder may be resumed behind the first token with logits, see cache.h */
        for (size_t i = 0; c && i < tokens->n; i++) c->keep[f.id[i]] = f.count[i] ? tokens->length[i] - f.count[i] + 1 : 0;
        if (!forward_rows(self, &f, &st)) result = forward_result(&f);
    }
    forward_call_free(&f);
    if (!result && !PyErr_Occurred()) raise_status(&st);
    return result;
}

static PyObject *model_forward(model_object *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"tokens", "steer", "sites", "rows", NULL};
    PyObject *prompts, *interventions, *sites, *rows, *result = NULL;
    steer_list steer = {0};
    int_lists tokens = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO!O", names, &prompts, &interventions, &PyList_Type, &sites, &rows)) return NULL;
    if (!get_int_lists(prompts, "tokens", &tokens) && !get_steer(interventions, self->spec.n_layers, self->spec.d_model, &steer))
        result = forward_prompts(self, &tokens, &steer, sites, rows, NULL, 0);
    int_lists_free(&tokens);
    steer_list_free(&steer);
    return result;
}

static PyObject *model_forward_bytes(model_object *self, PyObject *args) {
    PyObject *lengths;
    Py_ssize_t n_logits;
    batch shape = {0};
    size_t bytes = 0;
    ps_status st = {0};
    if (!PyArg_ParseTuple(args, "On", &lengths, &n_logits) || get_batch_shape(&self->spec, lengths, &shape)) return NULL;
    if (n_logits < 0) return invalid("n_logits must not be negative, got %zd", n_logits), NULL;
    if (forward_footprint(&self->spec, &shape, (size_t)n_logits, thread_pool_threads(self->pool), &bytes, &st)) return raise_status(&st);
    return PyLong_FromSize_t(bytes);
}

static PyObject *model_lm_head(model_object *self, PyObject *obj) {
    const spec *m = &self->spec;
    ps_status st = {0};
    PyArrayObject *given = get_rows(obj, "x", m->d_model), *x = given ? (PyArrayObject *)PyArray_NewCopy(given, NPY_CORDER) : NULL;
    Py_XDECREF(given);
    if (!x) return NULL;
    npy_intp dims[] = {PyArray_DIM(x, 0), (npy_intp)m->n_vocab};
    PyObject *logits = PyArray_SimpleNew(2, dims, NPY_REAL);
    if (logits) {
        core_call call;
        core_begin(&call, self->module, self->pool);
        lm_head_forward(&call.rt, m, (size_t)dims[0], PyArray_DATA(x), &(lm_head_tape){0}, PyArray_DATA((PyArrayObject *)logits), &st);
        core_end(&call);
    }
    Py_DECREF(x);
    if (!st.code) return logits;
    Py_XDECREF(logits);
    return raise_status(&st);
}

static PyObject *model_threads(model_object *self, void *closure) {
    (void)closure;
    return PyLong_FromLong(thread_pool_threads(self->pool));
}

static PyObject *model_rows(model_object *self, void *closure) {
    (void)closure;
    return PyLong_FromSize_t(self->n_computed);
}

static PyMethodDef model_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))model_forward, METH_VARARGS | METH_KEYWORDS,
     DOC("forward", "($self, /, tokens, steer, sites, rows)",
         "Run prompts through the model and return (logits, acts): a list of logits for each prompt, of all positions, of the\n"
         "last, or None (rows = \"all\", \"last\", \"none\"), or of the last rows[prompt] positions (int32 array), and\n"
         "acts[prompt][site] of shape (n_tokens, d_model), or (n_tokens, heads, width) or (n_tokens, d_ff) inside attention and\n"
         "MLP. A pattern is as wide as the longest prompt.")},
    {"lm_head", (PyCFunction)model_lm_head, METH_O,
     DOC("lm_head", "($self, x, /)", "Return the logits (n, n_vocab) of rows x (n, d_model) of the residual stream: final norm and LM head.")},
    {"forward_bytes", (PyCFunction)model_forward_bytes, METH_VARARGS,
     DOC("forward_bytes", "($self, lengths, n_logits, /)",
         "Return the bytes that a forward pass of prompts of these lengths allocates, n_logits rows of logits included.")},
    {0},
};
static PyGetSetDef model_getset[] = {
    {"threads", (getter)model_threads, NULL, "Number of threads of the pool.", NULL},
    {"rows_computed", (getter)model_rows, NULL, "Rows that forward passes computed so far, summed over layers.", NULL}, {0}};
static PyType_Slot model_slots[] = {
    {Py_tp_new, model_new}, {Py_tp_dealloc, model_dealloc}, {Py_tp_traverse, model_traverse}, {Py_tp_clear, model_clear},
    {Py_tp_methods, model_methods}, {Py_tp_getset, model_getset},
    {Py_tp_doc, DOC("Model", "(spec, layers, top, threads)",
                    "An immutable model: the dict `spec` of sizes and kinds, a dict of weights for each layer, the dict `top` of\n"
                    "embedding, final norm and LM head, and the number of threads. Arrays are borrowed, not copied.")},
    {0},
};
static PyType_Spec model_spec = {
    .name = MODULE_NAME ".Model", .basicsize = sizeof(model_object), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = model_slots};

int add_model_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &model_spec, NULL);
    module_state_of(module)->model_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "Model", type) : -1;
}
