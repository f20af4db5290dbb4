/* With PS_FAULTS the bindings' allocations can be made to fail, like the core's: see base/alloc.h. Included after Python.h and
 * NumPy's headers. */
#ifndef PS_PY_FAULTS_H
#define PS_PY_FAULTS_H
#include "base/alloc.h"

#ifdef PS_FAULTS
#undef PyMem_New
#undef PyMem_Calloc
#undef PyMem_Free
#define PyMem_New(type, n) ((type *)ps_malloc((size_t)(n) * sizeof(type)))
#define PyMem_Calloc(n, item) ps_calloc((size_t)(n), item)
#define PyMem_Free(p) ps_free((void *)(p))
/* Python functions that allocate */
#define PyList_New(n) (faults_due() ? PyErr_NoMemory() : (PyList_New)(n))
#define PyList_Append(list, x) (faults_due() ? (PyErr_NoMemory(), -1) : (PyList_Append)(list, x))
#define PySequence_GetSlice(x, from, to) (faults_due() ? PyErr_NoMemory() : (PySequence_GetSlice)(x, from, to))
#undef PyArray_SimpleNew
#define PyArray_SimpleNew(nd, dims, type) \
    (faults_due() ? PyErr_NoMemory() : PyArray_New(&PyArray_Type, nd, dims, type, NULL, NULL, 0, 0, NULL))
#endif

#endif
