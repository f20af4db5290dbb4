/* Models larger than memory: while a layer is computed, the next one's weights are read from their file. The first
 * spec.resident layers stay in memory; those behind are given back after each use, so that a pass does not push out what
 * the next one begins with. */
#ifndef PS_STREAM_H
#define PS_STREAM_H
#include "ops/spec.h"

enum { NO_LAYER = -1 };
/* Before a layer is computed for n_rows tokens. done: the layer before it on the way; next: the one after it, n_layers for the
 * LM head; either may be NO_LAYER. Experts are read ahead only where the tokens are enough to use all of them. */
void stream_layer(const spec *m, size_t n_rows, ptrdiff_t done, ptrdiff_t next);

#endif
