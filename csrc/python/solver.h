/* The Python functions svd_krylov and svd_power, for any object with methods apply and apply_t. */
#ifndef PS_SOLVER_H
#define PS_SOLVER_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyObject *py_svd_krylov(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *py_svd_power(PyObject *module, PyObject *args, PyObject *kwargs);
extern const char py_svd_krylov_doc[], py_svd_power_doc[];

#endif
