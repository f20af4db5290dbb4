/* The extension module: its state, its types, and how a call of the core runs under Python. */
#ifndef PS_MODULE_H
#define PS_MODULE_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include "kernels/runtime.h"

typedef struct {
    blas *blas;
    cpu_isa kind;
    PyObject *blas_path;
    PyTypeObject *model_type, *jacobian_type, *decoder_type;
} module_state;

module_state *module_state_of(PyObject *module);
const blas *module_blas(PyObject *module); /* NULL with an exception set if blas_open has not been called */

/* Sets the Python exception of a status and returns NULL. An exception that is set already (an interrupt, a failing
 * callback) is kept. */
PyObject *raise_status(const ps_status *st);

/* A call of the core with the GIL released: signals are looked for between operations, at most every 20 ms. */
typedef struct {
    runtime rt;
    PyThreadState *thread;
    double last;
    int stopped; /* an exception is set; the call is winding up */
} core_call;

void core_begin(core_call *c, PyObject *module, thread_pool *p); /* releases the GIL; c must not move until core_end */
void core_end(core_call *c);                           /* takes it again */

int add_model_type(PyObject *module);
int add_jacobian_type(PyObject *module);
int add_decoder_type(PyObject *module);

#endif
