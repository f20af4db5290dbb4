/* What a layer reads of earlier ones beside the residual stream, and its own sizes, from Python's dicts. A function returns 0, or
 * -1 with an exception. */
#ifndef PS_EARLIER_H
#define PS_EARLIER_H
#include "python/module.h"
#include "ops/spec.h"

/* The scalars of per-layer inputs, if the spec has 'd_input' */
int get_input_sizes(PyObject *dict, spec *m);
/* head_dim, n_kv_heads, d_ff, keys_of and out_scale of layer l: the spec's, its own number and 1 where it does not say */
int get_layer_sizes(PyObject *dict, const spec *m, size_t l, layer_spec *y);
/* The weights of a per-layer input. keep: see get_weight */
int get_layer_input(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep);
/* The table of what is carried (PyMem_Free it), and the entries of the layers in it; checks keys_of of all layers. */
int place_carried(spec *m, layer_spec *layers, carried **table);

#endif
