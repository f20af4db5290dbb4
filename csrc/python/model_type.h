/* The Python type Model: a spec whose weights are the data of NumPy arrays, and a thread pool. */
#ifndef PS_MODEL_TYPE_H
#define PS_MODEL_TYPE_H
#include "python/module.h"
#include "ops/spec.h"

typedef struct {
    PyObject_HEAD
    PyObject *module; /* keeps the matrix library open */
    PyObject *keep;   /* list of the arrays that the spec points to */
    thread_pool *pool;
    spec spec;
    layer_spec *layers;
    rope_table *ropes;
    expert *experts; /* (n_layers, n_experts) */
} model_object;

/* obj as a Model of this module, borrowed; otherwise NULL with an exception */
model_object *as_model(PyObject *module, PyObject *obj);

#endif
