/* Weights that are stored as blocks: what a type's blocks look like, and their numbers as float32.
 *
 * The numbers are those of the gguf library for GGUF's types, and those of PyTorch for the others, to the bit. */
#ifndef PS_BLOCKS_H
#define PS_BLOCKS_H
#include <stdint.h>
#include "base/cpu.h"
#include "kernels/weight.h"

enum { BLOCK_RUN = 32 }; /* numbers are decoded in runs of this many, and the rows of a weight are whole runs */

/* A type of weights: its name, the numbers and the bytes of a block (of a plain type: of a number), and the bytes of a
 * factor where factors lie apart, 0 elsewhere. */
typedef struct {
    const char *name;
    uint16_t numbers, bytes, factor_bytes;
} wtype_layout;
extern const wtype_layout wtype_layouts[N_WTYPES];

/* Writes numbers i .. i + n of row o of a weight of blocks. i and n are multiples of BLOCK_RUN. */
typedef void (*block_decoder)(const weight *W, size_t o, size_t i, size_t n, float *out);
block_decoder blocks_decoder(cpu_isa isa); /* isa: one that this machine has */

/* Address of the block with element (o, i), i the first of a run; of a plain type, of the element. The second takes the numbers
 * and the bytes of a block, which may be constants: divisions would take as long as a good part of a row. */
static inline const void *block_at(const weight *W, size_t numbers, size_t bytes, size_t o, size_t i) {
    ptrdiff_t first = weight_row_offset(W, o) + (ptrdiff_t)i * W->in_stride - (ptrdiff_t)(i % numbers);
    return (const char *)W->data + first / (ptrdiff_t)numbers * (ptrdiff_t)bytes;
}
static inline const void *weight_at(const weight *W, size_t o, size_t i) {
    const wtype_layout *type = &wtype_layouts[W->type];
    return block_at(W, type->numbers, type->bytes, o, i);
}

#endif
