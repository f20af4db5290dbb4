/* Bytes that a computation allocates, counted on the same tables of sizes that allocate them. Of a batch only n_rows, n_seq and
 * max_keys are read. The positions of rows, a few integers each, are neglected. PS_ERR_OVERFLOW. */
#ifndef PS_FOOTPRINT_H
#define PS_FOOTPRINT_H
#include "model/jacobian.h"

typedef struct {
    size_t tape;   /* held by the Jacobian */
    size_t record; /* buffers of its taped forward pass */
    size_t sweep;  /* buffers and results of a sweep */
} footprint;

typedef struct {
    size_t source_layer;
    site source_site;
    target_kind kind;
    size_t target_layer; /* ignored unless kind is TARGET_SITE */
    size_t n_target;     /* target rows */
    size_t n_columns;    /* vectors of a sweep */
} footprint_plan;

/* Adds the bytes of a forward pass and of n_logits rows of logits to *bytes. */
ps_code forward_footprint(const spec *m, const batch *shape, size_t n_logits, int threads, size_t *bytes, ps_status *st);
/* Of a Jacobian with one target. */
ps_code jacobian_footprint(const spec *m, const batch *shape, const footprint_plan *p, int threads, footprint *f, ps_status *st);

#endif
