#include "python/convert.h"
#include <limits.h>
#include <string.h>
#include "kernels/blocks.h"

_Static_assert(sizeof(int) == sizeof(npy_int32), "tokens, positions and ranges are read as int");

int invalid(const char *format, ...) {
    va_list args;
    va_start(args, format);
    PyObject *errors = PyImport_ImportModule("powersteer.errors");
    PyObject *cls = errors ? PyObject_GetAttrString(errors, "InvalidInput") : NULL;
    if (cls) PyErr_FormatV(cls, format, args);
    va_end(args);
    Py_XDECREF(cls);
    Py_XDECREF(errors);
    return -1;
}

PyObject *item(PyObject *dict, const char *key) {
    PyObject *value = PyDict_GetItemString(dict, key);
    return value == Py_None ? NULL : value;
}

int known_keys(PyObject *dict, const char *what, const char *const *names) {
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    if (!PyDict_Check(dict)) return invalid("%s must be a dict, got %s", what, Py_TYPE(dict)->tp_name);
    while (PyDict_Next(dict, &pos, &key, &value)) {
        const char *text = PyUnicode_Check(key) ? PyUnicode_AsUTF8(key) : "(not a string)";
        size_t i = 0;
        if (!text) return -1;
        while (names[i] && strcmp(names[i], text)) i++;
        if (!names[i]) return invalid("%s has an unknown key '%s'", what, text);
    }
    return 0;
}

int get_size(PyObject *dict, const char *key, size_t *out) {
    PyObject *value = item(dict, key);
    if (!value) return invalid("spec lacks '%s'", key);
    *out = PyLong_AsSize_t(value);
    if (*out == (size_t)-1 && PyErr_Occurred()) return -1;
    if (*out > INT_MAX) return invalid("'%s' is too large: %zu", key, *out);
    return 0;
}

int get_double(PyObject *dict, const char *key, double *out) {
    PyObject *value = item(dict, key);
    if (!value) return invalid("spec lacks '%s'", key);
    *out = PyFloat_AsDouble(value);
    if (*out == -1 && PyErr_Occurred()) return -1;
    if (!isfinite(*out)) return invalid("'%s' is not finite", key);
    return 0;
}

int get_flag(PyObject *dict, const char *key, int *out) {
    PyObject *value = item(dict, key);
    if (!value || !PyBool_Check(value)) return invalid("'%s' must be True or False", key);
    *out = value == Py_True;
    return 0;
}

int get_choice(PyObject *dict, const char *key, const char *const *choices, int *out) {
    PyObject *value = item(dict, key);
    if (!value) return invalid("spec lacks '%s'", key);
    const char *text = PyUnicode_Check(value) ? PyUnicode_AsUTF8(value) : NULL;
    for (int i = 0; text && choices[i]; i++)
        if (!strcmp(choices[i], text)) {
            *out = i;
            return 0;
        }
    if (PyErr_Occurred()) return -1;
    return invalid("'%s' has a value the core does not know: %R", key, value);
}

static int usable_array(PyObject *obj, const char *name) {
    if (!PyArray_Check(obj)) return invalid("%s must be a NumPy array, got %s", name, Py_TYPE(obj)->tp_name);
    PyArrayObject *a = (PyArrayObject *)obj;
    if (!PyArray_ISALIGNED(a) || PyArray_ISBYTESWAPPED(a)) return invalid("%s must be aligned and in native byte order", name);
    return 0;
}

static int weight_type(PyArrayObject *a, wtype *out) {
    switch (PyArray_TYPE(a)) {
    case NPY_FLOAT32: *out = W_F32; return 0;
    case NPY_FLOAT64: *out = W_F64; return 0;
    case NPY_HALF: *out = W_F16; return 0;
    case NPY_UINT16: *out = W_BF16; return 0;
    }
    return -1;
}

/* The layout of a 2-D or 3-D array of rows of n_in elements, of which `per` lie in an item of `size` bytes. */
static int get_rows_layout(PyArrayObject *a, const char *name, size_t n_out, size_t n_in, npy_intp size, size_t per, weight *w) {
    int nd = PyArray_NDIM(a);
    const npy_intp *dims = PyArray_DIMS(a), *strides = PyArray_STRIDES(a);
    size_t rows = nd == 2 ? (size_t)dims[0] : nd == 3 ? (size_t)dims[0] * (size_t)dims[1] : 0;
    if (nd < 2 || nd > 3 || rows != n_out || (size_t)(dims[nd - 1] * PyArray_ITEMSIZE(a) / size) * per != n_in) {
        PyObject *shape = PyObject_GetAttrString((PyObject *)a, "shape");
        if (shape) invalid("the weight %s has shape %S; the spec needs (%zu, %zu)", name, shape, n_out, n_in);
        Py_XDECREF(shape);
        return -1;
    }
    for (int i = 0; i < nd - (per > 1); i++)
        if (strides[i] % size) return invalid("the weight %s has strides that are not multiples of its item size", name);
    w->data = PyArray_DATA(a);
    w->n_out = n_out;
    w->n_in = n_in;
    w->group = (size_t)dims[nd - 2];
    w->group_stride = nd == 3 ? strides[0] / size * (npy_intp)per : 0;
    w->out_stride = strides[nd - 2] / size * (npy_intp)per;
    w->in_stride = per > 1 ? 1 : strides[nd - 1] / size;
    return 0;
}

/* The type of this name, or N_WTYPES */
static int type_of_blocks(PyObject *name) {
    int type = W_Q4_0;
    while (type < N_WTYPES && PyUnicode_CompareWithASCIIString(name, wtype_layouts[type].name)) type++;
    return type;
}

/* factors (n_out, n) of a type, item j of a row that of numbers j*run .. */
static int get_factors(PyObject *obj, const char *name, Py_ssize_t run, weight *w) {
    npy_intp size = wtype_layouts[w->type].factor_bytes;
    if (!size && obj == Py_None) return 0;
    if (!size) return invalid("the weight %s of type %s has factors apart; this type keeps them in its blocks", name, wtype_layouts[w->type].name);
    PyArrayObject *f = (PyArrayObject *)obj;
    if (!PyArray_Check(obj) || PyArray_TYPE(f) != (size == 4 ? NPY_FLOAT32 : NPY_UINT8) || !PyArray_ISALIGNED(f) || PyArray_ISBYTESWAPPED(f)
        || w->group != w->n_out || PyArray_NDIM(f) != 2 || (size_t)PyArray_DIM(f, 0) != w->n_out || run <= 0 || run % BLOCK_RUN
        || (size_t)PyArray_DIM(f, 1) < (w->n_in + (size_t)run - 1) / (size_t)run || PyArray_STRIDE(f, 1) != size
        || PyArray_STRIDE(f, 0) % size)
        return invalid("the factors of the weight %s must be rows of %s, one for each %zd of its %zu x %zu numbers", name,
                       size == 4 ? "float32" : "uint8", run, w->n_out, w->n_in);
    w->factors = PyArray_DATA(f);
    w->factor_stride = PyArray_STRIDE(f, 0) / size;
    w->factor_run = (size_t)run;
    return 0;
}

/* (type, bytes (n_out, row), factors or None, factor_run): a weight of blocks */
static int get_blocks(PyObject *obj, const char *name, size_t n_out, size_t n_in, weight *w) {
    PyObject *kind, *array, *factors, *run;
    if (PyTuple_GET_SIZE(obj) != 4 || !PyUnicode_Check(kind = PyTuple_GET_ITEM(obj, 0))
        || !PyArray_Check(array = PyTuple_GET_ITEM(obj, 1)) || !PyLong_Check(run = PyTuple_GET_ITEM(obj, 3)))
        return invalid("the weight %s of blocks must be a tuple (type, array of bytes, factors or None, numbers a factor)", name);
    factors = PyTuple_GET_ITEM(obj, 2);
    int type = type_of_blocks(kind);
    if (type == N_WTYPES) return invalid("the weight %s has the type %R, which the core does not know", name, kind);
    const wtype_layout *layout = &wtype_layouts[type];
    PyArrayObject *data = (PyArrayObject *)array;
    int nd = PyArray_NDIM(data);
    if (PyArray_TYPE(data) != NPY_UINT8 || nd < 2 || PyArray_STRIDE(data, nd - 1) != 1 || n_in % BLOCK_RUN || n_in % layout->numbers
        || (size_t)PyArray_DIM(data, nd - 1) != n_in / layout->numbers * layout->bytes)
        return invalid("the blocks of the weight %s must be rows of contiguous bytes, %d bytes for each %d of %zu numbers", name,
                       layout->bytes, layout->numbers, n_in);
    w->type = (wtype)type;
    if (get_rows_layout(data, name, n_out, n_in, layout->bytes, layout->numbers, w)) return -1;
    Py_ssize_t each = PyLong_AsSsize_t(run);
    if (each == -1) PyErr_Clear(); /* too large a number, which get_factors refuses, too */
    return get_factors(factors, name, each, w);
}

int get_weight(PyObject *obj, const char *name, size_t n_out, size_t n_in, int required, weight *w, PyObject *keep) {
    *w = (weight){0};
    if (!obj) return required ? invalid("the weight %s is missing", name) : 0;
    if (PyTuple_Check(obj)) return get_blocks(obj, name, n_out, n_in, w) ? -1 : PyList_Append(keep, obj);
    if (usable_array(obj, name)) return -1;
    PyArrayObject *a = (PyArrayObject *)obj;
    if (weight_type(a, &w->type))
        return invalid("the weight %s has dtype %S; float32, float64, float16 or uint16 (bfloat16 bits) is needed", name,
                       (PyObject *)PyArray_DESCR(a));
    return get_rows_layout(a, name, n_out, n_in, PyArray_ITEMSIZE(a), 1, w) ? -1 : PyList_Append(keep, obj);
}

int get_vector(PyObject *obj, const char *name, size_t n, const real **out, PyObject *keep) {
    *out = NULL;
    if (!obj) return 0;
    if (usable_array(obj, name)) return -1;
    PyArrayObject *a = (PyArrayObject *)obj;
    if (PyArray_TYPE(a) != NPY_REAL || PyArray_NDIM(a) != 1 || !PyArray_IS_C_CONTIGUOUS(a))
        return invalid("%s must be a contiguous 1-D array of " REAL_NAME, name);
    if ((size_t)PyArray_DIM(a, 0) != n) return invalid("%s has %zd numbers; %zu are needed", name, PyArray_DIM(a, 0), n);
    *out = PyArray_DATA(a);
    return PyList_Append(keep, obj);
}

PyArrayObject *get_rows(PyObject *obj, const char *name, size_t cols) {
    if (!PyArray_Check(obj) || PyArray_TYPE((PyArrayObject *)obj) != NPY_REAL || PyArray_NDIM((PyArrayObject *)obj) != 2
        || (size_t)PyArray_DIM((PyArrayObject *)obj, 1) != cols) {
        PyObject *shape = PyArray_Check(obj) ? PyObject_GetAttrString(obj, "shape") : Py_NewRef(Py_TYPE(obj));
        if (shape) invalid("%s must be a " REAL_NAME " array of shape (n, %zu), got %S", name, cols, shape);
        Py_XDECREF(shape);
        return NULL;
    }
    return (PyArrayObject *)PyArray_FROMANY(obj, NPY_REAL, 2, 2, NPY_ARRAY_CARRAY_RO | NPY_ARRAY_NOTSWAPPED);
}

void *get_numbers(PyObject *obj, const char *name, int type, size_t n) {
    PyArrayObject *a = (PyArrayObject *)obj;
    if (PyArray_Check(obj) && PyArray_TYPE(a) == type && PyArray_NDIM(a) == 1 && PyArray_ISCARRAY_RO(a)
        && (size_t)PyArray_DIM(a, 0) == n)
        return PyArray_DATA(a);
    invalid("%s must be a contiguous array of %zu numbers of the right type", name, n);
    return NULL;
}

int get_int_lists(PyObject *obj, const char *name, int_lists *out) {
    Py_ssize_t n = PySequence_Check(obj) ? PySequence_Size(obj) : -1;
    if (n < 0) return PyErr_Occurred() ? -1 : invalid("%s must be a list of int32 arrays", name);
    out->keep = PyList_New(0);
    out->data = PyMem_New(const int *, n ? n : 1);
    out->length = PyMem_New(size_t, n ? n : 1);
    if (!out->keep) return -1;
    if (!out->data || !out->length) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *a = PySequence_GetItem(obj, i);
        int ok = a && PyArray_Check(a) && PyArray_NDIM((PyArrayObject *)a) == 1 && PyArray_TYPE((PyArrayObject *)a) == NPY_INT32
              && PyArray_ISCARRAY_RO((PyArrayObject *)a);
        int bad = !ok || PyList_Append(out->keep, a);
        if (!bad) {
            out->data[i] = PyArray_DATA((PyArrayObject *)a);
            out->length[i] = (size_t)PyArray_DIM((PyArrayObject *)a, 0);
        }
        Py_XDECREF(a);
        if (bad) return PyErr_Occurred() ? -1 : invalid("%s[%zd] must be a contiguous 1-D int32 array", name, i);
    }
    out->n = (size_t)n;
    return 0;
}

void int_lists_free(int_lists *l) {
    PyMem_Free((void *)l->data);
    PyMem_Free(l->length);
    Py_CLEAR(l->keep);
}

int get_site(PyObject *obj, const char *name, size_t n_layers, site n_sites, size_t *layer, site *at) {
    int l, s;
    if (!PyTuple_Check(obj) || !PyArg_ParseTuple(obj, "ii", &l, &s)) {
        PyErr_Clear();
        return invalid("%s must be a tuple (layer, site)", name);
    }
    if (l < 0 || (size_t)l >= n_layers || s < 0 || s >= (int)n_sites)
        return invalid("%s (%d, %d) lies outside the model: %zu layers, %d sites", name, l, s, n_layers, (int)n_sites);
    *layer = (size_t)l;
    *at = (site)s;
    return 0;
}

static int get_intervention(PyObject *obj, size_t n_layers, size_t d_model, intervention *s, PyObject *keep) {
    PyObject *vector, *ranges, *coefficient = Py_None;
    int layer, at, sequence;
    if (!PyTuple_Check(obj) || !PyArg_ParseTuple(obj, "iiOiO|O", &layer, &at, &vector, &sequence, &ranges, &coefficient)) {
        PyErr_Clear();
        return invalid("an intervention must be a tuple (layer, site, vector, sequence, ranges) or one with a coefficient behind");
    }
    if (layer < 0 || (size_t)layer >= n_layers || at < 0 || at >= N_SITES)
        return invalid("an intervention at (%d, %d) lies outside the model: %zu layers, %d sites", layer, at, n_layers, (int)N_SITES);
    if (get_vector(vector, "the steering vector", d_model, &s->vector, keep)) return -1;
    if (!PyArray_Check(ranges) || PyArray_TYPE((PyArrayObject *)ranges) != NPY_INT32 || PyArray_NDIM((PyArrayObject *)ranges) != 2
        || PyArray_DIM((PyArrayObject *)ranges, 1) != 2 || !PyArray_ISCARRAY_RO((PyArrayObject *)ranges))
        return invalid("an intervention's ranges must be a contiguous int32 array of shape (n, 2)");
    s->clamps = coefficient != Py_None;
    s->coefficient = s->clamps ? PyFloat_AsDouble(coefficient) : 0;
    if (s->coefficient == -1 && PyErr_Occurred()) return -1;
    if (!isfinite(s->coefficient)) return invalid("an intervention's coefficient is not finite");
    s->layer = (size_t)layer;
    s->site = (site)at;
    s->sequence = sequence;
    s->n_ranges = (size_t)PyArray_DIM((PyArrayObject *)ranges, 0);
    s->ranges = PyArray_DATA((PyArrayObject *)ranges);
    return PyList_Append(keep, ranges);
}

int get_steer(PyObject *obj, size_t n_layers, size_t d_model, steer_list *out) {
    Py_ssize_t n = PySequence_Check(obj) ? PySequence_Size(obj) : -1;
    if (n < 0) return PyErr_Occurred() ? -1 : invalid("steer must be a list of interventions");
    out->keep = PyList_New(0);
    out->items = PyMem_New(intervention, n ? n : 1);
    if (!out->keep) return -1;
    if (!out->items) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *one = PySequence_GetItem(obj, i);
        int bad = !one || get_intervention(one, n_layers, d_model, &out->items[i], out->keep);
        Py_XDECREF(one);
        if (bad) return -1;
    }
    out->n = (size_t)n;
    return 0;
}

void steer_list_free(steer_list *l) {
    PyMem_Free(l->items);
    Py_CLEAR(l->keep);
}

int get_batch_shape(const spec *m, PyObject *lengths, batch *b) {
    PyObject *items = PySequence_Fast(lengths, "lengths must be a sequence of integers");
    if (!items) return -1;
    b->n_seq = (size_t)PySequence_Fast_GET_SIZE(items);
    int bad = !b->n_seq && invalid("lengths is empty");
    for (size_t i = 0; !bad && i < b->n_seq; i++) {
        size_t n = PyLong_AsSize_t(PySequence_Fast_GET_ITEM(items, i));
        if (PyErr_Occurred()) bad = -1;
        else if (n < 1 || n > m->n_ctx || n > SIZE_MAX / 2 - b->n_rows) bad = invalid("a length is %zu, the context %zu", n, m->n_ctx);
        else {
            b->n_rows += n;
            if (n > b->max_keys) b->max_keys = n;
        }
    }
    Py_DECREF(items);
    return bad ? -1 : 0;
}
