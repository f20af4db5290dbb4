/* The Python type Jacobian: jacobian.h with its model, and scratch kept from one call to the next. */
#include "convert.h"
#include "model_type.h"
#include "../jacobian.h"

typedef struct {
    PyObject_HEAD
    model_object *model;
    jacobian j;
    sweep_scratch spare; /* the last call's scratch, handed to the next one that fits */
    PyObject *keep;      /* the prompts */
} jacobian_object;

static int parse_target(PyObject *target, size_t n_layers, jacobian_plan *plan) {
    if (PyUnicode_Check(target)) {
        int logits = !PyUnicode_CompareWithASCIIString(target, "logits");
        if (!logits && PyUnicode_CompareWithASCIIString(target, "next_token"))
            return invalid("target must be (layer, site), \"logits\" or \"next_token\"");
        plan->kind = logits ? TARGET_LOGITS : TARGET_NEXT_TOKEN;
        return 0;
    }
    plan->kind = TARGET_SITE;
    return get_place(target, "target", n_layers, &plan->target_layer, &plan->target_site);
}

/* Strictly before in the order of computation; in a parallel block attention does not lead to the MLP. */
static int check_order(const spec *m, const jacobian_plan *p) {
    if (m->parallel && (p->source_site == SITE_RESID_MID || (p->kind == TARGET_SITE && p->target_site == SITE_RESID_MID)))
        return invalid("resid_mid does not exist in a parallel block");
    if (p->kind != TARGET_SITE || p->source_layer < p->target_layer) return 0;
    if (p->source_layer > p->target_layer || p->source_site >= p->target_site)
        return invalid("the source must come before the target");
    if (m->parallel && p->source_site == SITE_ATTN_OUT && p->target_site != SITE_RESID_POST)
        return invalid("in a parallel block the attention's output does not reach the MLP of the same layer");
    return 0;
}

static void jacobian_dealloc(jacobian_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    sweep_scratch_free(&self->spare);
    jacobian_free(&self->j);
    Py_XDECREF(self->model);
    Py_XDECREF(self->keep);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *jacobian_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "prompts", "steer", "source", "target", "source_positions", "target_positions", "mean", NULL};
    PyObject *model, *prompts, *steer, *source, *target, *from, *to;
    int mean, bad = 1;
    int_lists tokens = {0}, source_positions = {0}, target_positions = {0};
    steer_list steering = {0};
    jacobian_plan plan = {0};
    ps_status st = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOp", names, &model, &prompts, &steer, &source, &target, &from, &to, &mean))
        return NULL;
    jacobian_object *self = (jacobian_object *)type->tp_alloc(type, 0);
    PyObject *module = PyType_GetModule(type);
    if (!self || !module) goto done;
    self->model = (model_object *)Py_XNewRef((PyObject *)as_model(module, model));
    if (!self->model) goto done;
    const spec *m = &self->model->spec;
    if (get_int_lists(prompts, "prompts", &tokens) || get_int_lists(from, "source_positions", &source_positions)
        || get_int_lists(to, "target_positions", &target_positions) || get_steer(steer, m->n_layers, m->d_model, &steering)
        || get_place(source, "source", m->n_layers, &plan.source_layer, &plan.source_site)
        || parse_target(target, m->n_layers, &plan) || check_order(m, &plan))
        goto done;
    if (source_positions.n != tokens.n || target_positions.n != tokens.n) {
        invalid("%zu prompts, but positions for %zu (source) and %zu (target)", tokens.n, source_positions.n, target_positions.n);
        goto done;
    }
    plan.mean = mean;
    plan.source_positions = source_positions.data;
    plan.n_source = source_positions.length;
    plan.target_positions = target_positions.data;
    plan.n_target = target_positions.length;
    visits v = {.steer = steering.items, .n_steer = steering.n};
    core_call call;
    core_begin(&call, module_state_of(module)->blas, self->model->pool);
    bad = jacobian_make(&self->j, &call.rt, m, tokens.n, tokens.data, tokens.length, &v, &plan, &st) != PS_OK;
    core_end(&call);
    if (bad) raise_status(&st);
done:
    int_lists_free(&tokens);
    int_lists_free(&source_positions);
    int_lists_free(&target_positions);
    steer_list_free(&steering);
    if (bad) Py_CLEAR(self);
    return (PyObject *)self;
}

/* Takes the spare scratch if it carries n vectors, else makes one. Called with the GIL. */
static ps_code take_scratch(jacobian_object *self, size_t n, sweep_scratch *s, ps_status *st) {
    if (self->spare.memory.base && self->spare.n_t >= n) {
        *s = self->spare;
        self->spare = (sweep_scratch){0};
        return PS_OK;
    }
    return sweep_scratch_make(s, &self->model->spec, &self->j.b, n, pool_threads(self->model->pool), st);
}

static void return_scratch(jacobian_object *self, sweep_scratch *s) {
    if (s->n_t > self->spare.n_t) { /* the larger of the two is worth keeping */
        sweep_scratch other = self->spare;
        self->spare = *s;
        *s = other;
    }
    sweep_scratch_free(s);
}

static PyObject *run(jacobian_object *self, PyObject *arg, int transposed) {
    const jacobian *j = &self->j;
    size_t from = transposed ? j->rows : j->cols, to = transposed ? j->cols : j->rows;
    ps_status st = {0};
    sweep_scratch s = {0};
    PyArrayObject *in = get_rows(arg, transposed ? "U" : "V", from);
    if (!in) return NULL;
    size_t n = (size_t)PyArray_DIM(in, 0), block = jacobian_block(j, n ? n : 1);
    npy_intp dims[] = {(npy_intp)n, (npy_intp)to};
    PyArrayObject *out = (PyArrayObject *)PyArray_SimpleNew(2, dims, NPY_REAL);
    if (out && !take_scratch(self, block, &s, &st)) {
        const real *x = PyArray_DATA(in);
        real *y = PyArray_DATA(out);
        core_call call;
        core_begin(&call, module_state_of(self->model->module)->blas, self->model->pool);
        for (size_t i = 0; i < n && !st.code; i += block) {
            size_t count = n - i < block ? n - i : block;
            if (transposed) jacobian_apply_t(j, &call.rt, &s, count, x + i * from, y + i * to, &st);
            else jacobian_apply(j, &call.rt, &s, count, x + i * from, y + i * to, &st);
        }
        core_end(&call);
        return_scratch(self, &s);
    }
    Py_DECREF(in);
    if (out && st.code) {
        raise_status(&st);
        Py_CLEAR(out);
    }
    return (PyObject *)out;
}

static PyObject *jacobian_apply_py(jacobian_object *self, PyObject *arg) { return run(self, arg, 0); }
static PyObject *jacobian_apply_t_py(jacobian_object *self, PyObject *arg) { return run(self, arg, 1); }

static PyObject *get_shape(jacobian_object *self, void *closure) {
    (void)closure;
    return Py_BuildValue("nn", (Py_ssize_t)self->j.rows, (Py_ssize_t)self->j.cols);
}

/* a copy, so that nobody can write into the tape */
static PyObject *get_base(jacobian_object *self, void *closure) {
    (void)closure;
    npy_intp dims[] = {(npy_intp)(self->j.target.n * self->j.width)};
    PyObject *out = PyArray_SimpleNew(1, dims, NPY_REAL);
    if (out) memcpy(PyArray_DATA((PyArrayObject *)out), self->j.base, (size_t)dims[0] * sizeof(real));
    return out;
}

static PyObject *get_source_norm(jacobian_object *self, void *closure) {
    (void)closure;
    return PyFloat_FromDouble((double)self->j.source_norm);
}

static PyObject *get_rows_per_vector(jacobian_object *self, void *closure) {
    (void)closure;
    return PyLong_FromSize_t(self->j.b.n_rows);
}

static PyObject *get_nbytes(jacobian_object *self, void *closure) {
    (void)closure;
    return PyLong_FromSize_t(jacobian_bytes(&self->j));
}

static PyMethodDef jacobian_methods[] = {
    {"apply", (PyCFunction)jacobian_apply_py, METH_O, "apply(V (n, d)) -> (n, m): J on every row of V"},
    {"apply_t", (PyCFunction)jacobian_apply_t_py, METH_O, "apply_t(U (n, m)) -> (n, d): J' on every row of U"},
    {0},
};
static PyGetSetDef jacobian_getset[] = {
    {"shape", (getter)get_shape, NULL, "(m, d)", NULL},
    {"base", (getter)get_base, NULL, "target rows at the linearisation point, flat; probabilities for next_token", NULL},
    {"source_norm", (getter)get_source_norm, NULL, "mean 2-norm of the source activation over its positions", NULL},
    {"rows_per_vector", (getter)get_rows_per_vector, NULL, "packed positions a tangent occupies", NULL},
    {"nbytes", (getter)get_nbytes, NULL, "bytes of the tape", NULL},
    {0},
};
static PyType_Slot jacobian_slots[] = {
    {Py_tp_new, jacobian_new}, {Py_tp_dealloc, jacobian_dealloc}, {Py_tp_methods, jacobian_methods},
    {Py_tp_getset, jacobian_getset},
    {Py_tp_doc, "Jacobian(model, prompts, steer, source, target, source_positions, target_positions, mean)"}, {0},
};
static PyType_Spec jacobian_type_spec = {
    .name = "powersteer._core.Jacobian", .basicsize = sizeof(jacobian_object), .flags = Py_TPFLAGS_DEFAULT,
    .slots = jacobian_slots};

int add_jacobian_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &jacobian_type_spec, NULL);
    module_state_of(module)->jacobian_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "Jacobian", type) : -1;
}
