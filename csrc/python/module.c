#include "python/module.h"
#include <time.h>
#define PY_ARRAY_UNIQUE_SYMBOL PS_ARRAY_API
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>
#include "base/real.h"
#include "kernels/blocks.h"
#include "model/sweep.h"
#include "python/blocks.h"
#include "python/faults.h"
#include "python/solver.h"

module_state *module_state_of(PyObject *module) { return PyModule_GetState(module); }

const blas *module_blas(PyObject *module) {
    const blas *b = module_state_of(module)->blas;
    if (!b) PyErr_SetString(PyExc_RuntimeError, "blas_open has not been called: import powersteer, not its core");
    return b;
}

static PyObject *error_class(const char *name) {
    PyObject *errors = PyImport_ImportModule("powersteer.errors");
    PyObject *cls = errors ? PyObject_GetAttrString(errors, name) : NULL;
    Py_XDECREF(errors);
    return cls;
}

PyObject *raise_status(const ps_status *st) {
    static const char *const names[] = {
        [PS_ERR_MEMORY] = "OutOfMemory", [PS_ERR_VALUE] = "InvalidInput", [PS_ERR_OVERFLOW] = "OutOfMemory",
        [PS_ERR_NONFINITE] = "NumericalError", [PS_ERR_SYSTEM] = "PowersteerError",
    };
    _Static_assert(COUNT(names) == PS_ERR_SYSTEM + 1, "an exception for every code");
    if (PyErr_Occurred()) return NULL;
    if (st->code == PS_ERR_INTERRUPTED || st->code == PS_ERR_CALLBACK || st->code == PS_OK) {
        PyErr_SetString(PyExc_RuntimeError, "the core stopped without saying why");
        return NULL;
    }
    PyObject *cls = error_class(names[st->code]);
    if (cls) PyErr_SetString(cls, st->message);
    Py_XDECREF(cls);
    return NULL;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static ps_code poll_signals(void *ctx, ps_status *st) {
    core_call *c = ctx;
    double t = now();
    if (!c->stopped && t - c->last >= 0.02) {
        c->last = t;
        PyEval_RestoreThread(c->thread);
        c->stopped = PyErr_CheckSignals();
        c->thread = PyEval_SaveThread();
    }
    return c->stopped ? ps_fail(st, PS_ERR_INTERRUPTED, "interrupted") : PS_OK;
}

void core_begin(core_call *c, PyObject *module, thread_pool *p) {
    const module_state *s = module_state_of(module);
    c->rt = (runtime){.blas = s->blas, .pool = p, .isa = s->isa, .poll = poll_signals, .poll_ctx = c};
    c->last = now();
    c->stopped = 0;
    c->thread = PyEval_SaveThread();
}

void core_end(core_call *c) { PyEval_RestoreThread(c->thread); }

static PyObject *py_blas_open(PyObject *module, PyObject *args) {
    module_state *s = module_state_of(module);
    PyObject *path;
    const char *prefix;
    ps_status st = {0};
    if (!PyArg_ParseTuple(args, "Us", &path, &prefix)) return NULL;
    if (s->blas) Py_RETURN_NONE;
    PyObject *bytes = PyUnicode_EncodeFSDefault(path);
    if (!bytes) return NULL;
    ps_code code = blas_open(&s->blas, PyBytes_AS_STRING(bytes), prefix, &st);
    Py_DECREF(bytes);
    if (code) return raise_status(&st);
    s->blas_path = Py_NewRef(path);
    Py_RETURN_NONE;
}

static PyObject *py_blas_info(PyObject *module, PyObject *unused) {
    module_state *s = module_state_of(module);
    (void)unused;
    return Py_BuildValue("{s:s,s:s,s:O,s:O}", "config", s->blas ? blas_config(s->blas) : "", "corename",
                         s->blas ? blas_corename(s->blas) : "", "path", s->blas_path ? s->blas_path : Py_None, "opened",
                         s->blas ? Py_True : Py_False);
}

static PyObject *py_instruction_sets(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    Py_ssize_t n = (Py_ssize_t)cpu_best() + 1;
    PyObject *names = PyTuple_New(n);
    for (Py_ssize_t i = 0; names && i < n; i++) {
        PyObject *name = PyUnicode_FromString(cpu_name((cpu_isa)i));
        if (!name) Py_CLEAR(names);
        else PyTuple_SET_ITEM(names, i, name);
    }
    return names;
}

static PyObject *py_instruction_set(PyObject *module, PyObject *unused) {
    (void)unused;
    return PyUnicode_FromString(cpu_name(module_state_of(module)->isa));
}

static PyObject *py_use_instructions(PyObject *module, PyObject *arg) {
    for (cpu_isa isa = PLAIN; PyUnicode_Check(arg) && isa <= cpu_best(); isa++)
        if (!PyUnicode_CompareWithASCIIString(arg, cpu_name(isa))) {
            module_state_of(module)->isa = isa;
            Py_RETURN_NONE;
        }
    return PyErr_Format(PyExc_ValueError, "this machine has no instruction set %R", arg);
}

static PyObject *py_cpu_features(PyObject *module, PyObject *unused) {
    (void)module;
    (void)unused;
    PyObject *list = PyList_New(0), *out;
    int bad = !list;
#define FEATURE(name)                                                           \
    if (!bad && __builtin_cpu_supports(name)) {                                 \
        PyObject *text = PyUnicode_FromString(name);                            \
        bad = !text || PyList_Append(list, text);                               \
        Py_XDECREF(text);                                                       \
    }
#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
    __builtin_cpu_init();
    FEATURE("sse4.2")
    FEATURE("avx")
    FEATURE("avx2")
    FEATURE("fma")
    FEATURE("avx512f")
    FEATURE("avx512cd")
    FEATURE("avx512bw")
    FEATURE("avx512dq")
    FEATURE("avx512vl")
    FEATURE("avx512bf16")
#elif defined(__aarch64__)
    PyObject *text = bad ? NULL : PyUnicode_FromString("neon");
    bad = bad || !text || PyList_Append(list, text);
    Py_XDECREF(text);
#endif
#undef FEATURE
    out = bad ? NULL : PyList_AsTuple(list);
    Py_XDECREF(list);
    return out;
}

#ifdef PS_FAULTS
static PyObject *py_fail_allocation(PyObject *module, PyObject *arg) {
    (void)module;
    long n = PyLong_AsLong(arg), made = faults_made(), alive = faults_alive();
    if (n == -1 && PyErr_Occurred()) return NULL;
    faults_arm(0);
    PyObject *answer = Py_BuildValue("ll", made, alive);
    faults_arm(n);
    return answer;
}
#endif

static PyMethodDef methods[] = {
#ifdef PS_FAULTS
    {"fail_allocation", py_fail_allocation, METH_O,
     DOC("fail_allocation", "($module, n, /)",
         "Let the n-th allocation from now on fail, 0 none. Returns the number of allocations since the last call and of\n"
         "blocks not freed.")},
#endif
    {"blas_open", py_blas_open, METH_VARARGS,
     DOC("blas_open", "($module, path, prefix, /)",
         "Open the OpenBLAS library at `path`, whose symbols begin with `prefix`. A second call does nothing.")},
    {"blas_info", py_blas_info, METH_NOARGS,
     DOC("blas_info", "($module, /)", "Return a dict of the library's config, corename, path, and whether it is opened.")},
    {"cpu_features", py_cpu_features, METH_NOARGS,
     DOC("cpu_features", "($module, /)", "Return the names of the processor's vector extensions, as found at run time.")},
    {"instruction_sets", py_instruction_sets, METH_NOARGS,
     DOC("instruction_sets", "($module, /)",
         "Return the names of the instruction sets that the kernels are compiled for and this machine has, the best last.")},
    {"instruction_set", py_instruction_set, METH_NOARGS,
     DOC("instruction_set", "($module, /)", "Return the name of the instruction set in use: \"portable\" until another is chosen.")},
    {"use_instructions", py_use_instructions, METH_O,
     DOC("use_instructions", "($module, name, /)",
         "Use this instruction set's kernels from now on. ValueError if the machine lacks it.")},
    {"decode_blocks", py_decode_blocks, METH_VARARGS, py_decode_blocks_doc},
    {"svd_krylov", (PyCFunction)(void (*)(void))py_svd_krylov, METH_VARARGS | METH_KEYWORDS, py_svd_krylov_doc},
    {"svd_power", (PyCFunction)(void (*)(void))py_svd_power, METH_VARARGS | METH_KEYWORDS, py_svd_power_doc},
    {0},
};

static int import_numpy(void) {
    import_array1(-1);
    return 0;
}

static PyObject *names_tuple(const char *const *names, Py_ssize_t n) {
    PyObject *tuple = PyTuple_New(n);
    for (Py_ssize_t i = 0; tuple && i < n; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (!name) Py_CLEAR(tuple);
        else PyTuple_SET_ITEM(tuple, i, name);
    }
    return tuple;
}

/* The constants that Python shares with the core. */
static int add_constants(PyObject *module) {
    static const char *const site_names[N_READABLE] = {
        [SITE_RESID_PRE] = "resid_pre", [SITE_ATTN_OUT] = "attn_out", [SITE_RESID_MID] = "resid_mid",
        [SITE_DOWN_PROJ] = "down_proj", [SITE_MLP_OUT] = "mlp_out", [SITE_RESID_POST] = "resid_post",
        [READ_Q] = "q", [READ_K] = "k", [READ_V] = "v", [READ_ROT_Q] = "rot_q", [READ_ROT_K] = "rot_k",
        [READ_PATTERN] = "pattern", [READ_Z] = "z", [READ_PRE] = "pre", [READ_PRE_LINEAR] = "pre_linear", [READ_POST] = "post"};
    PyObject *sites = names_tuple(site_names, N_SITES), *reads = names_tuple(site_names + N_SITES, N_READABLE - N_SITES);
    PyObject *types = block_types();
    int bad = !sites || !reads || !types || PyModule_AddObjectRef(module, "SITES", sites)
           || PyModule_AddObjectRef(module, "READABLE", reads) || PyModule_AddObjectRef(module, "BLOCK_TYPES", types)
           || PyModule_AddIntConstant(module, "BLOCK_RUN", BLOCK_RUN) || PyModule_AddIntConstant(module, "real_size", sizeof(real))
           || PyModule_AddIntConstant(module, "MAX_THREADS", MAX_THREADS) || PyModule_AddIntConstant(module, "SWEEP_ROWS", SWEEP_ROWS);
    Py_XDECREF(sites);
    Py_XDECREF(reads);
    Py_XDECREF(types);
    return bad ? -1 : 0;
}

static int module_exec(PyObject *module) {
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) { /* where NumPy's C API lives */
        PyErr_SetString(PyExc_ImportError, "powersteer works in Python's main interpreter only, not in a subinterpreter");
        return -1;
    }
    if (import_numpy() || add_constants(module)) return -1;
    return add_model_type(module) || add_jacobian_type(module) || add_decoder_type(module) || add_krylov_type(module) ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *s = module_state_of(module);
    Py_VISIT(s->model_type);
    Py_VISIT(s->jacobian_type);
    Py_VISIT(s->decoder_type);
    Py_VISIT(s->krylov_type);
    return 0;
}

static int module_clear(PyObject *module) {
    module_state *s = module_state_of(module);
    Py_CLEAR(s->model_type);
    Py_CLEAR(s->jacobian_type);
    Py_CLEAR(s->decoder_type);
    Py_CLEAR(s->krylov_type);
    Py_CLEAR(s->blas_path);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
    blas_close(module_state_of(module)->blas);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000 /* a free-threaded Python takes its lock, and says so */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = MODULE_NAME, .m_doc = "The numerical core of powersteer.",
    .m_size = sizeof(module_state), .m_methods = methods, .m_slots = slots,
    .m_traverse = module_traverse, .m_clear = module_clear, .m_free = module_free,
};

PyMODINIT_FUNC MODULE_INIT(void);
PyMODINIT_FUNC MODULE_INIT(void) { return PyModuleDef_Init(&definition); }
