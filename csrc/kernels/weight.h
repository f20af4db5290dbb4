/* A matrix of the model as it is stored. The data belongs to the caller. */
#ifndef PS_WEIGHT_H
#define PS_WEIGHT_H
#include <stddef.h>
#include "base/real.h"

/* Types of numbers, then types of blocks: a row is a sequence of blocks, each of which holds some numbers as a few bits and
 * the factors that they share (see blocks.h). */
typedef enum {
    W_F32, W_F64, W_F16, W_BF16,
    W_Q4_0, W_Q4_1, W_Q5_0, W_Q5_1, W_Q8_0, W_Q2_K, W_Q3_K, W_Q4_K, W_Q5_K, W_Q6_K, W_IQ4_NL, W_IQ4_XS, W_MXFP4, /* GGUF */
    W_F8_E4M3, W_MXFP4_APART, /* safetensors: the factors lie apart */
    N_WTYPES
} wtype;

/* Element (o, i), o < n_out, i < n_in, lies at
 * data[(o / group) * group_stride + (o % group) * out_stride + i * in_stride], strides in elements.
 * A plain (n_out, n_in) matrix is one group: group = n_out. Several groups describe, for example, the q rows of a matrix in
 * which the q, k and v rows of each head follow each other. Of blocks, in_stride is 1, n_in a multiple of BLOCK_RUN and
 * out_stride one of the numbers in a block. */
typedef struct {
    const void *data; /* NULL: absent */
    wtype type;
    size_t n_out, n_in;
    size_t group;
    ptrdiff_t group_stride, out_stride, in_stride;
    const void *factors;     /* of types whose factors lie apart: that of element (o, i) is item o*factor_stride + i/factor_run */
    ptrdiff_t factor_stride;
    size_t factor_run;
} weight;

/* Whether a weight of this type consists of blocks */
static inline int wtype_is_blocks(wtype type) { return type >= W_Q4_0; }

/* Offset of row o in elements */
static inline ptrdiff_t weight_row_offset(const weight *W, size_t o) {
    if (o < W->group) return (ptrdiff_t)o * W->out_stride; /* no division */
    return (ptrdiff_t)(o / W->group) * W->group_stride + (ptrdiff_t)(o % W->group) * W->out_stride;
}

#endif
