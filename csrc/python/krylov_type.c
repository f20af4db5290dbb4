/* The Python type KrylovRuns: runs of svd_krylov.h that advance together, on the threads of a pool. */
#include "python/solver.h"

/* A run, what it waits for, and what it has reported in the last krylov_next. Nothing else is written by two runs, so that
 * runs can advance side by side. */
typedef struct {
    krylov *krylov;
    size_t rows, cols, k;
    krylov_request request; /* n = 0: the run is finished */
    svd_observer observer;
    size_t applications, n_sigma; /* n_sigma = 0: nothing was reported */
    double worst, *sigma;         /* sigma (k) */
    const real *product;          /* to be copied to request.Y */
    ps_status st;
} run;

typedef struct {
    PyObject_HEAD
    PyObject *module;    /* keeps the matrix library open */
    PyObject *histories; /* a list for each run */
    thread_pool *pool;
    run *runs;
    size_t n_runs;
    int busy, failed;
} krylov_object;

static ps_code record(void *ctx, size_t applications, double worst, size_t n, const double *sigma, ps_status *st) {
    run *r = ctx;
    (void)st;
    r->applications = applications;
    r->worst = worst;
    r->n_sigma = n;
    memcpy(r->sigma, sigma, n * sizeof *sigma);
    return PS_OK;
}

static int krylov_traverse(krylov_object *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->module);
    Py_VISIT(self->histories);
    return 0;
}

static int krylov_clear(krylov_object *self) {
    Py_CLEAR(self->histories);
    return 0;
}

static void krylov_dealloc(krylov_object *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    for (size_t i = 0; self->runs && i < self->n_runs; i++) {
        krylov_free(self->runs[i].krylov);
        PyMem_Free(self->runs[i].sigma);
    }
    PyMem_Free(self->runs);
    thread_pool_free(self->pool);
    krylov_clear(self);
    Py_XDECREF(self->module);
    type->tp_free(self);
    Py_DECREF(type);
}

static void advance_one(void *ctx, size_t i, int worker) {
    run *r = ((run **)ctx)[i];
    (void)worker;
    r->n_sigma = 0;
    if (r->product) memcpy(r->request.Y, r->product, r->request.n * (r->request.transposed ? r->cols : r->rows) * sizeof(real));
    krylov_next(r->krylov, &r->request, &r->st);
}

/* Advances n runs to their next requests and notes what they have reported. 0, or -1 with the first run's exception; then no
 * run can go on, as some have and some have not. */
static int advance(krylov_object *self, size_t n, run **runs) {
    double operations = 0;
    ps_status interrupted = {0};
    core_call call;
    for (size_t i = 0; i < n; i++) operations += krylov_operations(runs[i]->krylov);
    self->busy = self->failed = 1;
    core_begin(&call, self->module, self->pool);
    runtime_run(&call.rt, n, operations, advance_one, runs);
    core_end(&call);
    self->busy = 0;
    if (call.stopped) return raise_status(&interrupted), -1;
    for (size_t i = 0; i < n; i++)
        if (runs[i]->st.code) return raise_status(&runs[i]->st), -1;
    for (size_t i = 0; i < n; i++) {
        const run *r = runs[i];
        PyObject *entry = r->n_sigma ? history_entry(r->applications, r->worst, r->n_sigma, r->sigma) : NULL;
        int bad = r->n_sigma && (!entry || PyList_Append(PyList_GET_ITEM(self->histories, r - self->runs), entry));
        Py_XDECREF(entry);
        if (bad) return -1;
    }
    self->failed = 0;
    return 0;
}

static int make_run(run *r, const blas *b, PyObject *sizes, double tol, unsigned long long seed) {
    Py_ssize_t n[6];
    krylov_options o = {.tol = tol, .seed = seed};
    if (!PyTuple_Check(sizes)) return invalid("a run must be a tuple of sizes");
    if (!PyArg_ParseTuple(sizes, "nnnnnn", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5])
        || krylov_counts(n, &r->rows, &r->cols, &o))
        return -1;
    r->observer = (svd_observer){record, r};
    r->k = o.k;
    if (krylov_make(&r->krylov, b, r->rows, r->cols, &o, &r->observer, &r->st)) return raise_status(&r->st), -1;
    r->sigma = PyMem_New(double, o.k);
    return r->sigma ? 0 : (PyErr_NoMemory(), -1);
}

/* Makes the runs and their first requests. */
static int make(krylov_object *self, PyObject *sizes, double tol, unsigned long long seed, int threads) {
    const blas *b = module_blas(self->module);
    ps_status st = {0};
    size_t n = (size_t)PyList_GET_SIZE(sizes);
    if (!b) return -1;
    if (thread_pool_create(&self->pool, threads, &st)) return raise_status(&st), -1;
    self->histories = PyList_New((Py_ssize_t)n);
    self->runs = PyMem_Calloc(n ? n : 1, sizeof *self->runs);
    run **all = PyMem_New(run *, n ? n : 1);
    int bad = !self->histories || !self->runs || !all;
    if (bad && !PyErr_Occurred()) PyErr_NoMemory();
    self->n_runs = bad ? 0 : n;
    for (size_t i = 0; !bad && i < n; i++) {
        PyObject *history = PyList_New(0);
        bad = !history || PyList_SetItem(self->histories, (Py_ssize_t)i, history)
           || make_run(all[i] = &self->runs[i], b, PyList_GET_ITEM(sizes, (Py_ssize_t)i), tol, seed);
    }
    bad = bad || advance(self, n, all);
    PyMem_Free(all);
    return bad ? -1 : 0;
}

static PyObject *krylov_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"runs", "tol", "seed", "threads", NULL};
    PyObject *sizes;
    double tol;
    unsigned long long seed;
    int threads;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!dKi", names, &PyList_Type, &sizes, &tol, &seed, &threads)) return NULL;
    krylov_object *self = (krylov_object *)type->tp_alloc(type, 0);
    if (!self) return NULL;
    PyObject_GC_UnTrack(self); /* until it is complete */
    self->module = Py_XNewRef(PyType_GetModule(type));
    PyObject *own = self->module ? PyList_GetSlice(sizes, 0, PY_SSIZE_T_MAX) : NULL; /* which nobody changes */
    if (!own || make(self, own, tol, seed, threads)) Py_CLEAR(self);
    else PyObject_GC_Track(self);
    Py_XDECREF(own);
    return (PyObject *)self;
}

static int is_usable(const krylov_object *self) {
    if (self->busy) return invalid("these runs are advancing in another thread"), 0;
    if (self->failed) return invalid("one of these runs has failed"), 0;
    return 1;
}

/* The run with this index; NULL with an exception if there is none, or if it is finished or not as `finished` says */
static run *find_run(krylov_object *self, Py_ssize_t i, int finished) {
    if (i < 0 || (size_t)i >= self->n_runs) return invalid("there is no run %zd", i), NULL;
    if (finished != !self->runs[i].request.n)
        return invalid(finished ? "run %zd is not finished" : "run %zd is finished and waits for no product", i), NULL;
    return &self->runs[i];
}

static PyObject *krylov_requests(krylov_object *self, PyObject *unused) {
    (void)unused;
    if (!is_usable(self)) return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < self->n_runs; i++) {
        const run *r = &self->runs[i];
        npy_intp dims[] = {(npy_intp)r->request.n, (npy_intp)(r->request.transposed ? r->rows : r->cols)};
        if (!r->request.n) continue;
        PyObject *x = PyArray_SimpleNew(2, dims, NPY_REAL);
        if (x) memcpy(PyArray_DATA((PyArrayObject *)x), r->request.X, (size_t)(dims[0] * dims[1]) * sizeof(real));
        PyObject *one = x ? Py_BuildValue("nON", (Py_ssize_t)i, r->request.transposed ? Py_True : Py_False, x) : NULL;
        if (!one || PyList_Append(list, one)) Py_CLEAR(list);
        Py_XDECREF(one);
    }
    return list;
}

/* Sets the product of the run that a tuple (index, Y) names, and keeps its array. NULL with an exception */
static run *take_product(krylov_object *self, PyObject *pair, PyObject *keep) {
    Py_ssize_t i;
    PyObject *Y;
    if (!PyTuple_Check(pair)) return invalid("a product must be a tuple (index, Y)"), NULL;
    if (!PyArg_ParseTuple(pair, "nO", &i, &Y)) return NULL;
    run *r = find_run(self, i, 0);
    if (!r) return NULL;
    if (r->product) return invalid("run %zd has two products", i), NULL;
    PyArrayObject *y = get_rows(Y, "a product", r->request.transposed ? r->cols : r->rows);
    if (!y) return NULL;
    if ((size_t)PyArray_DIM(y, 0) != r->request.n)
        invalid("run %zd needs the products of %zu vectors, not of %zd", i, r->request.n, (Py_ssize_t)PyArray_DIM(y, 0)), r = NULL;
    else if (PyList_Append(keep, (PyObject *)y)) r = NULL;
    else r->product = PyArray_DATA(y);
    Py_DECREF(y);
    return r;
}

static PyObject *krylov_supply(krylov_object *self, PyObject *products) {
    if (!PyList_Check(products)) return invalid("products must be a list of (index, Y)"), NULL;
    if (!is_usable(self)) return NULL;
    size_t n = (size_t)PyList_GET_SIZE(products), done = 0;
    PyObject *keep = PyList_New(0);
    run **runs = PyMem_New(run *, n ? n : 1);
    if (!runs) PyErr_NoMemory();
    int bad = !keep || !runs;
    for (; !bad && done < n && done < (size_t)PyList_GET_SIZE(products); done += !bad)
        bad = !(runs[done] = take_product(self, PyList_GET_ITEM(products, (Py_ssize_t)done), keep));
    bad = bad || advance(self, done, runs);
    for (size_t i = 0; i < done; i++) runs[i]->product = NULL;
    PyMem_Free(runs);
    Py_XDECREF(keep);
    if (bad) return NULL;
    Py_RETURN_NONE;
}

static PyObject *krylov_result_py(krylov_object *self, PyObject *arg) {
    Py_ssize_t i = PyNumber_AsSsize_t(arg, PyExc_IndexError);
    if ((i == -1 && PyErr_Occurred()) || !is_usable(self)) return NULL;
    const run *r = find_run(self, i, 1);
    result_arrays a = {0};
    svd_result out = {0};
    PyObject *dict = NULL;
    if (r && !result_arrays_make(&a, r->k, r->rows, r->cols, &out)) {
        krylov_result(r->krylov, &out);
        dict = result_dict(&a, &out, PyList_GET_ITEM(self->histories, i));
    }
    result_arrays_free(&a);
    return dict;
}

static PyMethodDef krylov_methods[] = {
    {"requests", (PyCFunction)krylov_requests, METH_NOARGS,
     DOC("requests", "($self, /)",
         "Return (index, transposed, X) of every run that waits for the products J X or J' X; [] if all are finished.")},
    {"supply", (PyCFunction)krylov_supply, METH_O,
     DOC("supply", "($self, products, /)", "Advance runs by the requested products [(index, Y)], all of them or some.")},
    {"result", (PyCFunction)krylov_result_py, METH_O,
     DOC("result", "($self, i, /)", "Return the result of run i, which is finished: a dict as svd_krylov's.")},
    {0},
};
static PyType_Slot krylov_slots[] = {
    {Py_tp_new, krylov_new}, {Py_tp_dealloc, krylov_dealloc}, {Py_tp_traverse, krylov_traverse},
    {Py_tp_clear, krylov_clear}, {Py_tp_methods, krylov_methods},
    {Py_tp_doc, DOC("KrylovRuns", "(runs, tol, seed, threads)",
                    "Runs of svd_krylov that advance together on a pool of threads, with the bits of each alone. runs: a list of\n"
                    "(rows, cols, k, block, max_applications, max_basis).")},
    {0},
};
static PyType_Spec krylov_spec = {
    .name = MODULE_NAME ".KrylovRuns", .basicsize = sizeof(krylov_object), .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = krylov_slots};

int add_krylov_type(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &krylov_spec, NULL);
    module_state_of(module)->krylov_type = (PyTypeObject *)type;
    return type ? PyModule_AddObjectRef(module, "KrylovRuns", type) : -1;
}
