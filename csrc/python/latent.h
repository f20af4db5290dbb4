/* Latent attention from the dicts of a model. A function returns 0, or -1 with an exception. */
#ifndef PS_PY_LATENT_H
#define PS_PY_LATENT_H
#include "python/module.h"
#include "ops/spec.h"

/* The scalars, if the spec has 'kv_rank' */
int get_latent_sizes(PyObject *dict, spec *m);
/* What a layer has beside q, k and o, whose norms and mixer are known; without latent attention nothing. keep: see get_weight */
int get_latent(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep);

#endif
