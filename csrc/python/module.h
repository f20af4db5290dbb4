/* The extension module: its state, its types, and calls of the core from Python. */
#ifndef PS_MODULE_H
#define PS_MODULE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "kernels/runtime.h"

#ifdef PS_DOUBLE
#define MODULE_NAME "powersteer._core._core64"
#define MODULE_INIT PyInit__core64
#else
#define MODULE_NAME "powersteer._core._core32"
#define MODULE_INIT PyInit__core32
#endif

typedef struct {
    blas *blas;
    cpu_isa isa;
    PyObject *blas_path;
    PyTypeObject *model_type, *jacobian_type, *decoder_type, *krylov_type;
} module_state;

module_state *module_state_of(PyObject *module);
const blas *module_blas(PyObject *module); /* NULL with an exception set if blas_open has not been called */

/* Sets the Python exception for a status and returns NULL. If an exception is set already, by a signal or a callback, that
 * one stays. */
PyObject *raise_status(const ps_status *st);

/* A call of the core without the GIL. Its poll handles signals, at most every 20 ms. */
typedef struct {
    runtime rt;
    PyThreadState *thread;
    double last;
    int stopped; /* a signal handler has raised an exception; the call returns as soon as it can */
} core_call;

void core_begin(core_call *c, PyObject *module, thread_pool *p); /* releases the GIL; c must stay where it is until core_end */
void core_end(core_call *c); /* takes the GIL again */

/* A docstring in the form that inspect.signature reads; `arguments` of a method begin with $self, of a function with
 * $module. */
#define DOC(name, arguments, text) name arguments "\n--\n\n" text

/* Each adds its type to the module: 0, or -1 with an exception. The types hold Python objects, so they take part in
 * garbage collection. An object is tracked only when it is complete: no collector, and no other thread through
 * gc.get_objects(), sees it half built. */
int add_model_type(PyObject *module);
int add_jacobian_type(PyObject *module);
int add_decoder_type(PyObject *module);
int add_krylov_type(PyObject *module);

#endif
