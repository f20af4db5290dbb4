/* Mixtures of experts from the dicts of a model. A function returns 0, or -1 with an exception. */
#ifndef PS_PY_MIXTURE_H
#define PS_PY_MIXTURE_H
#include "python/module.h"
#include "ops/spec.h"

/* The scalars of a mixture. Those of a shared expert and of routing by other than softmax may be missing. */
int parse_mixture(spec *m, PyObject *dict);
/* Router, experts (n_experts) and shared expert of a layer, if it has them */
int parse_experts(const spec *m, PyObject *dict, layer_spec *y, expert *experts, PyObject *keep);

#endif
