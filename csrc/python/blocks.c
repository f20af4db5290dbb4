#include "python/blocks.h"
#include "kernels/blocks.h"
#include "python/module.h"

PyObject *block_types(void) {
    PyObject *types = PyDict_New();
    for (int type = W_Q4_0; types && type < N_WTYPES; type++) {
        const wtype_layout *t = &wtype_layouts[type];
        PyObject *layout = Py_BuildValue("(iii)", t->numbers, t->bytes, t->factor_bytes);
        if (!layout || PyDict_SetItemString(types, t->name, layout)) Py_CLEAR(types);
        Py_XDECREF(layout);
    }
    return types;
}

const char py_decode_blocks_doc[] = DOC("decode_blocks", "($module, weight, out, /)",
    "Write the numbers of a weight of blocks, the tuple (type, bytes, factors, factor_run), into `out`, contiguous float32 of\n"
    "shape (n_out, n_in).");

PyObject *py_decode_blocks(PyObject *module, PyObject *args) {
    PyObject *tuple, *keep = PyList_New(0);
    PyArrayObject *out;
    weight w;
    if (!keep || !PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &tuple, &PyArray_Type, &out)) goto failed;
    if (PyArray_TYPE(out) != NPY_FLOAT32 || PyArray_NDIM(out) != 2 || !PyArray_ISCARRAY(out)) {
        invalid("out must be a writable, contiguous 2-D array of float32");
        goto failed;
    }
    size_t n_out = (size_t)PyArray_DIM(out, 0), n_in = (size_t)PyArray_DIM(out, 1);
    if (get_weight(tuple, "to decode", n_out, n_in, 1, &w, keep)) goto failed;
    block_decoder decode = blocks_decoder(module_state_of(module)->isa);
    float *numbers = PyArray_DATA(out);
    Py_BEGIN_ALLOW_THREADS
    for (size_t o = 0; o < n_out; o++) decode(&w, o, 0, n_in, numbers + o * n_in);
    Py_END_ALLOW_THREADS
    Py_DECREF(keep);
    Py_RETURN_NONE;
failed:
    Py_XDECREF(keep);
    return NULL;
}
