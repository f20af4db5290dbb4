/* Several buffers in one allocation, made from a table of their sizes.
 *
 *   real *q, *k; int *pos;
 *   arena_slice table[] = {SLICE(q, R, C), SLICE(k, R, C), SLICE(pos, R)};
 *   if (arena_make(&arena, table, COUNT(table), st)) goto done;     // q, k, pos now point into the arena
 *   ...
 *   arena_free(&arena);                                             // accepts a zeroed arena
 *
 * Every slice starts on a 64-byte boundary. A slice of size 0 has a valid pointer that must not be read. */
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
/* bytes NULL: arena_make. Otherwise allocates nothing and adds arena_bytes to *bytes; a and the slots stay untouched. So
 * one table both makes a struct's buffers and counts them. */
ps_code arena_make_or_count(arena *a, const arena_slice *table, size_t n, size_t *bytes, ps_status *st);
void arena_free(arena *a); /* accepts a zeroed arena and leaves one */

/* *out = a b, or PS_ERR_OVERFLOW. Every product of sizes that becomes an address or an allocation is formed here or in
 * arena_bytes. */
ps_code size_mul(size_t a, size_t b, size_t *out, ps_status *st);

#endif
