/* What a spec says of layers that have another mixer than attention, from Python's dicts. */
#ifndef PS_RECURRENCE_H
#define PS_RECURRENCE_H
#include "python/module.h"
#include "ops/spec.h"

/* 0, or -1 with an exception */
int get_state_sizes(PyObject *dict, spec *m);
/* Refuses what a layer has though it has no use for it, and one that is nothing. */
int get_mixer(PyObject *dict, const spec *m, layer_spec *y);
/* Convolution and decay of a layer whose weights and norms are there already; that one with attention has none. keep: see get_vector */
int get_recurrence(PyObject *dict, const spec *m, layer_spec *y, PyObject *keep);

const char *mixer_name(mixer_kind mixer); /* for messages */

#endif
