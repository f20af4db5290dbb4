#include "model/cache.h"
#include <string.h>

static ps_code make_or_count(cache *c, const spec *m, size_t n_layers, size_t n_seq, size_t total, size_t *bytes, ps_status *st) {
    size_t rows;
    if (size_mul(n_layers, total, &rows, st)) return st->code;
    arena_slice table[] = {SLICE(c->capacity, n_seq), SLICE(c->length, n_seq), SLICE(c->offset, n_seq),
                           SLICE(c->k, rows, m->n_kv_heads, m->head_dim), SLICE(c->v, rows, m->n_kv_heads, m->head_dim)};
    return arena_make_or_count(&c->memory, table, COUNT(table), bytes, st);
}

ps_code cache_count(const spec *m, size_t n_layers, size_t total, size_t *bytes, ps_status *st) {
    return make_or_count(&(cache){0}, m, n_layers, 0, total, bytes, st);
}

ps_code cache_make(cache *c, const spec *m, size_t n_layers, size_t n_seq, const size_t *capacity, ps_status *st) {
    size_t total = 0;
    *c = (cache){0};
    for (size_t s = 0; s < n_seq; s++) total += capacity[s]; /* each <= n_ctx: the caller has checked */
    if (make_or_count(c, m, n_layers, n_seq, total, NULL, st)) return st->code;
    c->n_seq = n_seq;
    c->n_layers = n_layers;
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
    const batch *all = b->whole ? b->whole : b;
    for (size_t s = 0; s < all->n_seq; s++)
        for (size_t r = all->row0[s], id = (size_t)all->id[s]; r < all->row0[s + 1]; r++) {
            size_t from = (b->whole ? b->of[r] : r) * c->width, at = (size_t)all->pos[r] * c->width;
            memcpy(cache_k(c, l, id) + at, k + from, c->width * sizeof(real));
            memcpy(cache_v(c, l, id) + at, v + from, c->width * sizeof(real));
        }
}
