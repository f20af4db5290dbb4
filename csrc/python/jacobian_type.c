/* The Python type Jacobian: a jacobian of model/jacobian.h with its model, and scratch kept from call to call. */
#include "python/convert.h"
#include "python/model_type.h"
#include "model/footprint.h"
#include "model/sweep.h"

typedef struct {
    PyObject_HEAD
    model_object *model;
    jacobian j;
    steer_list steer; /* which j borrows */
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
    return get_site(obj, "target", n_layers, N_SITES, &plan->layer, &plan->site);
}

/* Why a target does not depend on a source, else NULL: it must come later in the order of computation, and in a parallel block
 * the MLP does not read the attention's output. */
static const char *order_error(const spec *m, size_t layer, site from, target_kind kind, size_t target_layer, site to) {
    if (m->parallel && (from == SITE_RESID_MID || (kind == TARGET_SITE && to == SITE_RESID_MID)))
        return "resid_mid does not exist in a parallel block";
    if (kind != TARGET_SITE || layer < target_layer) return NULL;
    if (layer > target_layer || from >= to) return "the source must come before the target";
    if (m->parallel && from == SITE_ATTN_OUT && to != SITE_RESID_POST)
        return "in a parallel block the attention's output does not reach the MLP of the same layer";
    return NULL;
}

/* The constructor's arguments, converted */
typedef struct {
    int_lists tokens, *source_positions, *target_positions; /* (n_sources), (n_targets) */
    source_plan *sources;
    target_plan *targets;
    jacobian_plan plan;
} request;

static void free_positions(int_lists *lists, size_t n) {
    for (size_t i = 0; lists && i < n; i++) int_lists_free(&lists[i]);
    PyMem_Free(lists);
}

static void request_free(request *r) {
    int_lists_free(&r->tokens);
    free_positions(r->source_positions, r->plan.n_sources);
    free_positions(r->target_positions, r->plan.n_targets);
    PyMem_Free(r->sources);
    PyMem_Free(r->targets);
}

/* ends, positions: lists with an entry for each source or target, of which *n, *plans and *lists are allocated. 0 or -1 */
static int make_ends(const char *what, PyObject *ends, PyObject *positions, size_t size, size_t *n, void **plans, int_lists **lists) {
    size_t count = (size_t)PyList_GET_SIZE(ends);
    if (!count || !PyList_Check(positions) || (size_t)PyList_GET_SIZE(positions) != count)
        return invalid("%zu %ss need as many entries in %s_positions", count, what, what);
    *n = count;
    *plans = PyMem_Calloc(count, size);
    *lists = PyMem_Calloc(count, sizeof **lists);
    return *plans && *lists ? 0 : (PyErr_NoMemory(), -1);
}

static int get_positions(const request *r, const char *what, PyObject *list, size_t i, int_lists *at) {
    if (get_int_lists(PyList_GET_ITEM(list, (Py_ssize_t)i), what, at)) return -1;
    return at->n == r->tokens.n ? 0 : invalid("%zu prompts, but %s for %zu of them", r->tokens.n, what, at->n);
}

static int read_sources(request *r, const spec *m, PyObject *sources, PyObject *positions) {
    if (make_ends("source", sources, positions, sizeof *r->sources, &r->plan.n_sources, (void **)&r->sources, &r->source_positions)) return -1;
    r->plan.sources = r->sources;
    for (size_t i = 0; i < r->plan.n_sources; i++) {
        source_plan *s = &r->sources[i];
        int_lists *at = &r->source_positions[i];
        if (get_site(PyList_GET_ITEM(sources, (Py_ssize_t)i), "source", m->n_layers, N_SITES, &s->layer, &s->site)
            || get_positions(r, "source_positions", positions, i, at))
            return -1;
        s->positions = at->data;
        s->n_positions = at->length;
    }
    return 0;
}

/* Every source and every target must belong to some pair. */
static int check_pairs(const request *r, const spec *m) {
    for (size_t i = 0; i < r->plan.n_sources + r->plan.n_targets; i++) {
        int is_source = i < r->plan.n_sources, found = 0;
        const char *why = NULL;
        for (size_t k = 0; k < (is_source ? r->plan.n_targets : r->plan.n_sources); k++) {
            const source_plan *s = &r->sources[is_source ? i : k];
            const target_plan *t = &r->targets[is_source ? k : i - r->plan.n_sources];
            const char *here = order_error(m, s->layer, s->site, t->kind, t->layer, t->site);
            if (!here) found = 1;
            else why = here;
        }
        if (!found) return invalid("%s", why);
    }
    return 0;
}

static int read_targets(request *r, const spec *m, PyObject *targets, PyObject *positions, int mean) {
    if (make_ends("target", targets, positions, sizeof *r->targets, &r->plan.n_targets, (void **)&r->targets, &r->target_positions)) return -1;
    r->plan.targets = r->targets;
    for (size_t i = 0; i < r->plan.n_targets; i++) {
        target_plan *t = &r->targets[i];
        int_lists *at = &r->target_positions[i];
        if (parse_target(PyList_GET_ITEM(targets, (Py_ssize_t)i), m->n_layers, t)
            || get_positions(r, "target_positions", positions, i, at))
            return -1;
        t->mean = mean;
        t->positions = at->data;
        t->n_positions = at->length;
    }
    return check_pairs(r, m);
}

static int jacobian_traverse(jacobian_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->model);
    Py_VISIT(self->steer.keep);
    return 0;
}

static int jacobian_clear(jacobian_object *self) {
    Py_CLEAR(self->model);
    Py_CLEAR(self->steer.keep);
    return 0;
}

static void jacobian_dealloc(jacobian_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    sweep_scratch_free(&self->spare);
    jacobian_free(&self->j);
    steer_list_free(&self->steer);
    jacobian_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* New lists, which nobody else changes, of ends and their positions, from lists or from one end and its positions. 0 or -1 */
static int as_lists(PyObject **ends, PyObject **positions) {
    int many = PyList_Check(*ends);
    *ends = many ? PyList_GetSlice(*ends, 0, PY_SSIZE_T_MAX) : Py_BuildValue("[O]", *ends);
    *positions = many && PyList_Check(*positions) ? PyList_GetSlice(*positions, 0, PY_SSIZE_T_MAX) : Py_BuildValue("[O]", *positions);
    return *ends && *positions ? 0 : -1;
}

static PyObject *jacobian_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"model", "prompts", "steer", "source", "target", "source_positions", "target_positions", "mean", NULL};
    PyObject *model, *prompts, *steer, *sources, *targets, *from, *to;
    int mean, bad = 1;
    request r = {0};
    ps_status st = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOOOOOOp", names, &model, &prompts, &steer, &sources, &targets, &from, &to, &mean))
        return NULL;
    int no_lists = as_lists(&sources, &from) | as_lists(&targets, &to);
    jacobian_object *self = (jacobian_object *)type->tp_alloc(type, 0);
    PyObject *module = PyType_GetModule(type);
    if (self) PyObject_GC_UnTrack(self); /* until it is complete */
    if (no_lists || !self || !module) goto done;
    self->model = (model_object *)Py_XNewRef((PyObject *)as_model(module, model));
    if (!self->model) goto done;
    const spec *m = &self->model->spec;
    if (get_int_lists(prompts, "prompts", &r.tokens) || get_steer(steer, m->n_layers, m->d_model, &self->steer)
        || read_sources(&r, m, sources, from) || read_targets(&r, m, targets, to, mean))
        goto done;
    hooks v = {.steer = self->steer.items, .n_steer = self->steer.n};
    core_call call;
    core_begin(&call, module, self->model->pool);
    bad = jacobian_make(&self->j, &call.rt, m, r.tokens.n, r.tokens.data, r.tokens.length, &v, &r.plan, &st) != PS_OK;
    core_end(&call);
    if (bad) raise_status(&st);
done:
    request_free(&r);
    Py_XDECREF(sources);
    Py_XDECREF(from);
    Py_XDECREF(targets);
    Py_XDECREF(to);
    if (bad) Py_CLEAR(self);
    else PyObject_GC_Track(self);
    return (PyObject *)self;
}

/* The spare scratch if it is large enough for n streams, else a new one. Called with the GIL, which guards the spare. */
static ps_code take_scratch(jacobian_object *self, size_t n, sweep_scratch *s, ps_status *st) {
    size_t block = jacobian_block(self->j.b.n_rows, n);
    if (self->spare.memory.base && self->spare.n_t >= block && self->spare.n_streams >= n) {
        *s = self->spare;
        self->spare = (sweep_scratch){0};
        return PS_OK;
    }
    return sweep_scratch_make(s, &self->model->spec, &self->j.b, block, n, thread_pool_threads(self->model->pool), st);
}

/* Keeps the larger of this scratch and the spare, and frees the other. Called with the GIL. */
static void return_scratch(jacobian_object *self, sweep_scratch *s) {
    if (s->n_streams > self->spare.n_streams) {
        sweep_scratch other = self->spare;
        self->spare = *s;
        *s = other;
    }
    sweep_scratch_free(s);
}

/* Runs all columns, as many in a sweep as jacobian_streams allows. 0, or -1 with an exception */
static int run(jacobian_object *self, size_t n, column *columns, int transposed) {
    size_t block = jacobian_streams(self->j.m, self->j.b.n_rows, n ? n : 1);
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
    if (self->j.n_sources != 1 || self->j.n_targets != 1) return invalid("a Jacobian of several pairs: use apply_each"), NULL;
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
        for (size_t i = 0; i < n; i++) columns[i] = (column){0, 0, v + i * cols, u + i * rows, i};
        bad = run(self, n, columns, transposed);
    }
    PyMem_Free(columns);
    Py_DECREF(in);
    if (bad) Py_CLEAR(out);
    return (PyObject *)out;
}

static PyObject *jacobian_apply_py(jacobian_object *self, PyObject *arg) { return run_block(self, arg, 0); }
static PyObject *jacobian_apply_t_py(jacobian_object *self, PyObject *arg) { return run_block(self, arg, 1); }

static const char *pair_error(const jacobian_object *self, size_t from, size_t to) {
    const source *s = &self->j.sources[from];
    const target *t = &self->j.targets[to];
    return order_error(self->j.m, s->layer, s->site, t->kind, t->layer, t->site);
}

/* apply_each and apply_t_each. list: columns (source and target index, v (d,), u (rows of the target,)), one of the two written */
static PyObject *run_columns(jacobian_object *self, PyObject *arg, int transposed) {
    if (!PyList_Check(arg)) return invalid("columns must be a list of (source, target, v, u)"), NULL;
    PyObject *list = PyList_GetSlice(arg, 0, PY_SSIZE_T_MAX); /* which nobody changes */
    if (!list) return NULL;
    size_t n = (size_t)PyList_GET_SIZE(list);
    PyObject *keep = PyList_New(0);
    column *columns = PyMem_New(column, n ? n : 1);
    if (!columns) PyErr_NoMemory();
    int bad = !columns || !keep;
    for (size_t i = 0; !bad && i < n; i++) {
        PyObject *one = PyList_GET_ITEM(list, (Py_ssize_t)i), *v, *u;
        Py_ssize_t f, t;
        const real *pv, *pu;
        bad = !PyTuple_Check(one) || !PyArg_ParseTuple(one, "nnOO", &f, &t, &v, &u);
        if (!bad && (f < 0 || t < 0 || (size_t)f >= self->j.n_sources || (size_t)t >= self->j.n_targets))
            bad = invalid("there is no pair of source %zd and target %zd", f, t);
        if (!bad && pair_error(self, (size_t)f, (size_t)t)) bad = invalid("%s", pair_error(self, (size_t)f, (size_t)t));
        bad = bad || get_vector(v, "v", self->j.m->d_model, &pv, keep)
           || get_vector(u, "u", self->j.targets[t].rows, &pu, keep);
        if (!bad && !PyArray_ISWRITEABLE((PyArrayObject *)(transposed ? v : u))) bad = invalid("the output of a column is read-only");
        if (!bad) columns[i] = (column){(size_t)f, (size_t)t, (real *)pv, (real *)pu, i};
    }
    bad = bad || run(self, n, columns, transposed);
    PyMem_Free(columns);
    Py_XDECREF(keep);
    Py_DECREF(list);
    if (bad) {
        if (!PyErr_Occurred()) invalid("a column must be a tuple (source, target, v, u)");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *jacobian_apply_each(jacobian_object *self, PyObject *arg) { return run_columns(self, arg, 0); }
static PyObject *jacobian_apply_t_each(jacobian_object *self, PyObject *arg) { return run_columns(self, arg, 1); }

/* An uninitialised result of apply_all or apply_t_all at end i for n vectors; None where target and source do not depend on each
 * other. *data: where it is written, or NULL */
static PyObject *new_result(const jacobian_object *self, size_t n, size_t i, int depends, int transposed, int per_seq, real **data) {
    npy_intp width = (npy_intp)(transposed ? self->j.m->d_model : self->j.targets[i].rows);
    npy_intp each[] = {(npy_intp)n, (npy_intp)self->j.b.n_seq, width}, sum[] = {(npy_intp)n, width};
    if (!depends) return Py_NewRef(Py_None);
    PyObject *one = per_seq ? PyArray_SimpleNew(3, each, NPY_REAL) : PyArray_SimpleNew(2, sum, NPY_REAL);
    *data = one ? PyArray_DATA((PyArrayObject *)one) : NULL;
    return one;
}

/* apply_all and apply_t_all: (n, width) vectors at one end -> a list with their results at every end of the other side */
static PyObject *run_all(jacobian_object *self, Py_ssize_t at, PyObject *arg, int transposed, int per_seq) {
    const jacobian *j = &self->j;
    if (at < 0 || (size_t)at >= (transposed ? j->n_targets : j->n_sources))
        return invalid("there is no %s %zd", transposed ? "target" : "source", at), NULL;
    size_t n_ends = transposed ? j->n_sources : j->n_targets, d = j->m->d_model, d_v = per_seq ? j->b.n_seq * d : d;
    PyArrayObject *in = get_rows(arg, transposed ? "U" : "V", transposed ? j->targets[at].rows : d);
    if (!in) return NULL;
    size_t n = (size_t)PyArray_DIM(in, 0), block = jacobian_block(j->b.n_rows, n ? n : 1);
    PyObject *out = PyList_New((Py_ssize_t)n_ends);
    column *columns = PyMem_New(column, n_ends * block);
    real **written = PyMem_New(real *, n_ends), *read = PyArray_DATA(in);
    ps_status st = {0};
    sweep_scratch s = {0};
    if (!columns || !written) PyErr_NoMemory();
    int bad = !out || !columns || !written;
    for (size_t i = 0; !bad && i < n_ends; i++) {
        int depends = !pair_error(self, transposed ? i : (size_t)at, transposed ? (size_t)at : i);
        written[i] = NULL;
        PyObject *one = new_result(self, n, i, depends, transposed, per_seq, &written[i]);
        bad = !one || PyList_SetItem(out, (Py_ssize_t)i, one);
    }
    if (!bad && take_scratch(self, block, &s, &st)) raise_status(&st), bad = 1;
    if (!bad) {
        core_call call;
        core_begin(&call, self->model->module, self->model->pool);
        for (size_t t = 0; t < n && !st.code; t += block) {
            size_t now = n - t < block ? n - t : block;
            for (size_t i = 0; i < n_ends * now; i++) {
                size_t end = i / now, row = t + i % now, f = transposed ? end : (size_t)at, to = transposed ? (size_t)at : end;
                real *v = transposed ? written[end] : read, *u = transposed ? read : written[end];
                columns[i] = (column){f, to, v ? v + row * d_v : NULL, u ? u + row * j->targets[to].rows : NULL, i};
            }
            if (transposed) jacobian_apply_t_all(j, &call.rt, &s, (size_t)at, now, per_seq, columns, &st);
            else jacobian_apply_all(j, &call.rt, &s, (size_t)at, now, columns, &st);
        }
        core_end(&call);
        return_scratch(self, &s);
        if (st.code) raise_status(&st), bad = 1;
    }
    PyMem_Free(columns);
    PyMem_Free(written);
    Py_DECREF(in);
    if (bad) Py_CLEAR(out);
    return out;
}

static PyObject *jacobian_apply_all_py(jacobian_object *self, PyObject *args) {
    PyObject *V;
    Py_ssize_t from;
    return PyArg_ParseTuple(args, "nO", &from, &V) ? run_all(self, from, V, 0, 0) : NULL;
}

static PyObject *jacobian_apply_t_all_py(jacobian_object *self, PyObject *args) {
    PyObject *U;
    Py_ssize_t to;
    int per_prompt;
    return PyArg_ParseTuple(args, "nOp", &to, &U, &per_prompt) ? run_all(self, to, U, 1, per_prompt) : NULL;
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
    if (self->j.n_sources == 1) return PyFloat_FromDouble((double)self->j.sources[0].norm);
    PyObject *list = PyList_New((Py_ssize_t)self->j.n_sources);
    for (size_t i = 0; list && i < self->j.n_sources; i++) {
        PyObject *one = PyFloat_FromDouble((double)self->j.sources[i].norm);
        if (!one) Py_CLEAR(list);
        else PyList_SET_ITEM(list, (Py_ssize_t)i, one);
    }
    return list;
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
    source_plan start = {0};
    if (get_batch_shape(m, lengths, &shape) || get_site(source, "source", m->n_layers, N_SITES, &start.layer, &start.site)
        || parse_target(to, m->n_layers, &target))
        return NULL;
    const char *why = order_error(m, start.layer, start.site, target.kind, target.layer, target.site);
    if (why) return invalid("%s", why), NULL;
    footprint_plan p = {.source_layer = start.layer, .source_site = start.site, .kind = target.kind,
                        .target_layer = target.layer, .n_target = (size_t)n_target,
                        .n_columns = jacobian_streams(m, shape.n_rows, (size_t)n_columns)};
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
     DOC("apply_each", "($self, columns, /)", "Write u = J v of each column (source, target, v, u), of any pairs in one sweep.")},
    {"apply_t_each", (PyCFunction)jacobian_apply_t_each, METH_O,
     DOC("apply_t_each", "($self, columns, /)", "Write v = J' u of each column (source, target, v, u), of any pairs in one sweep.")},
    {"apply_all", (PyCFunction)jacobian_apply_all_py, METH_VARARGS,
     DOC("apply_all", "($self, source, V, /)",
         "Return J v of each row v of V at a source for every target, a list of (n, m), in one sweep; None for a target that does\n"
         "not depend on the source.")},
    {"apply_t_all", (PyCFunction)jacobian_apply_t_all_py, METH_VARARGS,
     DOC("apply_t_all", "($self, target, U, per_prompt, /)",
         "Return J' u of each row u of U at a target for every source, a list of (n, d), in one sweep; None for a source that the\n"
         "target does not depend on. per_prompt: (n, prompts, d), the parts of the sum that the prompts' source rows make.")},
    {0},
};
static PyGetSetDef jacobian_getset[] = {
    {"shape", (getter)get_shape, NULL, "Rows of the target and width of the source, (m, d); a list if there are several targets.", NULL},
    {"base", (getter)get_base, NULL,
     "The target's rows where it is linearised, flat: activations, logits, or the next token's probabilities.", NULL},
    {"source_norm", (getter)get_source_norm, NULL, "Mean 2-norm of the source activation over the source positions; a list if there are several sources.", NULL},
    {"rows_per_vector", (getter)get_rows_per_vector, NULL, "Packed positions that one vector of a sweep occupies.", NULL},
    {"nbytes", (getter)get_nbytes, NULL, "Bytes of the tape.", NULL},
    {0},
};
static PyType_Slot jacobian_slots[] = {
    {Py_tp_new, jacobian_new}, {Py_tp_dealloc, jacobian_dealloc}, {Py_tp_traverse, jacobian_traverse},
    {Py_tp_clear, jacobian_clear}, {Py_tp_methods, jacobian_methods}, {Py_tp_getset, jacobian_getset},
    {Py_tp_doc, DOC("Jacobian", "(model, prompts, steer, source, target, source_positions, target_positions, mean)",
                    "The Jacobian of `target` with respect to the activation at `source`, taped at these prompts. source: (layer, site);\n"
                    "target: (layer, site), \"logits\" or \"next_token\". Either may be a list, with a list of positions for each.")},
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
