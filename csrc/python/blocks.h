/* Weights of blocks as the module sees them: their types, and their numbers. */
#ifndef PS_PY_BLOCKS_H
#define PS_PY_BLOCKS_H
#include "python/convert.h"

/* {type: (numbers, bytes, bytes of a factor that lies apart)} of every type of blocks */
PyObject *block_types(void);

extern const char py_decode_blocks_doc[];
PyObject *py_decode_blocks(PyObject *module, PyObject *args);

#endif
