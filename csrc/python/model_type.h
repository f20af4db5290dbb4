/* The Python type Model: a spec whose weights are borrowed from NumPy arrays, and the threads that work on it. */
#ifndef PS_MODEL_TYPE_H
#define PS_MODEL_TYPE_H
#include "python/module.h"
#include "ops/spec.h"

typedef struct {
    PyObject_HEAD
    PyObject *module; /* keeps the library loaded */
    PyObject *keep;   /* list of the arrays that the spec points into */
    thread_pool *pool;
    spec spec;
    layer_spec *layers;
    rope_table *ropes;
    expert *experts; /* (n_layers, n_experts) */
} model_object;

/* Raises and returns NULL if obj is no Model of this module. */
model_object *as_model(PyObject *module, PyObject *obj);

#endif
