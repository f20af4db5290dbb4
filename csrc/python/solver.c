#include "python/solver.h"
#include "solver/svd_power.h"

const char py_svd_krylov_doc[] =
    DOC("svd_krylov", "($module, /, op, shape, k, block, tol, max_applications, seed, max_basis, callback=None)",
        "Return the k leading singular triplets of an operator by block Krylov iteration.\n\n"
        "op.apply(V (n, cols)) -> (n, rows) and op.apply_t(U (n, rows)) -> (n, cols), in this core's real type.\n"
        "callback(applications, worst_residual, sigma) is called after every step; an exception that it raises ends the run.\n"
        "The dict holds U (k, rows), S (k,), V (k, cols), residuals (k, 2), applications, certificate_applications,\n"
        "history [(applications, worst_residual, sigma)], next_sigma, missed_probability and stop.");
const char py_svd_power_doc[] =
    DOC("svd_power", "($module, /, op, shape, k, oversample, iterations, seed, tol, probe_most, max_basis, callback=None)",
        "Return k singular triplets after a fixed number of power iterations, in a dict as svd_krylov's.");

/* A run: the context of the operator and the observer */
typedef struct {
    PyObject *op, *callback, *history;
    size_t rows, cols;
    PyThreadState *thread; /* of the caller, while the core runs without the GIL */
} session;

/* out (n, to) = op.name(in (n, from)). Called with the GIL. 0, or -1 with an exception */
static int call_operator(const session *s, const char *name, size_t n, const real *in, size_t from, real *out,
                         size_t to) {
    npy_intp dims[] = {(npy_intp)n, (npy_intp)from};
    int bad = -1;
    PyObject *x = PyArray_SimpleNew(2, dims, NPY_REAL), *result = NULL;
    PyArrayObject *y = NULL;
    if (x) {
        memcpy(PyArray_DATA((PyArrayObject *)x), in, n * from * sizeof *in);
        result = PyObject_CallMethod(s->op, name, "O", x);
    }
    if (result) y = get_rows(result, "what the operator returns", to);
    if (y && (size_t)PyArray_DIM(y, 0) != n)
        invalid("the operator's %s returned %zd rows for %zu vectors", name, (Py_ssize_t)PyArray_DIM(y, 0), n);
    else if (y) {
        memcpy(out, PyArray_DATA(y), n * to * sizeof *out);
        bad = PyErr_CheckSignals();
    }
    Py_XDECREF(x);
    Py_XDECREF(y);
    Py_XDECREF(result);
    return bad;
}

static ps_code multiply(session *s, const char *name, size_t n, const real *in, size_t from, real *out, size_t to,
                        ps_status *st) {
    PyEval_RestoreThread(s->thread);
    int bad = call_operator(s, name, n, in, from, out, to);
    s->thread = PyEval_SaveThread();
    return bad ? ps_fail(st, PS_ERR_CALLBACK, "the operator's %s failed", name) : PS_OK;
}

static ps_code apply(void *ctx, size_t n, const real *V, real *U, ps_status *st) {
    session *s = ctx;
    return multiply(s, "apply", n, V, s->cols, U, s->rows, st);
}

static ps_code apply_t(void *ctx, size_t n, const real *U, real *V, ps_status *st) {
    session *s = ctx;
    return multiply(s, "apply_t", n, U, s->rows, V, s->cols, st);
}

PyObject *history_entry(size_t applications, double worst, size_t n, const double *sigma) {
    npy_intp dims[] = {(npy_intp)n};
    PyObject *values = PyArray_SimpleNew(1, dims, NPY_FLOAT64);
    if (!values) return NULL;
    memcpy(PyArray_DATA((PyArrayObject *)values), sigma, n * sizeof *sigma);
    return Py_BuildValue("ndN", (Py_ssize_t)applications, worst, values);
}

/* Appends (applications, worst, sigma) to the history and calls the callback with it. Called with the GIL. 0, or -1 with an
 * exception */
static int call_callback(session *s, size_t applications, double worst, size_t n, const double *sigma) {
    PyObject *entry = history_entry(applications, worst, n, sigma), *answer = NULL;
    int bad = -1;
    if (entry && !PyList_Append(s->history, entry)) {
        answer = s->callback == Py_None ? Py_NewRef(Py_None) : PyObject_CallObject(s->callback, entry);
        bad = answer ? PyErr_CheckSignals() : -1;
    }
    Py_XDECREF(entry);
    Py_XDECREF(answer);
    return bad;
}

static ps_code report(void *ctx, size_t applications, double worst, size_t n, const double *sigma, ps_status *st) {
    session *s = ctx;
    PyEval_RestoreThread(s->thread);
    int bad = call_callback(s, applications, worst, n, sigma);
    s->thread = PyEval_SaveThread();
    return bad ? ps_fail(st, PS_ERR_CALLBACK, "the callback failed") : PS_OK;
}

static PyArrayObject *new_array(size_t rows, size_t cols, int nd, int type) {
    npy_intp dims[] = {(npy_intp)rows, (npy_intp)cols};
    return (PyArrayObject *)PyArray_SimpleNew(nd, dims, type);
}

int result_arrays_make(result_arrays *a, size_t k, size_t rows, size_t cols, svd_result *out) {
    if (k < 1 || k > (rows < cols ? rows : cols))
        return invalid("k = %zu, but an operator of %zu x %zu has 1 to %zu singular triplets", k, rows, cols,
                       rows < cols ? rows : cols);
    if (!(a->U = new_array(k, rows, 2, NPY_REAL)) || !(a->V = new_array(k, cols, 2, NPY_REAL))
        || !(a->sigma = new_array(k, 0, 1, NPY_FLOAT64)) || !(a->residuals = new_array(k, 2, 2, NPY_FLOAT64)))
        return -1;
    out->U = PyArray_DATA(a->U);
    out->V = PyArray_DATA(a->V);
    out->sigma = PyArray_DATA(a->sigma);
    out->residuals = PyArray_DATA(a->residuals);
    return 0;
}

void result_arrays_free(result_arrays *a) {
    Py_XDECREF(a->U);
    Py_XDECREF(a->V);
    Py_XDECREF(a->sigma);
    Py_XDECREF(a->residuals);
}

PyObject *result_dict(const result_arrays *a, const svd_result *r, PyObject *history) {
    static const char *const stops[] = {[SVD_CERTIFIED] = "certified", [SVD_MAX_APPLICATIONS] = "max_applications",
                                        [SVD_PRECISION] = "precision", [SVD_FIXED] = "fixed"};
    _Static_assert(COUNT(stops) == SVD_FIXED + 1, "a word for every svd_stop");
    return Py_BuildValue("{s:O,s:O,s:O,s:O,s:n,s:n,s:O,s:d,s:d,s:s}", "U", a->U, "S", a->sigma, "V", a->V,
                         "residuals", a->residuals, "applications", (Py_ssize_t)r->applications,
                         "certificate_applications", (Py_ssize_t)r->certificate_applications, "history", history,
                         "next_sigma", r->next_sigma, "missed_probability", r->missed_probability, "stop",
                         stops[r->stop]);
}

/* Runs one of the solvers: the one whose options are not NULL. */
static PyObject *solve(PyObject *module, session *s, size_t k, const krylov_options *krylov, const power_options *power) {
    result_arrays a = {0};
    svd_result r = {0};
    ps_status st = {0};
    PyObject *dict = NULL;
    linop J = {.rows = s->rows, .cols = s->cols, .apply = apply, .apply_t = apply_t, .ctx = s};
    svd_observer observer = {report, s};
    const blas *b = module_blas(module);
    if (!b || result_arrays_make(&a, k, s->rows, s->cols, &r) || !(s->history = PyList_New(0))) goto done;
    s->thread = PyEval_SaveThread();
    ps_code code = krylov ? svd_krylov(b, &J, krylov, &observer, &r, &st) : svd_power(b, &J, power, &observer, &r, &st);
    PyEval_RestoreThread(s->thread);
    dict = code ? raise_status(&st) : result_dict(&a, &r, s->history);
done:
    result_arrays_free(&a);
    Py_XDECREF(s->history);
    return dict;
}

/* Refuses a negative count, so that each can become a size_t. */
static int counts(size_t n, const Py_ssize_t *values, const char *const *names) {
    for (size_t i = 0; i < n; i++)
        if (values[i] < 0) return invalid("%s must not be negative, got %zd", names[i], values[i]);
    return 0;
}

int krylov_counts(const Py_ssize_t n[6], size_t *rows, size_t *cols, krylov_options *o) {
    static const char *const names[] = {"rows", "cols", "k", "block", "max_applications", "max_basis"};
    if (counts(6, n, names)) return -1;
    *rows = (size_t)n[0], *cols = (size_t)n[1];
    o->k = (size_t)n[2], o->block = (size_t)n[3], o->max_applications = (size_t)n[4], o->max_basis = (size_t)n[5];
    return 0;
}

PyObject *py_svd_krylov(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"op",   "shape",     "k",        "block", "tol", "max_applications",
                            "seed", "max_basis", "callback", NULL};
    Py_ssize_t n[6];
    unsigned long long seed;
    krylov_options o = {0};
    session s = {.callback = Py_None};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O(nn)nndnKn|O", names, &s.op, &n[0], &n[1], &n[2], &n[3], &o.tol, &n[4],
                                     &seed, &n[5], &s.callback)
        || krylov_counts(n, &s.rows, &s.cols, &o))
        return NULL;
    o.seed = seed;
    return solve(module, &s, o.k, &o, NULL);
}

PyObject *py_svd_power(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"op",   "shape", "k",          "oversample", "iterations",
                            "seed", "tol",   "probe_most", "max_basis",  "callback", NULL};
    static const char *const count_names[] = {"rows", "cols", "k", "oversample", "iterations", "probe_most", "max_basis"};
    Py_ssize_t n[7];
    unsigned long long seed;
    power_options o = {0};
    session s = {.callback = Py_None};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O(nn)nnnKdnn|O", names, &s.op, &n[0], &n[1], &n[2], &n[3], &n[4], &seed,
                                     &o.tol, &n[5], &n[6], &s.callback)
        || counts(7, n, count_names))
        return NULL;
    s.rows = (size_t)n[0], s.cols = (size_t)n[1];
    o.k = (size_t)n[2], o.oversample = (size_t)n[3], o.iterations = (size_t)n[4], o.seed = seed;
    o.probe_most = (size_t)n[5], o.max_basis = (size_t)n[6];
    return solve(module, &s, o.k, NULL, &o);
}
