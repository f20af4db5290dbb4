/* The Python type Model: a spec whose weights are the data of NumPy arrays, and a thread pool. */
#ifndef PS_MODEL_TYPE_H
#define PS_MODEL_TYPE_H
#include "python/convert.h"
#include "python/module.h"
#include "model/cache.h"
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
    carried *carried;   /* owned */
    size_t n_computed; /* rows of forward passes so far, summed over layers */
} model_object;

/* obj as a Model of this module, borrowed; otherwise NULL with an exception */
model_object *as_model(PyObject *module, PyObject *obj);

/* Model.forward: (logits, acts), or NULL with an exception. c: NULL, or the cache that keys and values go to, as those of the
 * sequences first, first + 1, ..., whose interventions are used; they have the capacity. */
PyObject *forward_prompts(model_object *self, const int_lists *tokens, const steer_list *steer, PyObject *sites, PyObject *rows,
                          cache *c, int first);

#endif
