/* The Python type Decoder: a decoder of model/decoder.h with its model, prompts and interventions. */
#include "python/convert.h"
#include "python/model_type.h"
#include "model/decoder.h"

typedef struct {
    PyObject_HEAD
    model_object *model;
    decoder d;
    steer_list steer;
    int_lists prompts;
    int started, busy;
} decoder_object;

static int decoder_traverse(decoder_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->model);
    Py_VISIT(self->steer.keep);
    Py_VISIT(self->prompts.keep);
    return 0;
}

static int decoder_clear(decoder_object *self) {
    Py_CLEAR(self->model);
    Py_CLEAR(self->steer.keep);
    Py_CLEAR(self->prompts.keep);
    return 0;
}

static void decoder_dealloc(decoder_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    decoder_free(&self->d);
    steer_list_free(&self->steer);
    int_lists_free(&self->prompts);
    decoder_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int make(decoder_object *self, PyObject *capacity, const sampling *how, PyObject *seeds) {
    size_t n = self->prompts.n;
    ps_status st = {0};
    const int32_t *tokens = get_numbers(capacity, "capacity", NPY_INT32, n);
    const uint64_t *seed = tokens ? get_numbers(seeds, "seeds", NPY_UINT64, n) : NULL;
    if (!n) return invalid("no prompt given");
    if (!seed) return -1;
    if (!(how->temperature >= 0) || !(how->top_p > 0 && how->top_p <= 1))
        return invalid("temperature must be >= 0 and top_p in (0, 1]");
    size_t *sizes = PyMem_New(size_t, n);
    if (!sizes) return PyErr_NoMemory(), -1;
    for (size_t s = 0; s < n; s++) sizes[s] = tokens[s] > 0 ? (size_t)tokens[s] : 0;
    ps_code code = decoder_make(&self->d, &self->model->spec, n, sizes, how, seed, &st);
    PyMem_Free(sizes);
    return code ? raise_status(&st), -1 : 0;
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "prompts", "capacity", "steer", "temperature", "top_k", "top_p", "seeds", NULL};
    PyObject *model, *prompts, *capacity, *steer, *seeds;
    sampling how;
    Py_ssize_t top_k;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOdndO", names, &model, &prompts, &capacity, &steer, &how.temperature,
                                     &top_k, &how.top_p, &seeds))
        return NULL;
    if (top_k < 0) return invalid("top_k must not be negative"), NULL;
    how.top_k = (size_t)top_k;
    decoder_object *self = (decoder_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    PyObject_GC_UnTrack(self); /* until it is complete */
    PyObject *module = PyType_GetModule(type);
    if (!module || !(self->model = (model_object *)Py_XNewRef((PyObject *)as_model(module, model)))
        || get_int_lists(prompts, "prompts", &self->prompts)
        || get_steer(steer, self->model->spec.n_layers, self->model->spec.d_model, &self->steer)
        || make(self, capacity, &how, seeds))
        Py_CLEAR(self);
    else
        PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int is_idle(const decoder_object *self) {
    if (self->busy) invalid("this decoder is running in another thread");
    return !self->busy;
}

static PyObject *decoder_step_py(decoder_object *self, PyObject *unused) {
    (void)unused;
    ps_status st = {0};
    npy_intp dims[] = {(npy_intp)self->d.n_seq};
    if (!is_idle(self)) return NULL;
    PyObject *out = PyArray_SimpleNew(1, dims, NPY_INT32);
    if (!out) return NULL;
    hooks v = {.steer = self->steer.items, .n_steer = self->steer.n};
    core_call call;
    self->busy = 1;
    core_begin(&call, self->model->module, self->model->pool);
    if (self->started) decoder_step(&self->d, &call.rt, &v, &st);
    else decoder_start(&self->d, &call.rt, self->prompts.data, self->prompts.length, &v, &st);
    core_end(&call);
    self->busy = 0;
    if (st.code) return Py_DECREF(out), raise_status(&st);
    self->started = 1;
    memcpy(PyArray_DATA((PyArrayObject *)out), self->d.next, self->d.n_seq * sizeof(int));
    return out;
}

static PyObject *decoder_feed(decoder_object *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"first", "tokens", "sites", "rows", NULL};
    Py_ssize_t first;
    PyObject *lists, *sites, *rows, *result = NULL;
    int_lists tokens = {0};
    const decoder *d = &self->d;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nOO!O", names, &first, &lists, &PyList_Type, &sites, &rows)
        || get_int_lists(lists, "tokens", &tokens) || !is_idle(self))
        goto done;
    if (self->started || first < 0 || (size_t)first > d->n_seq || tokens.n > d->n_seq - (size_t)first) {
        invalid("sequences %zd to %zd cannot be fed: a decoder of %zu that has%s made a step", first, first + (Py_ssize_t)tokens.n,
                d->n_seq, self->started ? "" : " not");
        goto done;
    }
    for (size_t i = 0; i < tokens.n; i++)
        if (tokens.length[i] > d->cache.capacity[(size_t)first + i]) {
            invalid("sequence %zu is full: it has its %zu tokens", (size_t)first + i, d->cache.capacity[(size_t)first + i]);
            goto done;
        }
    self->busy = 1;
    result = forward_prompts(self->model, &tokens, &self->steer, sites, rows, &self->d.cache, (int)first);
    self->busy = 0;
    for (size_t i = 0; result && i < tokens.n; i++) decoder_note(&self->d, (size_t)first + i, tokens.data[i], tokens.length[i]);
done:
    int_lists_free(&tokens);
    return result;
}

static PyObject *decoder_resume_py(decoder_object *self, PyObject *args) {
    PyObject *lengths, *tokens;
    ps_status st = {0};
    if (!PyArg_ParseTuple(args, "OO", &lengths, &tokens) || !is_idle(self)) return NULL;
    const int32_t *length = get_numbers(lengths, "lengths", NPY_INT32, self->d.n_seq);
    const int32_t *next = length ? get_numbers(tokens, "tokens", NPY_INT32, self->d.n_seq) : NULL;
    if (!next) return NULL;
    for (size_t s = 0; s < self->d.n_seq; s++)
        if (decoder_resume(&self->d, s, length[s] > 0 ? (size_t)length[s] : 0, next[s], &st)) return raise_status(&st);
    self->started = 1;
    Py_RETURN_NONE;
}

static PyObject *decoder_stop(decoder_object *self, PyObject *arg) {
    Py_ssize_t i = PyNumber_AsSsize_t(arg, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred()) return NULL;
    if (i < 0 || (size_t)i >= self->d.n_seq) return invalid("there is no sequence %zd", i), NULL;
    if (!is_idle(self)) return NULL;
    if (!self->started) return invalid("stop() comes after a step"), NULL;
    self->d.next[i] = -1;
    Py_RETURN_NONE;
}

static PyObject *decoder_logits(decoder_object *self, PyObject *unused) {
    (void)unused;
    npy_intp dims[] = {(npy_intp)self->d.n_seq, (npy_intp)self->model->spec.n_vocab};
    if (!is_idle(self)) return NULL;
    if (!self->started) return invalid("logits() comes after a step"), NULL;
    PyObject *out = PyArray_SimpleNew(2, dims, NPY_REAL);
    if (out) memcpy(PyArray_DATA((PyArrayObject *)out), self->d.logits, (size_t)(dims[0] * dims[1]) * sizeof(real));
    return out;
}

static PyObject *decoder_rows(decoder_object *self, void *closure) {
    (void)closure;
    return PyLong_FromSize_t(self->d.n_computed);
}

static PyGetSetDef decoder_getset[] = {
    {"rows_computed", (getter)decoder_rows, NULL, "Rows that were computed so far, summed over layers.", NULL}, {0}};
static PyMethodDef decoder_methods[] = {
    {"step", (PyCFunction)decoder_step_py, METH_NOARGS,
     DOC("step", "($self, /)", "Decode one token for each sequence and return them, int32 (n_seq,); -1 where it is stopped.")},
    {"feed", (PyCFunction)(void (*)(void))decoder_feed, METH_VARARGS | METH_KEYWORDS,
     DOC("feed", "($self, /, first, tokens, sites, rows)",
         "Let the sequences first, first + 1, ... begin with these tokens instead of their prompts, and return (logits, acts) as\n"
         "Model.forward does. Decoding starts once all are fed and resumed.")},
    {"resume", (PyCFunction)decoder_resume_py, METH_VARARGS,
     DOC("resume", "($self, lengths, tokens, /)",
         "Keep the first lengths[s] tokens of each sequence, after which tokens[s] follows; -1: it is stopped.")},
    {"stop", (PyCFunction)decoder_stop, METH_O, DOC("stop", "($self, i, /)", "Leave sequence i out of every later step.")},
    {"logits", (PyCFunction)decoder_logits, METH_NOARGS,
     DOC("logits", "($self, /)", "Return a copy of the last step's logits (n_seq, n_vocab); a stopped sequence's stay as they were.")},
    {0},
};
static PyType_Slot decoder_slots[] = {
    {Py_tp_new, decoder_new}, {Py_tp_dealloc, decoder_dealloc}, {Py_tp_traverse, decoder_traverse},
    {Py_tp_clear, decoder_clear}, {Py_tp_methods, decoder_methods}, {Py_tp_getset, decoder_getset},
    {Py_tp_doc, DOC("Decoder", "(model, prompts, capacity, steer, temperature, top_k, top_p, seeds)",
                    "Continues prompts together, a token each a step. capacity: the tokens that each sequence may reach in all.")},
    {0},
};
static PyType_Spec decoder_spec = {
    .name = MODULE_NAME ".Decoder", .basicsize = sizeof(decoder_object), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = decoder_slots};

int add_decoder_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &decoder_spec, NULL);
    module_state_of(module)->decoder_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "Decoder", type) : -1;
}
