/* A matrix of the model as it is stored. The data belongs to the caller. */
#ifndef PS_WEIGHT_H
#define PS_WEIGHT_H
#include <stddef.h>
#include "base/real.h"

/* Element (o, i), o < n_out, i < n_in, lies at
 * data[(o / group) * group_stride + (o % group) * out_stride + i * in_stride], strides in elements.
 * A plain (n_out, n_in) matrix is one group: group = n_out. Several groups describe, for example, the q rows of a matrix in
 * which the q, k and v rows of each head follow each other. */
typedef enum { W_F32, W_F64, W_F16, W_BF16 } wtype;
typedef struct {
    const void *data; /* NULL: absent */
    wtype type;
    size_t n_out, n_in;
    size_t group;
    ptrdiff_t group_stride, out_stride, in_stride;
} weight;

#endif
