/* Python objects -> what the core wants. The only place that looks at an array's dtype, strides and alignment. Every
 * failure sets an exception that names the argument. */
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

/* dict[key], borrowed; missing or None: NULL without an exception */
PyObject *item(PyObject *dict, const char *key);
/* Every key of dict is one of names (NULL-terminated). */
int known_keys(PyObject *dict, const char *what, const char *const *names);
int get_size(PyObject *dict, const char *key, size_t *out);
int get_double(PyObject *dict, const char *key, double *out);
int get_choice(PyObject *dict, const char *key, const char *const *choices, int *out);

/* A matrix (n_out, n_in), or (groups, rows, n_in) with groups*rows = n_out, of any strides. obj NULL: absent, *w zeroed
 * (an error if required). The array is kept alive by appending it to keep. */
int get_weight(PyObject *obj, const char *name, size_t n_out, size_t n_in, int required, weight *w, PyObject *keep);
/* A contiguous real vector of n; obj NULL: NULL. */
int get_vector(PyObject *obj, const char *name, size_t n, const real **out, PyObject *keep);
/* A real matrix (n, cols), any n; contiguous (copied if it is not). New reference. */
PyArrayObject *get_rows(PyObject *obj, const char *name, size_t cols);

/* A sequence of 1-D int32 arrays, e.g. prompts or positions. Zero before use; free always. */
typedef struct {
    size_t n;
    const int **data; /* (n) */
    size_t *length;   /* (n) */
    PyObject *keep;
} int_lists;
int get_int_lists(PyObject *obj, const char *name, int_lists *out);
void int_lists_free(int_lists *l);

/* The list of interventions (layer, site, vector (d,), sequence, ranges int32 (n, 2)). Zero before use; free always. */
typedef struct {
    size_t n;
    intervention *items;
    PyObject *keep;
} steer_list;
int get_steer(PyObject *obj, size_t n_layers, size_t d_model, steer_list *out);
void steer_list_free(steer_list *l);

/* The lengths of sequences -> n_seq, n_rows and max_keys of a zeroed batch: what counting its buffers needs. */
int get_batch_shape(const spec *m, PyObject *lengths, batch *b);

/* (layer, site) */
int get_place(PyObject *obj, const char *name, size_t n_layers, size_t *layer, site *at);

#endif
