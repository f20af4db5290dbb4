/* Sizes table -> one allocation -> named slices.
 *
 *   real *q, *k; int *pos;
 *   arena_slice table[] = {SLICE(q, R, C), SLICE(k, R, C), SLICE(pos, R)};
 *   if (arena_make(&arena, table, COUNT(table), st)) goto done;     // q, k, pos now point into the arena
 *   ...
 *   arena_free(&arena);                                             // accepts a zeroed arena
 *
 * Every slice starts on a 64-byte boundary. A size of 0 gives a valid pointer to nothing. */
#ifndef PS_ARENA_H
#define PS_ARENA_H
#include <stddef.h>
#include "base/status.h"

typedef struct {
    void *base;   /* owned */
    size_t bytes;
} arena;

typedef struct {
    void *slot;         /* address of the pointer to set */
    const char *name;   /* for the error message */
    size_t item;        /* bytes an item */
    size_t dims[3];     /* items = product */
} arena_slice;

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))
#define SLICE1(p, a) {&(p), #p, sizeof *(p), {(a), 1, 1}}
#define SLICE2(p, a, b) {&(p), #p, sizeof *(p), {(a), (b), 1}}
#define SLICE3(p, a, b, c) {&(p), #p, sizeof *(p), {(a), (b), (c)}}
#define SLICE_PICK(_1, _2, _3, _4, name, ...) name
#define SLICE(...) SLICE_PICK(__VA_ARGS__, SLICE3, SLICE2, SLICE1, 0)(__VA_ARGS__)

/* Bytes that arena_make would allocate. PS_ERR_OVERFLOW if a product or the sum does not fit in size_t. */
ps_code arena_bytes(const arena_slice *table, size_t n, size_t *bytes, ps_status *st);
/* Allocates (uninitialised) and sets the slots. On failure nothing is allocated and the slots are untouched. */
ps_code arena_make(arena *a, const arena_slice *table, size_t n, ps_status *st);
/* For makers that can also say their size: bytes NULL is arena_make; else what it would allocate is added to *bytes. */
ps_code arena_make_or_count(arena *a, const arena_slice *table, size_t n, size_t *bytes, ps_status *st);
void arena_free(arena *a);

/* out = a*b, refusing overflow: every product of sizes that becomes an address or an allocation goes through here
 * or through arena_bytes. */
ps_code size_mul(size_t a, size_t b, size_t *out, ps_status *st);

#endif
