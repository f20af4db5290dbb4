/* The Python type Jacobian: a jacobian of model/jacobian.h with its model, and scratch kept from call to call. */
#include "python/convert.h"
#include "python/model_type.h"
#include "model/footprint.h"
#include "model/sweep.h"

typedef struct {
    PyObject_HEAD
    model_object *model;
    jacobian j;
    sweep_scratch spare; /* scratch of an earlier call, for the next one that it is large enough for */
} jacobian_object;

static int parse_target(PyObject *obj, size_t n_layers, target_plan *plan) {
    if (PyUnicode_Check(obj)) {
        int logits = !PyUnicode_CompareWithASCIIString(obj, "logits");
        if (!logits && PyUnicode_CompareWithASCIIString(obj, "next_token"))
            return invalid("target must be (layer, site), \"logits\" or \"next_token\"");
        plan->kind = logits ? TARGET_LOGITS : TARGET_NEXT_TOKEN;
        return 0;
    }
    plan->kind = TARGET_SITE;
    return get_site(obj, "target", n_layers, &plan->layer, &plan->site);
}

/* Refuses a target that does not depend on the source: it must come later in the order of computation, and in a parallel block
 * the MLP does not read the attention's output. */
static int check_order(const spec *m, const jacobian_plan *p, const target_plan *t) {
    if (m->parallel && (p->source_site == SITE_RESID_MID || (t->kind == TARGET_SITE && t->site == SITE_RESID_MID)))
        return invalid("resid_mid does not exist in a parallel block");
    if (t->kind != TARGET_SITE || p->source_layer < t->layer) return 0;
    if (p->source_layer > t->layer || p->source_site >= t->site) return invalid("the source must come before the target");
    if (m->parallel && p->source_site == SITE_ATTN_OUT && t->site != SITE_RESID_POST)
        return invalid("in a parallel block the attention's output does not reach the MLP of the same layer");
    return 0;
}

/* The constructor's arguments, converted */
typedef struct {
    int_lists tokens, source_positions, *target_positions; /* (n_targets) */
    target_plan *targets;
    steer_list steer;
    jacobian_plan plan;
} request;

static void request_free(request *r) {
    int_lists_free(&r->tokens);
    int_lists_free(&r->source_positions);
    for (size_t i = 0; r->target_positions && i < r->plan.n_targets; i++) int_lists_free(&r->target_positions[i]);
    PyMem_Free(r->target_positions);
    PyMem_Free(r->targets);
    steer_list_free(&r->steer);
}

/* targets, positions: lists with an entry for each target */
static int read_targets(request *r, const spec *m, PyObject *targets, PyObject *positions, int mean) {
    size_t n = (size_t)PyList_GET_SIZE(targets);
    if (!n || !PyList_Check(positions) || (size_t)PyList_GET_SIZE(positions) != n)
        return invalid("%zu targets need as many entries in target_positions", n);
    r->targets = PyMem_Calloc(n, sizeof *r->targets);
    r->target_positions = PyMem_Calloc(n, sizeof *r->target_positions);
    if (!r->targets || !r->target_positions) return PyErr_NoMemory(), -1;
    r->plan.n_targets = n;
    r->plan.targets = r->targets;
    for (size_t i = 0; i < n; i++) {
        target_plan *t = &r->targets[i];
        int_lists *at = &r->target_positions[i];
        if (parse_target(PyList_GET_ITEM(targets, (Py_ssize_t)i), m->n_layers, t) || check_order(m, &r->plan, t)
            || get_int_lists(PyList_GET_ITEM(positions, (Py_ssize_t)i), "target_positions", at))
            return -1;
        if (at->n != r->tokens.n) return invalid("%zu prompts, but target positions for %zu", r->tokens.n, at->n);
        t->mean = mean;
        t->positions = at->data;
        t->n_positions = at->length;
    }
    return 0;
}

static int jacobian_traverse(jacobian_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->model);
    return 0;
}

static int jacobian_clear(jacobian_object *self) {
    Py_CLEAR(self->model);
    return 0;
}

static void jacobian_dealloc(jacobian_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sweep_scratch_free(&self->spare);
    jacobian_free(&self->j);
    jacobian_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static int read_request(request *r, const spec *m, PyObject *prompts, PyObject *steer, PyObject *source, PyObject *targets,
                        PyObject *from, PyObject *to, int mean) {
    if (get_int_lists(prompts, "prompts", &r->tokens) || get_int_lists(from, "source_positions", &r->source_positions)
        || get_steer(steer, m->n_layers, m->d_model, &r->steer)
        || get_site(source, "source", m->n_layers, &r->plan.source_layer, &r->plan.source_site))
        return -1;
    if (r->source_positions.n != r->tokens.n)
        return invalid("%zu prompts, but source positions for %zu", r->tokens.n, r->source_positions.n);
    r->plan.positions = r->source_positions.data;
    r->plan.n_positions = r->source_positions.length;
    return read_targets(r, m, targets, to, mean);
}

static PyObject *jacobian_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "prompts", "steer", "source", "target", "source_positions", "target_positions", "mean", NULL};
    PyObject *model, *prompts, *steer, *source, *targets, *from, *to;
    int mean, bad = 1;
    request r = {0};
    ps_status st = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOp", names, &model, &prompts, &steer, &source, &targets, &from, &to, &mean))
        return NULL;
    int single = !PyList_Check(targets); /* a target and its positions, not lists of them */
    targets = single ? Py_BuildValue("[O]", targets) : Py_NewRef(targets);
    to = single ? Py_BuildValue("[O]", to) : Py_NewRef(to);
    jacobian_object *self = (jacobian_object *)type->tp_alloc(type, 0);
    PyObject *module = PyType_GetModule(type);
    if (self) PyObject_GC_UnTrack(self); /* until it is complete */
    if (!targets || !to || !self || !module) goto done;
    self->model = (model_object *)Py_XNewRef((PyObject *)as_model(module, model));
    if (!self->model || read_request(&r, &self->model->spec, prompts, steer, source, targets, from, to, mean)) goto done;
    hooks v = {.steer = r.steer.items, .n_steer = r.steer.n};
    core_call call;
    core_begin(&call, module, self->model->pool);
    bad = jacobian_make(&self->j, &call.rt, &self->model->spec, r.tokens.n, r.tokens.data, r.tokens.length, &v, &r.plan, &st) != PS_OK;
    core_end(&call);
    if (bad) raise_status(&st);
done:
    request_free(&r);
    Py_XDECREF(targets);
    Py_XDECREF(to);
    if (bad) Py_CLEAR(self);
    else PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* The spare scratch if it is large enough for n vectors, else a new one. Called with the GIL, which guards the spare. */
static ps_code take_scratch(jacobian_object *self, size_t n, sweep_scratch *s, ps_status *st) {
    if (self->spare.memory.base && self->spare.n_t >= n) {
        *s = self->spare;
        self->spare = (sweep_scratch){0};
        return PS_OK;
    }
    return sweep_scratch_make(s, &self->model->spec, &self->j.b, n, thread_pool_threads(self->model->pool), st);
}

/* Keeps the larger of this scratch and the spare, and frees the other. Called with the GIL. */
static void return_scratch(jacobian_object *self, sweep_scratch *s) {
    if (s->n_t > self->spare.n_t) { 
        sweep_scratch other = self->spare;
        self->spare = *s;
        *s = other;
    }
    sweep_scratch_free(s);
}

/* Runs all columns, as many in a sweep as jacobian_block allows. 0, or -1 with an exception */
static int run(jacobian_object *self, size_t n, column *columns, int transposed) {
    size_t block = jacobian_block(self->j.b.n_rows, n ? n : 1);
    ps_status st = {0};
    sweep_scratch s = {0};
    if (take_scratch(self, block, &s, &st)) return raise_status(&st), -1;
    core_call call;
    core_begin(&call, self->model->module, self->model->pool);
    for (size_t i = 0; i < n && !st.code; i += block)
        (transposed ? jacobian_apply_t : jacobian_apply)(&self->j, &call.rt, &s, n - i < block ? n - i : block, columns + i, &st);
    core_end(&call);
    return_scratch(self, &s);
    return st.code ? raise_status(&st), -1 : 0;
}

/* apply and apply_t of a Jacobian with one target */
static PyObject *run_block(jacobian_object *self, PyObject *arg, int transposed) {
    size_t cols = self->j.m->d_model, rows = self->j.targets[0].rows;
    if (self->j.n_targets != 1) return invalid("this Jacobian has %zu targets: use apply_each", self->j.n_targets), NULL;
    PyArrayObject *in = get_rows(arg, transposed ? "U" : "V", transposed ? rows : cols);
    if (!in) return NULL;
    size_t n = (size_t)PyArray_DIM(in, 0);
    npy_intp dims[] = {(npy_intp)n, (npy_intp)(transposed ? cols : rows)};
    PyArrayObject *out = (PyArrayObject *)PyArray_SimpleNew(2, dims, NPY_REAL);
    column *columns = PyMem_New(column, n ? n : 1);
    if (!columns) PyErr_NoMemory();
    int bad = !out || !columns;
    if (!bad) {
        real *v = PyArray_DATA(transposed ? out : in), *u = PyArray_DATA(transposed ? in : out);
        for (size_t i = 0; i < n; i++) columns[i] = (column){0, v + i * cols, u + i * rows};
        bad = run(self, n, columns, transposed);
    }
    PyMem_Free(columns);
    Py_DECREF(in);
    if (bad) Py_CLEAR(out);
    return (PyObject *)out;
}

static PyObject *jacobian_apply_py(jacobian_object *self, PyObject *arg) { return run_block(self, arg, 0); }
static PyObject *jacobian_apply_t_py(jacobian_object *self, PyObject *arg) { return run_block(self, arg, 1); }

/* apply_each and apply_t_each. list: columns (target index, v (d,), u (rows of the target,)), one of the two written */
static PyObject *run_columns(jacobian_object *self, PyObject *list, int transposed) {
    if (!PyList_Check(list)) return invalid("columns must be a list of (target, v, u)"), NULL;
    size_t n = (size_t)PyList_GET_SIZE(list);
    PyObject *keep = PyList_New(0);
    column *columns = PyMem_New(column, n ? n : 1);
    if (!columns) PyErr_NoMemory();
    int bad = !columns || !keep;
    for (size_t i = 0; !bad && i < n; i++) {
        PyObject *one = PyList_GET_ITEM(list, (Py_ssize_t)i), *v, *u;
        Py_ssize_t t;
        const real *pv, *pu;
        bad = !PyTuple_Check(one) || !PyArg_ParseTuple(one, "nOO", &t, &v, &u);
        if (!bad && (t < 0 || (size_t)t >= self->j.n_targets)) bad = invalid("there is no target %zd", t);
        bad = bad || get_vector(v, "v", self->j.m->d_model, &pv, keep)
           || get_vector(u, "u", self->j.targets[t].rows, &pu, keep);
        if (!bad && !PyArray_ISWRITEABLE((PyArrayObject *)(transposed ? v : u))) bad = invalid("the output of a column is read-only");
        if (!bad) columns[i] = (column){(size_t)t, (real *)pv, (real *)pu};
    }
    bad = bad || run(self, n, columns, transposed);
    PyMem_Free(columns);
    Py_XDECREF(keep);
    if (bad) {
        if (!PyErr_Occurred()) invalid("a column must be a tuple (target, v, u)");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *jacobian_apply_each(jacobian_object *self, PyObject *arg) { return run_columns(self, arg, 0); }
static PyObject *jacobian_apply_t_each(jacobian_object *self, PyObject *arg) { return run_columns(self, arg, 1); }

/* V (n, d) -> a list with an array (n, m) for each target */
static PyObject *jacobian_apply_all_py(jacobian_object *self, PyObject *arg) {
    size_t n_targets = self->j.n_targets, d = self->j.m->d_model;
    PyArrayObject *in = get_rows(arg, "V", d);
    if (!in) return NULL;
    size_t n = (size_t)PyArray_DIM(in, 0), block = jacobian_block(self->j.b.n_rows, n ? n : 1);
    PyObject *out = PyList_New((Py_ssize_t)n_targets);
    column *columns = PyMem_New(column, n_targets * block);
    real **u = PyMem_New(real *, n_targets), *v = PyArray_DATA(in);
    ps_status st = {0};
    sweep_scratch s = {0};
    if (!columns || !u) PyErr_NoMemory();
    int bad = !out || !columns || !u;
    for (size_t i = 0; !bad && i < n_targets; i++) {
        npy_intp dims[] = {(npy_intp)n, (npy_intp)self->j.targets[i].rows};
        PyArrayObject *one = (PyArrayObject *)PyArray_SimpleNew(2, dims, NPY_REAL);
        bad = !one || PyList_SetItem(out, (Py_ssize_t)i, (PyObject *)one);
        if (!bad) u[i] = PyArray_DATA(one);
    }
    if (!bad && take_scratch(self, block, &s, &st)) raise_status(&st), bad = 1;
    if (!bad) {
        core_call call;
        core_begin(&call, self->model->module, self->model->pool);
        for (size_t t = 0; t < n && !st.code; t += block) {
            size_t now = n - t < block ? n - t : block;
            for (size_t i = 0; i < n_targets * now; i++) {
                size_t to = i / now, row = t + i % now;
                columns[i] = (column){to, v + row * d, u[to] + row * self->j.targets[to].rows};
            }
            jacobian_apply_all(&self->j, &call.rt, &s, now, columns, &st);
        }
        core_end(&call);
        return_scratch(self, &s);
        if (st.code) raise_status(&st), bad = 1;
    }
    PyMem_Free(columns);
    PyMem_Free(u);
    Py_DECREF(in);
    if (bad) Py_CLEAR(out);
    return out;
}

/* A list with a value for each target; with one target the value itself */
static PyObject *each_target(jacobian_object *self, PyObject *(*get)(jacobian_object *, const target *)) {
    if (self->j.n_targets == 1) return get(self, &self->j.targets[0]);
    PyObject *list = PyList_New((Py_ssize_t)self->j.n_targets);
    for (size_t i = 0; list && i < self->j.n_targets; i++) {
        PyObject *one = get(self, &self->j.targets[i]);
        if (!one) Py_CLEAR(list);
        else PyList_SET_ITEM(list, (Py_ssize_t)i, one);
    }
    return list;
}

static PyObject *target_shape(jacobian_object *self, const target *t) {
    return Py_BuildValue("nn", (Py_ssize_t)t->rows, (Py_ssize_t)self->j.m->d_model);
}

/* a copy, so that the tape cannot be written */
static PyObject *target_base(jacobian_object *self, const target *t) {
    (void)self;
    npy_intp dims[] = {(npy_intp)(t->at.n * t->width)};
    PyObject *out = PyArray_SimpleNew(1, dims, NPY_REAL);
    if (out) memcpy(PyArray_DATA((PyArrayObject *)out), t->base, (size_t)dims[0] * sizeof(real));
    return out;
}

static PyObject *get_shape(jacobian_object *self, void *closure) {
    (void)closure;
    return each_target(self, target_shape);
}

static PyObject *get_base(jacobian_object *self, void *closure) {
    (void)closure;
    return each_target(self, target_base);
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

static PyObject *jacobian_count_bytes(PyTypeObject *type, PyObject *args) {
    PyObject *model, *lengths, *source, *to;
    Py_ssize_t n_target, n_columns;
    batch shape = {0};
    target_plan target = {0};
    footprint f;
    ps_status st = {0};
    if (!PyArg_ParseTuple(args, "OOOOnn", &model, &lengths, &source, &to, &n_target, &n_columns)) return NULL;
    model_object *owner = as_model(PyType_GetModule(type), model);
    if (!owner) return NULL;
    const spec *m = &owner->spec;
    if (n_target < 1 || n_columns < 1) return invalid("n_target and n_columns must be at least 1"), NULL;
    jacobian_plan ends = {0};
    if (get_batch_shape(m, lengths, &shape) || get_site(source, "source", m->n_layers, &ends.source_layer, &ends.source_site)
        || parse_target(to, m->n_layers, &target) || check_order(m, &ends, &target))
        return NULL;
    footprint_plan p = {.source_layer = ends.source_layer, .source_site = ends.source_site, .kind = target.kind,
                        .target_layer = target.layer, .n_target = (size_t)n_target,
                        .n_columns = jacobian_block(shape.n_rows, (size_t)n_columns)};
    if (jacobian_footprint(m, &shape, &p, thread_pool_threads(owner->pool), &f, &st)) return raise_status(&st);
    return Py_BuildValue("{s:n,s:n,s:n}", "tape", (Py_ssize_t)f.tape, "record", (Py_ssize_t)f.record, "sweep", (Py_ssize_t)f.sweep);
}

static PyMethodDef jacobian_methods[] = {
    {"count_bytes", (PyCFunction)(void (*)(void))jacobian_count_bytes, METH_VARARGS | METH_CLASS,
     DOC("count_bytes", "($type, model, lengths, source, target, n_target, n_columns, /)",
         "Return the bytes of a Jacobian with n_target target rows: held by its `tape`, allocated to `record` it, and\n"
         "allocated by a `sweep` of n_columns vectors.")},
    {"apply", (PyCFunction)jacobian_apply_py, METH_O, DOC("apply", "($self, V, /)", "Return J v of each row v of V: (n, d) -> (n, m).")},
    {"apply_t", (PyCFunction)jacobian_apply_t_py, METH_O,
     DOC("apply_t", "($self, U, /)", "Return J' u of each row u of U: (n, m) -> (n, d).")},
    {"apply_each", (PyCFunction)jacobian_apply_each, METH_O,
     DOC("apply_each", "($self, columns, /)", "Write u = J v of each column (target, v, u), for several targets in one sweep.")},
    {"apply_t_each", (PyCFunction)jacobian_apply_t_each, METH_O,
     DOC("apply_t_each", "($self, columns, /)", "Write v = J' u of each column (target, v, u), for several targets in one sweep.")},
    {"apply_all", (PyCFunction)jacobian_apply_all_py, METH_O,
     DOC("apply_all", "($self, V, /)", "Return J v of each row v of V for every target, a list of (n, m), in one sweep.")},
    {0},
};
static PyGetSetDef jacobian_getset[] = {
    {"shape", (getter)get_shape, NULL, "Rows of the target and width of the source, (m, d); a list if there are several targets.", NULL},
    {"base", (getter)get_base, NULL,
     "The target's rows where it is linearised, flat: activations, logits, or the next token's probabilities.", NULL},
    {"source_norm", (getter)get_source_norm, NULL, "Mean 2-norm of the source activation over the source positions.", NULL},
    {"rows_per_vector", (getter)get_rows_per_vector, NULL, "Packed positions that one vector of a sweep occupies.", NULL},
    {"nbytes", (getter)get_nbytes, NULL, "Bytes of the tape.", NULL},
    {0},
};
static PyType_Slot jacobian_slots[] = {
    {Py_tp_new, jacobian_new}, {Py_tp_dealloc, jacobian_dealloc}, {Py_tp_traverse, jacobian_traverse},
    {Py_tp_clear, jacobian_clear}, {Py_tp_methods, jacobian_methods}, {Py_tp_getset, jacobian_getset},
    {Py_tp_doc, DOC("Jacobian", "(model, prompts, steer, source, target, source_positions, target_positions, mean)",
                    "The Jacobian of `target` with respect to the activation at `source`, taped at these prompts. target:\n"
                    "(layer, site), \"logits\", \"next_token\", or a list of them with a list of target_positions each.")},
    {0},
};
static PyType_Spec jacobian_type_spec = {
    .name = MODULE_NAME ".Jacobian", .basicsize = sizeof(jacobian_object), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = jacobian_slots};

int add_jacobian_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &jacobian_type_spec, NULL);
    module_state_of(module)->jacobian_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "Jacobian", type) : -1;
}
