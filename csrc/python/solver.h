/* The Python functions svd_krylov and svd_power, for any object with methods apply and apply_t, and what krylov_type.c shares
 * with them. */
#ifndef PS_SOLVER_H
#define PS_SOLVER_H
#include "python/convert.h"
#include "solver/svd_krylov.h"

PyObject *py_svd_krylov(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *py_svd_power(PyObject *module, PyObject *args, PyObject *kwargs);
extern const char py_svd_krylov_doc[], py_svd_power_doc[];

/* Sets sizes and options from (rows, cols, k, block, max_applications, max_basis), none of which may be negative. */
int krylov_counts(const Py_ssize_t n[6], size_t *rows, size_t *cols, krylov_options *o);

/* (applications, worst, sigma (n,)) of an observer. New reference */
PyObject *history_entry(size_t applications, double worst, size_t n, const double *sigma);

/* The arrays of a result. Zero it before use; free it also after an error. */
typedef struct {
    PyArrayObject *U, *V, *sigma, *residuals;
} result_arrays;
int result_arrays_make(result_arrays *a, size_t k, size_t rows, size_t cols, svd_result *out);
void result_arrays_free(result_arrays *a);
PyObject *result_dict(const result_arrays *a, const svd_result *r, PyObject *history);

#endif
