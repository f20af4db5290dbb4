#include "model/cache.h"
#include <string.h>
#include "ops/latent.h"
#include "ops/scan.h"

/* Width of the keys that a layer sees, and where they begin; the return value: the widths of all that are kept */
static size_t place_keys(const spec *m, cache_kind kind, size_t *width, size_t *at) {
    size_t end = 0;
    for (size_t l = 0; l < m->n_layers; l++) { /* what only the layer at hand sees is at 0, and as wide as the widest */
        const layer_spec *y = &m->layer[l];
        size_t own = y->mixer != MIX_ATTENTION ? 0 : m->kv_rank ? latent_key(m) : y->n_kv_heads * y->head_dim;
        if (kind == CACHE_PASS && y->carried == NOT_CARRIED && own > end) end = own;
        if (width) width[l] = own;
    }
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        int kept = y->mixer == MIX_ATTENTION && y->keys_of == l && (kind == CACHE_ALL || y->carried != NOT_CARRIED);
        if (at) at[l] = y->keys_of != l ? at[y->keys_of] : kept ? end : 0;
        if (kept) end += m->kv_rank ? latent_key(m) : y->n_kv_heads * y->head_dim;
    }
    return end;
}

/* Sizes are ints, and weights with so many rows exist. */
size_t cache_state(const spec *m) {
    size_t most = 0, delta = m->state_v_heads * m->state_k_dim * m->state_v_dim;
    for (size_t l = 0; l < m->n_layers; l++) {
        const layer_spec *y = &m->layer[l];
        size_t taps = m->conv_taps ? m->conv_taps - 1 : 0, n = 0;
        if (y->mixer == MIX_CONV) n = taps * m->d_model;
        if (y->mixer == MIX_DELTA || y->mixer == MIX_MAMBA) n = taps * (y->q.n_out + y->k.n_out + y->v.n_out) + delta;
        if (n > most) most = n;
    }
    return most;
}

static ps_code make_or_count(cache *c, const spec *m, cache_kind kind, size_t n_seq, size_t total, size_t *bytes, ps_status *st) {
    size_t scans = kind == CACHE_ALL ? m->n_recurrent : m->n_recurrent > 0, states = scans ? 1 + (kind == CACHE_ALL) : 0, slots = n_seq * states;
    size_t keys = place_keys(m, kind, NULL, NULL);
    arena_slice table[] = {SLICE(c->capacity, n_seq), SLICE(c->length, n_seq), SLICE(c->offset, n_seq),
                           SLICE(c->width, m->n_layers), SLICE(c->at, m->n_layers),
                           SLICE(c->k, total, keys), SLICE(c->v, m->kv_rank ? 0 : total, keys),
                           SLICE(c->states, scans, slots, cache_state(m)), SLICE(c->seen, slots), SLICE(c->keep, n_seq),
                           SLICE(c->next, slots)};
    if (arena_make_or_count(&c->memory, table, COUNT(table), bytes, st)) return st->code;
    c->n_scans = scans;
    c->n_states = states;
    return PS_OK;
}

ps_code cache_count(const spec *m, cache_kind kind, size_t n_seq, size_t total, size_t *bytes, ps_status *st) {
    return make_or_count(&(cache){0}, m, kind, n_seq, total, bytes, st);
}

ps_code cache_make(cache *c, const spec *m, cache_kind kind, size_t n_seq, const size_t *capacity, ps_status *st) {
    size_t total = 0;
    *c = (cache){0};
    for (size_t s = 0; s < n_seq; s++) total += capacity[s]; /* each <= n_ctx: the caller has checked */
    if (make_or_count(c, m, kind, n_seq, total, NULL, st)) return st->code;
    c->n_seq = n_seq;
    place_keys(m, kind, c->width, c->at);
    if (m->kv_rank) c->v = c->k;
    c->total = total;
    c->state = cache_state(m);
    for (size_t s = 0, at = 0; s < n_seq; at += capacity[s++]) {
        c->capacity[s] = capacity[s];
        c->length[s] = c->keep[s] = 0;
        c->offset[s] = at;
    }
    for (size_t i = 0; i < n_seq * c->n_states; i++) c->seen[i] = CACHE_NOTHING;
    return PS_OK;
}

void cache_free(cache *c) { arena_free(&c->memory); }

void cache_write(cache *c, size_t layer, const batch *b, const real *k, const real *v) {
    const batch *all = b->whole ? b->whole : b;
    size_t width = c->width[layer];
    for (size_t s = 0; s < all->n_seq; s++)
        for (size_t r = all->row0[s], id = (size_t)all->id[s]; r < all->row0[s + 1]; r++) {
            size_t from = (b->whole ? b->of[r] : r) * width, at = (size_t)all->pos[r] * width;
            memcpy(cache_k(c, layer, id) + at, k + from, width * sizeof(real));
            if (v != k) memcpy(cache_v(c, layer, id) + at, v + from, width * sizeof(real));
        }
}

/* ---- states ---- */

cache_slots cache_slots_of(const cache *c, size_t id, size_t start) {
    int first = (int)(id * c->n_states);
    if (start) {
        int second = c->seen[first] != start;
        return (cache_slots){first + second, first + !second, SCAN_NONE};
    }
    return (cache_slots){SCAN_NONE, first, c->n_states > 1 && c->keep[id] ? first + 1 : SCAN_NONE};
}

static void mark_written(cache *c, const batch *b, int valid) {
    for (size_t s = 0; c->n_states && s < b->n_seq; s++) {
        size_t id = (size_t)b->id[s], start = (size_t)b->pos[b->row0[s]];
        cache_slots at = cache_slots_of(c, id, start);
        c->seen[at.end] = valid ? (size_t)b->pos[b->row0[s + 1] - 1] + 1 : CACHE_NOTHING;
        if (!start && c->n_states > 1) c->seen[at.end + 1] = valid && at.kept != SCAN_NONE ? c->keep[id] : CACHE_NOTHING;
    }
}

void cache_begin_pass(cache *c, const batch *b) { mark_written(c, b, 0); }
void cache_end_pass(cache *c, const batch *b) { mark_written(c, b, 1); }

size_t cache_start(const cache *c, size_t id, size_t length) {
    size_t most = c->n_states ? 0 : length;
    for (size_t i = id * c->n_states; i < (id + 1) * c->n_states; i++)
        if (c->seen[i] <= length && c->seen[i] > most) most = c->seen[i];
    return most;
}

void cache_cut(cache *c, size_t id, size_t length) {
    c->length[id] = length;
    for (size_t i = id * c->n_states; i < (id + 1) * c->n_states; i++)
        if (c->seen[i] > length) c->seen[i] = CACHE_NOTHING;
}
