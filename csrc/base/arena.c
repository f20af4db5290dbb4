#include "base/arena.h"
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"

enum { ALIGN = 64 };

ps_code size_mul(size_t a, size_t b, size_t *out, ps_status *st) {
    if (b && a > SIZE_MAX / b)
        return ps_fail(st, PS_ERR_OVERFLOW, "a size of %zu x %zu does not fit in this machine's memory", a, b);
    *out = a * b;
    return PS_OK;
}

static ps_code slice_bytes(const arena_slice *s, size_t *bytes, ps_status *st) {
    size_t n = s->item;
    for (int i = 0; i < 3; i++)
        if (size_mul(n, s->dims[i], &n, st)) return st->code;
    if (n > SIZE_MAX / 2) return ps_fail(st, PS_ERR_OVERFLOW, "the buffer %s would take %zu bytes", s->name, n);
    *bytes = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    return PS_OK;
}

ps_code arena_bytes(const arena_slice *table, size_t n, size_t *bytes, ps_status *st) {
    size_t total = ALIGN;
    for (size_t i = 0; i < n; i++) {
        size_t b = 0;
        if (slice_bytes(&table[i], &b, st)) return st->code;
        if (b > SIZE_MAX / 2 - total)
            return ps_fail(st, PS_ERR_OVERFLOW, "the buffers up to %s do not fit in this machine's memory", table[i].name);
        total += b;
    }
    *bytes = total;
    return PS_OK;
}

ps_code arena_make(arena *a, const arena_slice *table, size_t n, ps_status *st) {
    size_t total;
    if (arena_bytes(table, n, &total, st)) return st->code;
    char *base = ps_malloc(total);
    if (!base) return ps_fail(st, PS_ERR_MEMORY, "out of memory: %zu bytes requested", total);
    a->base = base;
    a->bytes = total;
    char *p = base + (ALIGN - (uintptr_t)base % ALIGN) % ALIGN;
    for (size_t i = 0; i < n; i++) {
        size_t b = 0;
        slice_bytes(&table[i], &b, st); /* cannot fail: arena_bytes has passed */
        memcpy(table[i].slot, &p, sizeof p);
        p += b;
    }
    return PS_OK;
}

ps_code arena_make_or_count(arena *a, const arena_slice *table, size_t n, size_t *bytes, ps_status *st) {
    if (!bytes) return arena_make(a, table, n, st);
    size_t more;
    if (arena_bytes(table, n, &more, st)) return st->code;
    *bytes += more;
    return PS_OK;
}

void arena_free(arena *a) {
    ps_free(a->base);
    a->base = NULL;
    a->bytes = 0;
}
