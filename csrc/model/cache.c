#include "model/cache.h"
#include <string.h>

ps_code cache_make(cache *c, const spec *m, size_t n_seq, const size_t *capacity, ps_status *st) {
    size_t total = 0, rows;
    *c = (cache){0};
    for (size_t s = 0; s < n_seq; s++) total += capacity[s]; /* each <= n_ctx: the caller has checked */
    if (size_mul(m->n_layers, total, &rows, st)) return st->code;
    arena_slice table[] = {SLICE(c->capacity, n_seq), SLICE(c->length, n_seq), SLICE(c->offset, n_seq),
                           SLICE(c->k, rows, m->n_kv_heads, m->head_dim), SLICE(c->v, rows, m->n_kv_heads, m->head_dim)};
    if (arena_make(&c->memory, table, COUNT(table), st)) return st->code;
    c->n_seq = n_seq;
    c->n_layers = m->n_layers;
    c->width = m->n_kv_heads * m->head_dim;
    c->total = total;
    for (size_t s = 0, at = 0; s < n_seq; at += capacity[s++]) {
        c->capacity[s] = capacity[s];
        c->length[s] = 0;
        c->offset[s] = at;
    }
    return PS_OK;
}

void cache_free(cache *c) { arena_free(&c->memory); }

void cache_write(cache *c, size_t l, const batch *b, const real *k, const real *v) {
    for (size_t s = 0; s < b->n_seq; s++) {
        size_t r = b->row0[s], n = (b->row0[s + 1] - r) * c->width, at = (size_t)b->pos[r] * c->width, id = (size_t)b->id[s];
        memcpy(cache_k(c, l, id) + at, k + r * c->width, n * sizeof(real));
        memcpy(cache_v(c, l, id) + at, v + r * c->width, n * sizeof(real));
    }
}
