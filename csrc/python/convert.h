/* Conversion of Python objects to the core's types. Only this file reads an array's strides and alignment. A function returns 0,
 * or -1 (a pointer: NULL) with an exception that names the argument. */
#ifndef PS_CONVERT_H
#define PS_CONVERT_H
#include "python/module.h"
#include "model/batch.h"
#include "model/hooks.h"

#define PY_ARRAY_UNIQUE_SYMBOL PS_ARRAY_API
#ifndef PS_IMPORTS_ARRAY
#define NO_IMPORT_ARRAY
#endif
#define NPY_NO_DEPRECATED_API NPY_1_7_API_VERSION
#include <numpy/arrayobject.h>
#include "python/faults.h"

#ifdef PS_DOUBLE
#define NPY_REAL NPY_FLOAT64
#define REAL_NAME "float64"
#else
#define NPY_REAL NPY_FLOAT32
#define REAL_NAME "float32"
#endif

/* Raises powersteer.errors.InvalidInput and returns -1. */
int invalid(const char *format, ...);

/* dict[key], borrowed; NULL without an exception if it is missing or None */
PyObject *item(PyObject *dict, const char *key);
/* Refuses a key of dict that is not in names (NULL-terminated). what: the dict's name in the message */
int known_keys(PyObject *dict, const char *what, const char *const *names);
/* dict[key] as a number of at most INT_MAX, as a finite number, as 0 or 1, as the index of its string in choices (NULL-terminated) */
int get_size(PyObject *dict, const char *key, size_t *out);
int get_double(PyObject *dict, const char *key, double *out);
int get_flag(PyObject *dict, const char *key, int *out);
int get_choice(PyObject *dict, const char *key, const char *const *choices, int *out);

/* A matrix (n_out, n_in), or (groups, rows, n_in) with groups*rows = n_out, of any strides. obj NULL: absent, *w is zeroed,
 * unless it is required. A tuple (type, bytes, factors, factor_run) is a weight of blocks: bytes (n_out, bytes of a row) and, where factors
 * lie apart, their array. obj is appended to the list `keep`, which keeps it alive. */
int get_weight(PyObject *obj, const char *name, size_t n_out, size_t n_in, int required, weight *w, PyObject *keep);
/* A contiguous real vector of n numbers, appended to keep; obj NULL: NULL */
int get_vector(PyObject *obj, const char *name, size_t n, const real **out, PyObject *keep);
/* A real matrix (n, cols) of any n, copied unless it is contiguous. New reference */
PyArrayObject *get_rows(PyObject *obj, const char *name, size_t cols);

/* The data of a contiguous 1-D array of n items of a NumPy type */
void *get_numbers(PyObject *obj, const char *name, int type, size_t n);

/* A sequence of 1-D int32 arrays, for example prompts. Zero it before use; free it also after an error. */
typedef struct {
    size_t n;
    const int **data; /* (n) */
    size_t *length;   /* (n) */
    PyObject *keep;
} int_lists;
int get_int_lists(PyObject *obj, const char *name, int_lists *out);
void int_lists_free(int_lists *l);

/* A sequence of interventions (layer, site, vector (d,), sequence, ranges int32 (n, 2)), which add, and of those with a coefficient
 * behind, to which they clamp. Zero it before use; free it also after an error. */
typedef struct {
    size_t n;
    intervention *items;
    PyObject *keep;
} steer_list;
int get_steer(PyObject *obj, size_t n_layers, size_t d_model, steer_list *out);
void steer_list_free(steer_list *l);

/* Sets n_seq, n_rows and max_keys of a zeroed batch from the lengths of its sequences: what footprint.h reads. */
int get_batch_shape(const spec *m, PyObject *lengths, batch *b);

/* A tuple (layer, site) inside the model */
int get_site(PyObject *obj, const char *name, size_t n_layers, site n_sites, size_t *layer, site *at);

#endif
